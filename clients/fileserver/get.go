package fileserver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/wire"
)

// get serves a file, or a directory in the form that the client asks for.
func (c *call) get() error {
	q := c.r.URL.Query()
	switch {
	case IsWatch(c.r):
		return c.watch()
	case q.Has("stat"):
		r, err := c.once(&files.Request{Op: files.OpStat, Path: c.path})
		if err != nil {
			return err
		}
		return c.answerJSON(http.StatusOK, r.Entry)
	case c.r.Method == http.MethodHead:
		return c.head()
	case accepts(c.r, "application/x-tar"):
		return c.pack()
	case q.Has("list"), c.path == "", strings.HasSuffix(string(c.path), "/"):
		return c.list()
	}
	err := c.read()
	var e *files.Error
	if errors.As(err, &e) && e.Code == files.CodeWrongKind && !c.sent {
		if listErr := c.list(); listErr == nil || c.sent {
			return listErr
		}
	}
	return err
}

func accepts(r *http.Request, kind string) bool {
	for _, accept := range r.Header.Values("Accept") {
		for _, a := range strings.Split(accept, ",") {
			if name, _, _ := strings.Cut(a, ";"); strings.EqualFold(strings.TrimSpace(name), kind) {
				return true
			}
		}
	}
	return false
}

func (c *call) list() error {
	q := c.r.URL.Query()
	limit := 0
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return problemf(http.StatusBadRequest, "invalid", "limit must be a positive number, got %.20q", s)
		}
		limit = n
	}
	var after files.Name
	if err := after.UnmarshalText([]byte(q.Get("continue"))); err != nil {
		return problemf(http.StatusBadRequest, "invalid", "continue must be that of a listing: %v", err)
	}
	r, err := c.once(&files.Request{Op: files.OpList, Path: c.path, After: after, Limit: limit})
	if err != nil {
		return err
	}
	l := wire.FileList{Entries: r.Entries}
	if l.Entries == nil {
		l.Entries = []files.Entry{}
	}
	if r.More {
		l.Continue = l.Entries[len(l.Entries)-1].Name
	}
	return c.answerJSON(http.StatusOK, l)
}

// describe sets the headers of a file.
func (c *call) describe(e *files.Entry) {
	h := c.w.Header()
	h.Set("ETag", `"`+e.Tag+`"`)
	h.Set("Last-Modified", e.Modified.Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	// A page from a session must not run as one of this server.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(string(e.Name)))
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
}

func (c *call) head() error {
	tag, err := ifMatch(c.r)
	if err != nil {
		return err
	}
	r, err := c.once(&files.Request{Op: files.OpStat, Path: c.path, Follow: true, Digest: wantsDigest(c.r)})
	if err != nil {
		return err
	}
	if tag != "" && tag != "*" && tag != r.Entry.Tag {
		return problemf(http.StatusPreconditionFailed, string(files.CodePrecond), "the tag is %s", r.Entry.Tag)
	}
	if r.Entry.Kind == wire.FileDirectory {
		c.w.Header().Set("Content-Type", "application/json")
		c.begin(http.StatusOK)
		return nil
	}
	c.describe(r.Entry)
	if match(c.r.Header.Get("If-None-Match"), r.Entry.Tag) {
		c.begin(http.StatusNotModified)
		return nil
	}
	c.w.Header().Set("Content-Length", strconv.FormatInt(r.Entry.Size, 10))
	if len(r.SHA256) > 0 {
		c.w.Header().Set("Repr-Digest", digestHeader(r.SHA256))
	}
	c.begin(http.StatusOK)
	return nil
}

// ifMatch returns the tag that If-Match demands, or "*" for any, or "" for none. The program compares
// with one at the moment at which it acts, so a list is refused.
func ifMatch(r *http.Request) (string, error) {
	header := r.Header.Get("If-Match")
	if header == "" || header == "*" {
		return header, nil
	}
	tag, ok := strings.CutPrefix(header, `"`)
	tag, closed := strings.CutSuffix(tag, `"`)
	if !ok || !closed || strings.Contains(tag, `"`) || len(r.Header.Values("If-Match")) > 1 {
		return "", problemf(http.StatusBadRequest, "invalid",
			`If-Match must be one ETag, such as "1a-2b", or *, got %.100q`, header)
	}
	return tag, nil
}

// match reports whether a header of entity tags names tag.
func match(header, tag string) bool {
	for _, t := range strings.Split(header, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t == "*" || t == `"`+tag+`"` {
			return true
		}
	}
	return false
}

// wantsDigest and digestHeader are those of RFC 9530.
func wantsDigest(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Want-Repr-Digest")), "sha-256")
}

func digestHeader(sum []byte) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
}

// span is the part of a file that a Range header asks for.
type span struct {
	offset, length int64 // length 0: to the end
	suffix         bool  // the last length bytes
}

// parseRange understands one range. A header that it does not is ignored, as RFC 9110 says.
func parseRange(header string) *span {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return nil
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return nil
	}
	if from == "" {
		n, ok := position(to)
		if !ok || n == 0 {
			return nil
		}
		return &span{length: n, suffix: true}
	}
	first, ok := position(from)
	if !ok {
		return nil
	}
	if to == "" {
		return &span{offset: first}
	}
	last, ok := position(to)
	if !ok || last < first {
		return nil
	}
	return &span{offset: first, length: min(last-first, math.MaxInt64-1) + 1}
}

