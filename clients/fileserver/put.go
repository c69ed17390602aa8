package fileserver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/wire"
)

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// writeRequest returns what a PUT asks for.
func (c *call) writeRequest() (*files.Request, error) {
	q := c.r.URL.Query()
	req := &files.Request{Op: files.OpWrite, Path: c.path, Parents: q.Has("parents")}
	if kind, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type")); kind == "application/x-tar" {
		req.Op = files.OpUnpack
		return req, nil
	}
	if s := q.Get("mode"); s != "" {
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > 0o777 {
			return nil, problemf(http.StatusBadRequest, "invalid", "mode must be octal permissions such as 0644, got %.20q", s)
		}
		mode := uint32(n)
		req.Mode = &mode
	}
	if s := q.Get("modified"); s != "" {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "invalid", "modified must be a time such as 2026-01-02T15:04:05Z, got %.40q", s)
		}
		req.Modified = &at
	}
	switch none := c.r.Header.Get("If-None-Match"); none {
	case "":
	case "*":
		req.New = true
	default:
		return nil, problemf(http.StatusBadRequest, "invalid", "If-None-Match of a PUT must be *")
	}
	req.Match = strings.Trim(c.r.Header.Get("If-Match"), `"`)
	if header := c.r.Header.Get("Repr-Digest"); header != "" {
		sum, err := parseDigest(header)
		if err != nil {
			return nil, err
		}
		req.SHA256 = sum
	}
	return req, c.sizeOf(req)
}

// sizeOf sets the size of the content, if the client says what it is.
func (c *call) sizeOf(req *files.Request) error {
	if s := c.r.Header.Get("Upload-Length"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return problemf(http.StatusBadRequest, "invalid", "Upload-Length must be a number of bytes, got %.20q", s)
		}
		req.Size = &n
	} else if n := c.r.ContentLength; n >= 0 && c.r.Header.Get("Upload-Complete") != "?0" {
		req.Size = &n
	}
	return nil
}

// parseDigest returns the SHA-256 of a Repr-Digest header (RFC 9530).
func parseDigest(header string) ([]byte, error) {
	for _, d := range strings.Split(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), "=")
		if !strings.EqualFold(name, "sha-256") {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(strings.Trim(value, ":"))
		if err != nil || len(sum) != 32 {
			break
		}
		return sum, nil
	}
	return nil, problemf(http.StatusBadRequest, "invalid", "Repr-Digest must be sha-256=:BASE64:, got %.100q", header)
}

// put writes a file, or unpacks an archive. With Upload-Complete it can be resumed.
func (c *call) put() error {
	req, err := c.writeRequest()
	if err != nil {
		return err
	}
	id := "upload-" + strings.ToLower(rand.Text())
	resumable := c.r.Header.Get("Upload-Complete") != ""
	// The digest of an upload that began without one may come with its end.
	req.Trailer = req.Op == files.OpWrite && resumable && req.Size != nil && len(req.SHA256) == 0
	t, err := c.run(req, func(p *wire.ExecuteParams) {
		p.ExecutionID, p.Stdin, p.Retain = id, true, wire.RetainFirst
	})
	if err != nil {
		return err
	}
	if resumable {
		c.w.Header().Set("Location", Prefix+url.PathEscape(c.r.PathValue("session"))+"/uploads/"+id)
		c.w.Header().Set("Upload-Draft-Interop-Version", interopVersion)
		if c.r.ContentLength != 0 {
			c.w.WriteHeader(statusUploadResumption)
		}
	}
	return c.upload(t, 0, resumable)
}

const (
	// statusUploadResumption tells a client of the upload's URL before its content has arrived
	// (https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/).
	statusUploadResumption = 104
	interopVersion         = "8"
)

// upload passes the request's body to the program from offset on.
func (c *call) upload(t *transfer, offset int64, resumable bool) error {
	n, err := c.feed(t)
	offset += n
	if c.ctx.Err() != nil { // the client's connection was lost
		err = &bodyError{c.ctx.Err()}
	}
	var in *bodyError
	switch {
	case errors.As(err, &in) && resumable:
		t.detach() // the client comes back, or the program ends for want of content
		return in
	case errors.As(err, &in):
		t.close()
		return in
	case err == nil && c.r.Header.Get("Upload-Complete") == "?0":
		t.detach()
		c.w.Header().Set("Upload-Offset", strconv.FormatInt(offset, 10))
		c.w.Header().Set("Upload-Complete", "?0")
		status := http.StatusNoContent
		if c.r.Method == http.MethodPut {
			status = http.StatusCreated
		}
		c.begin(status)
		return nil
	case err == nil && c.r.Method == http.MethodPatch && c.r.Header.Get("Repr-Digest") != "":
		var sum []byte
		if sum, err = parseDigest(c.r.Header.Get("Repr-Digest")); err != nil {
			t.detach()
			return err
		}
		if _, err = t.exec.Input(c.ctx, sum); err == nil {
			err = t.exec.CloseInput(c.ctx)
		}
	case err == nil:
		err = t.exec.CloseInput(c.ctx)
	}
	defer t.close()
	// The program says why it takes no more input.
	if err != nil && !errors.Is(err, io.ErrClosedPipe) && wire.CodeOf(err) == 0 {
		return err
	}
	r, err := t.reply()
	endErr := t.end()
	if err != nil {
		return err
	}
	if endErr != nil {
		return endErr
	}
	return c.written(r)
}

