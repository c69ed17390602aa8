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
	"os"
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
	// What asks for something else than a file with this content.
	for _, name := range []string{"Content-Range", "Content-Encoding"} {
		if c.r.Header.Get(name) != "" {
			return nil, problemf(http.StatusBadRequest, "invalid", "a PUT takes the whole file as it is: no %s", name)
		}
	}
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
			return nil, problemf(http.StatusBadRequest, "invalid",
				"modified must be a time such as 2026-01-02T15:04:05Z, got %.40q", s)
		}
		req.Modified = &at
	}
	var err error
	if req.New, err = isNew(c.r); err != nil {
		return nil, err
	}
	if req.Match, err = ifMatch(c.r); err != nil {
		return nil, err
	}
	if header := c.r.Header.Get("Repr-Digest"); header != "" {
		sum, err := parseDigest(header)
		if err != nil {
			return nil, err
		}
		req.SHA256 = sum
	}
	return req, c.sizeOf(req)
}

// isNew reports whether nothing may be replaced.
func isNew(r *http.Request) (bool, error) {
	switch r.Header.Get("If-None-Match") {
	case "":
		return false, nil
	case "*":
		return true, nil
	}
	return false, problemf(http.StatusBadRequest, "invalid", "If-None-Match must be * where something is written")
}

// replaces is an error of a request that isNew.
func replaces(err error) error {
	var e *files.Error
	if errors.As(err, &e) && e.Code == files.CodeExists {
		return problemf(http.StatusPreconditionFailed, string(e.Code), "%s", e.Message)
	}
	return err
}

// complete reports whether the content of an upload ends with that of this request, and whether the
// client speaks of it at all.
func complete(r *http.Request) (ends, resumable bool, err error) {
	switch header := r.Header.Get("Upload-Complete"); header {
	case "":
		return true, false, nil
	case "?0":
		return false, true, nil
	case "?1":
		return true, true, nil
	default:
		return false, false, problemf(http.StatusBadRequest, "invalid", "Upload-Complete must be ?0 or ?1, got %.20q", header)
	}
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
	ends, resumable, err := complete(c.r)
	if err != nil {
		return err
	}
	id := newID("upload-")
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
	err = c.upload(&upload{transfer: t, ends: ends, resumable: resumable})
	if req.New {
		err = replaces(err)
	}
	return err
}

const (
	// statusUploadResumption tells a client of the upload's URL before its content has arrived
	// (https://datatracker.ietf.org/doc/draft-ietf-httpbis-resumable-upload/).
	statusUploadResumption = 104
	interopVersion         = "8"
)

// newID returns an id for an execution.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// upload is the part of one that a request brings.
type upload struct {
	*transfer
	ends, resumable bool   // as complete has it
	sum             []byte // that follows the content
}

// upload passes the request's body to the program.
func (c *call) upload(u *upload) error {
	err := c.feed(u.transfer)
	var in *bodyError
	lost := u.link.over.Err() != nil
	if !errors.As(err, &in) && !lost && c.ctx.Err() != nil { // the client's connection was lost
		in = &bodyError{c.ctx.Err()}
		err = in
	}
	switch {
	case u.resumable && err != nil && (in != nil || lost || wire.CodeOf(err) == wire.CodeSessionLimit):
		u.detach() // the client comes back, or the program ends for want of content
		return err
	case err == nil && !u.ends:
		u.detach()
		c.w.Header().Set("Upload-Offset", strconv.FormatInt(u.in, 10))
		c.w.Header().Set("Upload-Complete", "?0")
		status := http.StatusNoContent
		if c.r.Method == http.MethodPut {
			status = http.StatusCreated
		}
		c.begin(status)
		return nil
	case err == nil:
		last := &input{data: u.sum, offset: u.in, eof: true}
		u.send(last)
		err = u.settle(last)
	}
	defer u.close()
	// The program says why it takes no more input.
	if code := wire.CodeOf(err); err != nil && code != wire.CodeInputUnavailable && code != wire.CodeNoProcess {
		return err
	}
	return c.finish(u.transfer)
}

