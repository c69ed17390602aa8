package wire

import (
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// Kinds of a FileInfo.
const (
	FileRegular   = "file"
	FileDirectory = "directory"
	FileSymlink   = "symlink"
	FileOther     = "other" // a device, a socket or a pipe
)

// ResumeTokenHeader is the header of a request for files that has the session's resume token. The token opens a
// session as it does at /ws, also where nothing else tells clients apart.
const ResumeTokenHeader = "Troupe-Resume-Token"

// FileInfo describes a file.
type FileInfo struct {
	Name     FileName  `json:"name"`
	Kind     string    `json:"kind"`
	Size     int64     `json:"size"`
	Mode     uint32    `json:"mode"` // permission bits
	Modified time.Time `json:"modified"`
	Link     FileName  `json:"link,omitempty"` // where a symbolic link points to
	Tag      string    `json:"tag"`            // changes whenever the file does
}

// Kinds of a FileChange.
const (
	FileReady       = "ready"    // the watch has begun: what changes from now on is told
	FileCreated     = "created"  // also a file that was moved here
	FileModified    = "modified" // its content
	FileModeChanged = "mode"     // its permissions or times
	FileRemoved     = "removed"
	FileRenamed     = "renamed"  // it was moved from here; its new name, if it is watched, is created
	FileOverflow    = "overflow" // the kernel dropped changes: list what matters again
)

// FileChange is what happened to a file.
type FileChange struct {
	Kind string   `json:"kind"`
	Path FileName `json:"path,omitempty"` // relative to the watched directory
}

// FileList is a page of a directory's entries, by name.
type FileList struct {
	Entries  []FileInfo `json:"entries"`
	Continue FileName   `json:"continue,omitempty"` // the query of the next page; absent: this is the last
}

// FilesUnpacked says what was made of an archive.
type FilesUnpacked struct {
	Files int `json:"files"` // entries
}

// FileName is a name or path in bytes. As text, the percent sign, control characters and bytes that
// are not UTF-8 are percent-encoded.
type FileName string

// MarshalText is encoding.TextMarshaler's.
func (n FileName) MarshalText() ([]byte, error) {
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
func (n *FileName) UnmarshalText(text []byte) error {
	s, err := url.PathUnescape(string(text))
	if err != nil {
		return fmt.Errorf("name %q: %w", text, err)
	}
	*n = FileName(s)
	return nil
}