func (c *call) written(r *files.Reply) error {
	c.w.Header().Set("Upload-Complete", "?1")
	if r.Entry == nil { // an archive
		return c.answerJSON(http.StatusOK, map[string]int{"files": r.Files})
	}
	c.w.Header().Set("ETag", `"`+r.Entry.Tag+`"`)
	status := http.StatusOK
	if r.Created {
		status = http.StatusCreated
	}
	return c.answerJSON(status, r.Entry)
}

// bodyError is a request whose body did not arrive.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "the content of the request ended early: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// feed copies the body to the program's standard input.
func (c *call) feed(t *transfer) (n int64, err error) {
	buf := make([]byte, 64<<10)
	for since := 0; ; {
		// Full pieces, whatever the size of the packets.
		read, err := io.ReadFull(c.r.Body, buf)
		if since += read; since >= 256<<10 {
			c.extend()
			since = 0
		}
		if read > 0 {
			wrote, err := t.exec.Input(c.ctx, buf[:read])
			n += int64(wrote)
			if err != nil {
				return n, err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && c.whole():
			return n, nil
		case err != nil:
			return n, &bodyError{err}
		}
	}
}

// whole reports whether the body has ended as it should: io.ReadFull says ErrUnexpectedEOF of a last
// piece that is not full, and net/http of a body that is shorter than its length.
func (c *call) whole() bool {
	var b [1]byte
	_, err := c.r.Body.Read(b[:])
	return errors.Is(err, io.EOF)
}

// resume connects to an upload that has begun.
func (c *call) resume() (*transfer, *wire.ExecutionStatus, error) {
	id := c.r.PathValue("upload")
	none := problemf(http.StatusNotFound, "no_upload", "no such upload, or it has ended: begin it again")
	if !strings.HasPrefix(id, "upload-") {
		return nil, nil, none
	}
	client, done, err := c.attach(map[string]int64{id: 0})
	if err != nil {
		return nil, nil, err
	}
	e := client.Executions()[id]
	status, err := client.Status(c.ctx)
	if err != nil {
		done()
		return nil, nil, err
	}
	st, found := status.Executions[id]
	if !found || e == nil {
		done()
		return nil, nil, none
	}
	return &transfer{c: c, exec: e, detach: done}, &st, nil
}

func (c *call) uploadState() error {
	t, st, err := c.resume()
	if err != nil {
		return err
	}
	defer t.detach()
	c.w.Header().Set("Upload-Draft-Interop-Version", interopVersion)
	c.w.Header().Set("Upload-Offset", strconv.FormatInt(st.InputOffset, 10))
	complete := "?0"
	switch {
	case st.Completed == nil:
	case st.Completed.ExitCode == 0:
		complete = "?1"
	default:
		return problemf(http.StatusGone, "", "the upload has failed: begin it again")
	}
	c.w.Header().Set("Upload-Complete", complete)
	c.begin(http.StatusNoContent)
	return nil
}

func (c *call) uploadMore() error {
	offset, err := strconv.ParseInt(c.r.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || offset < 0 {
		return problemf(http.StatusBadRequest, "invalid", "Upload-Offset must be the number of bytes that have arrived")
	}
	t, st, err := c.resume()
	if err != nil {
		return err
	}
	switch {
	case st.Completed != nil && st.Completed.ExitCode != 0:
		defer t.detach()
		if _, err := t.reply(); err != nil {
			return err
		}
		return problemf(http.StatusGone, "", "the upload has failed: begin it again")
	case st.InputOffset == offset+sha256.Size && c.r.Header.Get("Repr-Digest") != "":
		c.r.Header.Del("Repr-Digest") // it has arrived
	case st.InputOffset != offset:
		t.detach()
		c.w.Header().Set("Upload-Offset", strconv.FormatInt(st.InputOffset, 10))
		return problemf(http.StatusConflict, "offset", "%d bytes have arrived, not %d: go on there", st.InputOffset, offset)
	}
	return c.upload(t, offset, true)
}

func (c *call) uploadCancel() error {
	t, _, err := c.resume()
	if err != nil {
		return err
	}
	t.close()
	c.begin(http.StatusNoContent)
	return nil
}

func (c *call) post() error {
	q := c.r.URL.Query()
	req := &files.Request{Path: c.path, Parents: q.Has("parents"), New: c.r.Header.Get("If-None-Match") == "*"}
	switch {
	case q.Has("mkdir"):
		req.Op = files.OpMkdir
	case q.Has("move"):
		req.Op, req.Target = files.OpMove, files.Name(q.Get("move"))
	default:
		return problemf(http.StatusBadRequest, "invalid", "say what to do: ?mkdir, or ?move=TARGET; PUT writes a file")
	}
	r, err := c.once(req)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if r.Created {
		status = http.StatusCreated
	}
	return c.answerJSON(status, r.Entry)
}

func (c *call) remove() error {
	req := &files.Request{
		Op: files.OpRemove, Path: c.path, Recursive: c.r.URL.Query().Has("recursive"),
		Match: strings.Trim(c.r.Header.Get("If-Match"), `"`),
	}
	if _, err := c.once(req); err != nil {
		return err
	}
	c.begin(http.StatusNoContent)
	return nil
}