// finish waits for the program to say what it has made of the content.
func (c *call) finish(t *transfer) error {
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
		return c.answerJSON(http.StatusOK, wire.FilesUnpacked{Files: r.Files})
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

func (e *bodyError) Error() string {
	if errors.Is(e.err, os.ErrDeadlineExceeded) {
		return "the content of the request stopped arriving"
	}
	return "the content of the request ended early: " + e.err.Error()
}

func (e *bodyError) Unwrap() error { return e.err }

// resume connects to an upload that has begun.
func (c *call) resume() (*transfer, *wire.ExecutionStatus, error) {
	id := c.r.PathValue("upload")
	none := problemf(http.StatusNotFound, "no_upload", "no such upload, or it has ended: begin it again")
	if !strings.HasPrefix(id, "upload-") {
		return nil, nil, none
	}
	l, resumed, err := c.h.attach(c.r, map[string]int64{id: 0})
	if err != nil {
		return nil, nil, err
	}
	st, found := resumed.Executions[id]
	if !found {
		l.close()
		return nil, nil, none
	}
	t := c.newTransfer(l, id, files.OpWrite)
	t.in = st.InputOffset
	return t, &st, nil
}

func (c *call) uploadState() error {
	t, st, err := c.resume()
	if err != nil {
		return err
	}
	defer t.detach()
	complete, have := "?0", t.in
	switch {
	case st.Completed == nil:
	case st.Completed.ExitCode == 0:
		complete = "?1"
		if r, err := t.reply(); err == nil && r.Entry != nil {
			have = r.Entry.Size // without the digest that followed
		}
	default:
		return errFailedUpload()
	}
	c.w.Header().Set("Upload-Draft-Interop-Version", interopVersion)
	c.w.Header().Set("Upload-Offset", strconv.FormatInt(have, 10))
	c.w.Header().Set("Upload-Complete", complete)
	c.begin(http.StatusNoContent)
	return nil
}

func errFailedUpload() error {
	return problemf(http.StatusGone, "no_upload", "the upload has failed: begin it again")
}

func (c *call) uploadMore() error {
	offset, err := strconv.ParseInt(c.r.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || offset < 0 {
		return problemf(http.StatusBadRequest, "invalid", "Upload-Offset must be the number of bytes that have arrived")
	}
	u := &upload{resumable: true}
	if u.ends, _, err = complete(c.r); err != nil {
		return err
	}
	if header := c.r.Header.Get("Repr-Digest"); header != "" && u.ends {
		if u.sum, err = parseDigest(header); err != nil {
			return err
		}
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
		return errFailedUpload()
	case t.in == offset+sha256.Size && len(u.sum) > 0:
		u.sum = nil // it has arrived
	case t.in != offset:
		t.detach()
		c.w.Header().Set("Upload-Offset", strconv.FormatInt(t.in, 10))
		return problemf(http.StatusConflict, "offset", "%d bytes have arrived, not %d: go on there", t.in, offset)
	}
	u.transfer = t
	return c.upload(u)
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
	req := &files.Request{Path: c.path, Parents: q.Has("parents")}
	var err error
	if req.New, err = isNew(c.r); err != nil {
		return err
	}
	switch {
	case q.Has("mkdir"):
		req.Op = files.OpMkdir
	case q.Has("move"):
		req.Op, req.Target = files.OpMove, files.Name(q.Get("move"))
	default:
		return problemf(http.StatusBadRequest, "invalid", "say what to do: ?mkdir, or ?move=TARGET; PUT writes a file")
	}
	r, err := c.once(req)
	if req.New {
		err = replaces(err)
	}
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
	tag, err := ifMatch(c.r)
	if err != nil {
		return err
	}
	req := &files.Request{
		Op: files.OpRemove, Path: c.path, Recursive: c.r.URL.Query().Has("recursive"), Match: tag,
	}
	if _, err := c.once(req); err != nil {
		return err
	}
	c.begin(http.StatusNoContent)
	return nil
}
