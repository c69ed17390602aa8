package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

type fileInput struct {
	Session string `json:"session"`
	Path    string `json:"path"`
}

// place returns where a tool for files works, and a context that bounds it.
func (d *Door) place(ctx context.Context, req *sdk.CallToolRequest, in fileInput) (
	context.Context, context.CancelFunc, place, error,
) {
	ctx, cancel := context.WithTimeout(ctx, fileTime)
	who := callerOf(req.Extra)
	session, err := d.session(ctx, who, in.Session)
	if err == nil && (in.Path == "" || strings.ContainsRune(in.Path, 0)) {
		err = errors.New("path is missing: it is absolute, or relative to the directory in which commands start")
	}
	if err != nil {
		cancel()
		return nil, nil, place{}, explain(err)
	}
	return ctx, cancel, place{who, session, in.Path}, nil
}

type readFileInput struct {
	fileInput
	Offset   int64 `json:"offset"`
	Line     int   `json:"line"`
	Lines    int   `json:"lines"`
	MaxBytes int   `json:"max_bytes"`
}

type fileText struct {
	Path       string `json:"path"`
	Content    string `json:"content"`
	NextOffset int64  `json:"next_offset,omitempty"` // where it goes on
	NextLine   int    `json:"next_line,omitempty"`
	Message    string `json:"message,omitempty"`
}

// readFile returns a part of a text file.
func (d *Door) readFile(ctx context.Context, req *sdk.CallToolRequest, in readFileInput) (*fileText, error) {
	if in.Line > 0 && in.Offset > 0 {
		return nil, errors.New("offset counts bytes and line counts lines: give one of them")
	}
	ctx, cancel, at, err := d.place(ctx, req, in.fileInput)
	if err != nil {
		return nil, err
	}
	defer cancel()
	limit := bounds{MaxBytes: in.MaxBytes}.output()
	skip, lines := max(in.Line, 1)-1, in.Lines // still to be skipped; still to be read, 0: all
	var data []byte
	more := false
	err = d.files.read(ctx, at, in.Offset, func(b []byte) bool {
		for skip > 0 && len(b) > 0 {
			n := bytes.IndexByte(b, '\n') + 1
			if n == 0 {
				return true
			}
			skip, b = skip-1, b[n:]
		}
		data = append(data, b...)
		more = len(data) > limit || lines > 0 && bytes.Count(data, []byte("\n")) > lines
		return !more
	})
	if err != nil {
		return nil, err
	}
	part := data
	if lines > 0 {
		part = firstLines(part, lines)
	}
	part = first(part, limit)
	out := &fileText{Path: in.Path, Content: text(part)}
	if len(part) < len(data) || more {
		if in.Offset > 0 || in.Line == 0 && !bytes.HasSuffix(part, []byte("\n")) {
			out.NextOffset = in.Offset + int64(len(part))
		} else {
			out.NextLine = max(in.Line, 1) + bytes.Count(part, []byte("\n"))
		}
	}
	switch {
	case skip > 0:
		out.Message = fmt.Sprintf("the file has fewer than %d lines", in.Line)
	case !utf8.Valid(part):
		out.Message = "bytes that are not UTF-8 are shown as U+FFFD"
	}
	return out, nil
}

// firstLines returns the first n lines of b.
func firstLines(b []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return b
		}
		end += i + 1
	}
	return b[:end]
}

func (f *fileText) result() *sdk.CallToolResult {
	var notes []string
	switch {
	case f.NextOffset > 0:
		notes = append(notes, fmt.Sprintf("it goes on at offset %d", f.NextOffset))
	case f.NextLine > 0:
		notes = append(notes, fmt.Sprintf("it goes on at line %d", f.NextLine))
	}
	if f.Message != "" {
		notes = append(notes, f.Message)
	}
	content := []sdk.Content{&sdk.TextContent{Text: f.Content}}
	if len(notes) > 0 {
		content = append(content, &sdk.TextContent{Text: "[" + strings.Join(notes, "; ") + "]"})
	}
	return &sdk.CallToolResult{Content: content}
}

type writeFileInput struct {
	fileInput
	Content string `json:"content"`
}

type written struct {
	Path   string `json:"path"`
	Bytes  int    `json:"bytes"`
	Status string `json:"status"`
}

// writeFile replaces a file, or makes one.
func (d *Door) writeFile(ctx context.Context, req *sdk.CallToolRequest, in writeFileInput) (*written, error) {
	ctx, cancel, at, err := d.place(ctx, req, in.fileInput)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if err := d.files.write(ctx, at, []byte(in.Content), ""); err != nil {
		return nil, err
	}
	return &written{in.Path, len(in.Content), "written"}, nil
}

func (w *written) result() *sdk.CallToolResult {
	return textResult(fmt.Sprintf("%s: %s, %d bytes", w.Path, w.Status, w.Bytes))
}

