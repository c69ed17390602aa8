package files

import (
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Program is the name of the command that runs this package. The init of a command finds it beside
// the runner, not in PATH.
const Program = "troupe-files"

// Operations of a Request.
const (
	OpStat   = "stat"   // one Entry
	OpList   = "list"   // the entries of a directory, by name
	OpRead   = "read"   // the content of a file
	OpWrite  = "write"  // a file from the standard input
	OpPack   = "pack"   // a directory as a tar archive
	OpUnpack = "unpack" // a tar archive from the standard input, into a directory
	OpMkdir  = "mkdir"  // a directory, with its parents if Parents is set
	OpMove   = "move"   // from Path to Target
	OpRemove = "remove" // a file or an empty directory; anything if Recursive is set
	OpWatch  = "watch"  // the changes below a directory, until the command is cancelled
)

// MaxEntries bounds the entries of one reply to OpList.
const MaxEntries = 1000

// Request is what to do. Paths are relative to the working directory; an absolute one must lie
// beneath it.
type Request struct {
	Op     string `json:"op"`
	Path   Name   `json:"path"`
	Target Name   `json:"target,omitempty"`

	Offset int64 `json:"offset,omitempty"` // OpRead: of the first byte
	Length int64 `json:"length,omitempty"` // OpRead: of bytes; 0: to the end
	Digest bool  `json:"digest,omitempty"` // OpRead, OpStat: add the SHA-256 of what is read

	// OpWrite: the bytes of the content, which is refused if it has others; nil: any.
	Size *int64 `json:"size,omitempty"`
	// OpWrite: the digest of the content; empty: it is not checked.
	SHA256 []byte `json:"sha256,omitempty"`
	// OpWrite: the 32 bytes of the SHA-256 may follow the content, which has Size bytes.
	Trailer bool `json:"trailer,omitempty"`
	// OpWrite, OpMkdir: permission bits; nil: those of the file that is replaced, or by umask.
	Mode *uint32 `json:"mode,omitempty"`
	// OpWrite: nil: now.
	Modified *time.Time `json:"modified,omitempty"`
	// OpRead, OpWrite, OpRemove: the tag that the file must have; "*": it must exist.
	Match string `json:"match,omitempty"`
	// OpWrite, OpMove: refuse to replace a file.
	New bool `json:"new,omitempty"`

	Parents   bool `json:"parents,omitempty"`   // OpWrite, OpMkdir, OpUnpack: make missing directories
	Recursive bool `json:"recursive,omitempty"` // OpRemove, OpWatch
	Follow    bool `json:"follow,omitempty"`    // OpStat: the file that a symbolic link leads to

	After Name `json:"after,omitempty"` // OpList: begin after this name
	Limit int  `json:"limit,omitempty"` // OpList: of entries; 0: MaxEntries
}

// Reply is the answer to a Request.
type Reply struct {
	Error   *Error  `json:"error,omitempty"`
	Entry   *Entry  `json:"entry,omitempty"`   // what was read, written, moved or made
	Entries []Entry `json:"entries,omitempty"` // OpList
	More    bool    `json:"more,omitempty"`    // OpList: there are entries after the last
	Length  int64   `json:"length,omitempty"`  // OpRead: of the bytes that follow
	SHA256  []byte  `json:"sha256,omitempty"`
	Files   int     `json:"files,omitempty"`   // OpUnpack: entries made
	Created bool    `json:"created,omitempty"` // OpWrite: no file was replaced
	Change  *Change `json:"change,omitempty"`  // OpWatch
	Alive   bool    `json:"alive,omitempty"`   // nothing has happened, but the program works
}

// Kinds of an Entry.
const (
	KindFile  = "file"
	KindDir   = "directory"
	KindLink  = "symlink"
	KindOther = "other" // a device, a socket or a pipe
)

// Entry describes a file.
type Entry struct {
	Name     Name      `json:"name"`
	Kind     string    `json:"kind"`
	Size     int64     `json:"size"`
	Mode     uint32    `json:"mode"` // permission bits
	Modified time.Time `json:"modified"`
	Link     Name      `json:"link,omitempty"` // where a symbolic link points to
	Tag      string    `json:"tag"`            // changes whenever the file does
}

// Kinds of a Change.
const (
	ChangeReady    = "ready"    // the watch has begun: what changes from now on is told
	ChangeCreated  = "created"  // also a file that was moved here
	ChangeModified = "modified" // its content
	ChangeMode     = "mode"     // its permissions or times
	ChangeRemoved  = "removed"
	ChangeRenamed  = "renamed"  // it was moved from here; its new name, if it is watched, is created
	ChangeOverflow = "overflow" // the kernel dropped changes: list what matters again
)

// Change is what happened to a file.
type Change struct {
	Kind string `json:"kind"`
	Path Name   `json:"path,omitempty"` // relative to the watched directory
}

// Name is a name or path in bytes. As text, the percent sign, control characters and bytes that
// are not UTF-8 are percent-encoded.
type Name string

// MarshalText is encoding.TextMarshaler's.
func (n Name) MarshalText() ([]byte, error) {
	var b strings.Builder
	for rest := string(n); rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		if r == '%' || r < ' ' || r == 0x7f || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", rest[0])
		} else {
			b.WriteString(rest[:size])
		}
		rest = rest[size:]
	}
	return []byte(b.String()), nil
}

// UnmarshalText is encoding.TextUnmarshaler's.
func (n *Name) UnmarshalText(text []byte) error {
	s, err := url.PathUnescape(string(text))
	if err != nil {
		return fmt.Errorf("name %q: %w", text, err)
	}
	*n = Name(s)
	return nil
}

// Code says what kind of failure an Error is.
type Code string

// Codes of an Error.
const (
	CodeInvalid     Code = "invalid"      // the request itself is wrong
	CodeOutside     Code = "outside"      // the path leads out of the session's directory
	CodeNotFound    Code = "not_found"    // no such file
	CodeExists      Code = "exists"       // there is a file already, or the directory is not empty
	CodeWrongKind   Code = "wrong_kind"   // a directory where a file is needed, or the reverse
	CodeDenied      Code = "denied"       // the permissions or the session's walls forbid it
	CodePrecond     Code = "precondition" // the file does not have the tag it must have
	CodeChanged     Code = "changed"      // the file changed while it was read
	CodeIncomplete  Code = "incomplete"   // the content ended before, or after, its size
	CodeDigest      Code = "digest"       // the content does not have its digest
	CodeNoSpace     Code = "no_space"     // the disk, or the quota, is full
	CodeUnsupported Code = "unsupported"  // an archive has something that cannot be unpacked
	CodeFailed      Code = "failed"       // all else
)

// Error is why a Request failed.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

func errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
