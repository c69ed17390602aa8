package files

import (
	"fmt"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
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

// Bounds of a reply.
const (
	MaxEntries = 1000     // to OpList
	MaxListing = 32 << 10 // bytes, beyond which a reply to OpList has no further entry
	// MaxReply bounds any reply, in bytes: one more entry, whose name has 255 bytes and whose link 4,095.
	MaxReply = MaxListing + 3*(255+4095) + 2<<10
	// MaxChange bounds a reply to OpWatch, which has one path.
	MaxChange = 3*4096 + 1<<10
)

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

// What the program and its clients say of files.
type (
	Entry  = wire.FileInfo
	Change = wire.FileChange
	Name   = wire.FileName
)

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