type editFileInput struct {
	fileInput
	Old string `json:"old"`
	New string `json:"new"`
	All bool   `json:"all"`
}

// MaxEdited bounds a file that edit_file changes, in bytes: it is held whole.
const MaxEdited = 1 << 20

// editFile replaces a text in a file that is there exactly once, or all of them.
func (d *Door) editFile(ctx context.Context, req *sdk.CallToolRequest, in editFileInput) (*written, error) {
	switch {
	case in.Old == "":
		return nil, errors.New("old is empty: give the text that is to be replaced, or use write_file")
	case in.Old == in.New:
		return nil, errors.New("old and new are the same: nothing would change")
	}
	ctx, cancel, at, err := d.place(ctx, req, in.fileInput)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if d.edits != nil {
		select {
		case d.edits <- struct{}{}:
			defer func() { <-d.edits }()
		case <-ctx.Done():
			return nil, errors.New("the server is busy with the edits of others: try again")
		}
	}
	var data []byte
	err = d.files.read(ctx, at, 0, func(b []byte) bool {
		data = append(data, b...)
		return len(data) <= MaxEdited
	})
	if err == nil && len(data) > MaxEdited {
		err = fmt.Errorf("%s has more than %d bytes: edit it with a command", in.Path, MaxEdited)
	}
	if err != nil {
		return nil, err
	}
	n := bytes.Count(data, []byte(in.Old))
	switch {
	case n == 0:
		return nil, notFound(data, in)
	case n > 1 && !in.All:
		return nil, fmt.Errorf("old is in %s %d times, at lines %s: give more of the text around the one that is meant, "+
			"or all true to replace all", in.Path, n, linesOf(data, in.Old))
	}
	edited := bytes.ReplaceAll(data, []byte(in.Old), []byte(in.New))
	if err := d.files.write(ctx, at, edited, digestOf(data)); err != nil {
		return nil, err
	}
	return &written{in.Path, len(edited), fmt.Sprintf("%d replaced", n)}, nil
}

// notFound says why a text is not in a file, if it is there with other white space.
func notFound(data []byte, in editFileInput) error {
	firstLine, _, _ := strings.Cut(strings.TrimSpace(in.Old), "\n")
	if firstLine = strings.TrimSpace(firstLine); firstLine != "" && bytes.Contains(data, []byte(firstLine)) {
		return fmt.Errorf("old is not in %s, but its first line is, at lines %s: it must match exactly, with white space",
			in.Path, linesOf(data, firstLine))
	}
	return fmt.Errorf("old is not in %s: it must match exactly, with white space. Read the file again", in.Path)
}

// maxLinesNamed bounds an enumeration of lines.
const maxLinesNamed = 20

// linesOf names the lines in which a text begins.
func linesOf(data []byte, s string) string {
	var lines []string
	line, from := 1, 0
	for {
		i := bytes.Index(data[from:], []byte(s))
		if i < 0 {
			return strings.Join(lines, ", ")
		}
		if len(lines) == maxLinesNamed {
			return strings.Join(lines, ", ") + " and more"
		}
		line += bytes.Count(data[from:from+i], []byte("\n"))
		lines = append(lines, fmt.Sprint(line))
		line += strings.Count(s, "\n")
		from += i + len(s)
	}
}

type listFilesInput struct {
	fileInput
	Depth int `json:"depth"`
}

type directory struct {
	Path    string  `json:"path"`
	Entries []entry `json:"entries"`
	More    bool    `json:"more,omitempty"` // there are more than are shown
}

// listFiles returns what is in a directory.
func (d *Door) listFiles(ctx context.Context, req *sdk.CallToolRequest, in listFilesInput) (*directory, error) {
	if in.Path == "" {
		in.Path = "."
	}
	ctx, cancel, at, err := d.place(ctx, req, in.fileInput)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out := &directory{Path: in.Path, Entries: []entry{}}
	size := 0
	err = d.files.list(ctx, at, max(in.Depth, 1), func(e entry) bool {
		size += cost([]byte(e.Path)) + len(`{"path":"","type":"directory","size":},`) + 12
		if size > defaultBytes-reportBytes {
			out.More = true
			return false
		}
		out.Entries = append(out.Entries, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *directory) result() *sdk.CallToolResult {
	var b strings.Builder
	for _, e := range d.Entries {
		switch e.Type {
		case "directory":
			fmt.Fprintf(&b, "%s/\n", e.Path)
		case "file":
			fmt.Fprintf(&b, "%s  %d bytes\n", e.Path, e.Size)
		default:
			fmt.Fprintf(&b, "%s  (%s)\n", e.Path, e.Type)
		}
	}
	switch {
	case d.More:
		b.WriteString("[there is more: list a directory below, or use find]\n")
	case len(d.Entries) == 0:
		b.WriteString("[empty]\n")
	}
	return textResult(b.String())
}
