package fileserver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
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
	case q.Has("watch"):
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

// listing is a directory in JSON.
type listing struct {
	Entries  []files.Entry `json:"entries"`
	Continue files.Name    `json:"continue,omitempty"` // the query of the next page; absent: this is the last
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
	l := listing{Entries: r.Entries}
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
	req := &files.Request{Op: files.OpStat, Path: c.path, Follow: true, Digest: wantsDigest(c.r)}
	r, err := c.once(req)
	if err != nil {
		return err
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
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil || n <= 0 {
			return nil
		}
		return &span{length: n, suffix: true}
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil || first < 0 {
		return nil
	}
	if to == "" {
		return &span{offset: first}
	}
	last, err := strconv.ParseInt(to, 10, 64)
	if err != nil || last < first {
		return nil
	}
	return &span{offset: first, length: last - first + 1}
}

// read sends a file, or a range of it. If-Range and If-Match keep a client that resumes from
// joining parts of two files.
func (c *call) read() error {
	req := &files.Request{Op: files.OpRead, Path: c.path, Digest: wantsDigest(c.r)}
	part := parseRange(c.r.Header.Get("Range"))
	ifRange := strings.Trim(c.r.Header.Get("If-Range"), `"`)
	if m := strings.Trim(c.r.Header.Get("If-Match"), `"`); m != "" {
		req.Match = m
	}
	if part != nil && (part.suffix || ifRange != "") {
		r, err := c.once(&files.Request{Op: files.OpStat, Path: c.path, Follow: true})
		if err != nil {
			return err
		}
		if ifRange != "" && ifRange != r.Entry.Tag {
			part = nil
		} else if part.suffix {
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
		return c.rangeError(err, part)
	}
	c.describe(r.Entry)
	if match(c.r.Header.Get("If-None-Match"), r.Entry.Tag) {
		c.begin(http.StatusNotModified)
		return nil
	}
	h := c.w.Header()
	switch {
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
	if err := c.send(t, r.Length); err != nil {
		return err
	}
	last, err := t.reply()
	if err != nil {
		return err
	}
	if len(last.SHA256) > 0 {
		h.Set("Repr-Digest", digestHeader(last.SHA256))
	}
	return t.end()
}

// rangeError turns a range outside of the file into 416.
func (c *call) rangeError(err error, part *span) error {
	var e *files.Error
	if part != nil && errors.As(err, &e) && e.Code == files.CodeInvalid {
		return problemf(http.StatusRequestedRangeNotSatisfiable, string(e.Code), "%s", e.Message)
	}
	return err
}

// send copies length bytes of the program's output to the client; -1: all.
func (c *call) send(t *transfer, length int64) error {
	for since := 0; length != 0; {
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
		if since += len(p); since >= 256<<10 {
			c.extend()
			since = 0
		}
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

// watch sends the changes of a directory, a line of JSON for each.
func (c *call) watch() error {
	req := &files.Request{Op: files.OpWatch, Path: c.path, Recursive: c.r.URL.Query().Has("recursive")}
	t, err := c.run(req, nil)
	if err != nil {
		return err
	}
	defer t.close()
	for {
		r, err := t.reply()
		if err != nil {
			return err
		}
		if !c.sent {
			c.w.Header().Set("Content-Type", "application/x-ndjson")
			c.begin(http.StatusOK)
		}
		c.extend()
		if err := writeLine(c.w, r.Change); err != nil {
			return err
		}
		if err := c.ctrl.Flush(); err != nil {
			return err
		}
	}
}