// position reads a number of a Range. One that no file reaches means the same as the greatest
// (https://www.rfc-editor.org/rfc/rfc9110#section-14.1.1-7).
func position(digits string) (int64, bool) {
	n, err := strconv.ParseUint(digits, 10, 63) // beyond that, n is the greatest
	return int64(n), err == nil || errors.Is(err, strconv.ErrRange)
}

// read sends a file, or a range of it. If-Range and If-Match keep a client that resumes from
// joining parts of two files.
func (c *call) read() error {
	tag, err := ifMatch(c.r)
	if err != nil {
		return err
	}
	req := &files.Request{Op: files.OpRead, Path: c.path, Digest: wantsDigest(c.r), Match: tag}
	part := parseRange(c.r.Header.Get("Range"))
	ifRange := strings.Trim(c.r.Header.Get("If-Range"), `"`)
	if part != nil && (part.suffix || ifRange != "") {
		r, err := c.once(&files.Request{Op: files.OpStat, Path: c.path, Follow: true})
		if err != nil {
			return err
		}
		switch {
		case ifRange != "" && ifRange != r.Entry.Tag, part.suffix && r.Entry.Size == 0:
			part = nil // all of the file
		case part.suffix:
			part.offset = max(0, r.Entry.Size-part.length)
			req.Match = r.Entry.Tag
		}
	}
	if part != nil {
		req.Offset, req.Length, req.Digest = part.offset, part.length, false
	}
	t, err := c.run(req, nil)
	if err != nil {
		return err
	}
	defer t.close()
	r, err := t.reply()
	if err != nil {
		_ = t.end()
		return err
	}
	c.describe(r.Entry)
	if match(c.r.Header.Get("If-None-Match"), r.Entry.Tag) {
		c.begin(http.StatusNotModified)
		return nil
	}
	h := c.w.Header()
	switch {
	case part != nil && r.Length == 0:
		return outOfRange(r.Entry)
	case part != nil:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", req.Offset, req.Offset+r.Length-1, r.Entry.Size))
		h.Set("Content-Length", strconv.FormatInt(r.Length, 10))
		c.begin(http.StatusPartialContent)
	case req.Digest:
		h.Set("Trailer", "Repr-Digest") // needs chunks instead of a length
		c.begin(http.StatusOK)
	default:
		h.Set("Content-Length", strconv.FormatInt(r.Length, 10))
		c.begin(http.StatusOK)
	}
	last, err := c.sendWhole(t, r.Length)
	if err != nil {
		return err
	}
	if len(last.SHA256) > 0 {
		h.Set("Repr-Digest", digestHeader(last.SHA256))
	}
	return t.end()
}

// sendWhole sends the content of a file. The last byte waits until the program has said that the file did
// not change meanwhile: a client that has counted all bytes asks for no more.
func (c *call) sendWhole(t *transfer, length int64) (*files.Reply, error) {
	if length == 0 {
		return t.reply()
	}
	if err := c.send(t, length-1); err != nil {
		return nil, err
	}
	p, err := t.piece()
	if err != nil {
		return nil, err
	}
	last := [1]byte{p[0]}
	t.rest = p[1:]
	r, err := t.reply()
	if err != nil {
		return nil, err
	}
	_, err = c.w.Write(last[:])
	return r, err
}

// outOfRange refuses a range that begins behind the end of a file, and says where that is.
func outOfRange(e *files.Entry) error {
	p := problemf(http.StatusRequestedRangeNotSatisfiable, string(files.CodeInvalid),
		"the file has %d bytes: the range begins behind them", e.Size)
	p.contentRange = fmt.Sprintf("bytes */%d", e.Size)
	return p
}

// send copies length bytes of the program's output to the client; -1: all.
func (c *call) send(t *transfer, length int64) error {
	for length != 0 {
		p, err := t.piece()
		if errors.Is(err, io.EOF) && length < 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if length > 0 && int64(len(p)) > length {
			p, t.rest = p[:length], p[length:]
		}
		c.extend()
		if _, err := c.w.Write(p); err != nil {
			return err
		}
		if length > 0 {
			length -= int64(len(p))
		}
	}
	return nil
}

func (c *call) pack() error {
	t, err := c.run(&files.Request{Op: files.OpPack, Path: c.path}, nil)
	if err != nil {
		return err
	}
	defer t.close()
	if _, err := t.reply(); err != nil {
		_ = t.end()
		return err
	}
	c.w.Header().Set("Content-Type", "application/x-tar")
	c.begin(http.StatusOK)
	if err := c.send(t, -1); err != nil {
		return err
	}
	return t.end()
}

// IsWatch reports whether a request is answered for as long as its client listens.
func IsWatch(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Has("watch")
}

// watch sends the changes of a directory, a line of JSON for each.
func (c *call) watch() error {
	req := &files.Request{Op: files.OpWatch, Path: c.path, Recursive: c.r.URL.Query().Has("recursive")}
	t, err := c.run(req, nil)
	if err != nil {
		return err
	}
	defer t.close()
	for {
		r, err := t.line()
		if err != nil {
			return err
		}
		c.extend()
		if !c.sent {
			c.w.Header().Set("Content-Type", "application/x-ndjson")
			c.begin(http.StatusOK)
		}
		if r.Alive { // a write shows whether the client is, too
			err = writeLine(c.w, struct{}{})
		} else {
			err = writeLine(c.w, r.Change)
		}
		if err != nil {
			return err
		}
		if err := c.ctrl.Flush(); err != nil {
			return err
		}
	}
}
