package troupe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// UploadOptions say how a file is to be.
type UploadOptions struct {
	Mode     *uint32       // permission bits; nil: those of the file that is replaced, or the session's umask
	Modified time.Time     // zero: now
	Parents  bool          // make missing directories
	New      bool          // refuse to replace a file
	Progress func(n int64) // is told how many bytes were sent; nil: nobody is

	archive bool // the content is a tar archive
}

// Upload writes a file of size bytes, which open returns from an offset on. The file appears when it
// is whole and its SHA-256 is right. After a lost connection the upload goes on where the server has
// got to, on any pod; open is called again.
func (f *Files) Upload(
	ctx context.Context, path string, size int64, open func(offset int64) (io.ReadCloser, error), opt UploadOptions,
) (*FileInfo, error) {
	u := &upload{f: f, path: path, size: size, open: open, opt: opt, sum: sha256.New()}
	err := f.retry(ctx, func() (int64, error) {
		err := u.attempt(ctx)
		return u.reached, err
	})
	if err != nil {
		u.cancel(ctx)
		return nil, err
	}
	return u.info, nil
}

// UploadTree unpacks a tar archive into a directory. The archive must be the same each time that open
// returns it, from an offset on.
func (f *Files) UploadTree(
	ctx context.Context, path string, open func(offset int64) (io.ReadCloser, error), opt UploadOptions,
) error {
	opt.archive = true
	u := &upload{f: f, path: path, size: -1, open: open, opt: opt, sum: sha256.New()}
	err := f.retry(ctx, func() (int64, error) {
		err := u.attempt(ctx)
		return u.reached, err
	})
	if err != nil {
		u.cancel(ctx)
	}
	return err
}

// upload is one file on its way.
type upload struct {
	f    *Files
	path string
	size int64 // -1: unknown
	open func(int64) (io.ReadCloser, error)
	opt  UploadOptions

	at      string // URL of the upload; "": it has not begun
	reached int64  // bytes that have arrived
	ended   bool   // all bytes have arrived
	sum     hash.Hash
	summed  int64 // bytes in sum
	info    *FileInfo
}

// attempt goes on with an upload as far as the connection goes.
func (u *upload) attempt(ctx context.Context) error {
	if u.at != "" {
		if err := u.look(ctx); err != nil {
			return err
		}
	}
	if u.at == "" {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	if !u.ended {
		if err := u.send(ctx); err != nil {
			return err
		}
	}
	return u.finish(ctx)
}

// put returns the request that writes a file as opt says.
func (f *Files) put(ctx context.Context, path string, content io.Reader, opt UploadOptions) (*http.Request, error) {
	query := url.Values{}
	if opt.Mode != nil {
		query.Set("mode", strconv.FormatUint(uint64(*opt.Mode), 8))
	}
	if !opt.Modified.IsZero() {
		query.Set("modified", opt.Modified.UTC().Format(time.RFC3339Nano))
	}
	if opt.Parents {
		query.Set("parents", "")
	}
	req, err := f.request(ctx, http.MethodPut, f.target(path, query), content)
	if err != nil {
		return nil, err
	}
	if opt.archive {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	if opt.New {
		req.Header.Set("If-None-Match", "*")
	}
	return req, nil
}

func (u *upload) begin(ctx context.Context) error {
	req, err := u.f.put(ctx, u.path, http.NoBody, u.opt)
	if err != nil {
		return err
	}
	req.Header.Set("Upload-Complete", "?0")
	if u.size >= 0 {
		req.Header.Set("Upload-Length", strconv.FormatInt(u.size, 10))
	}
	resp, err := u.f.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	at := resp.Header.Get("Location")
	if !strings.HasPrefix(at, "/") {
		return fmt.Errorf("the server began an upload at %q", at)
	}
	prefix, _, _ := strings.Cut(strings.TrimPrefix(u.f.base, u.f.root), "/api/v1/")
	u.at, u.reached = u.f.root+prefix+at, 0
	return nil
}

// look finds out how much has arrived. An upload that has ended is begun again.
func (u *upload) look(ctx context.Context) error {
	req, err := u.f.request(ctx, http.MethodHead, u.at, nil)
	if err != nil {
		return err
	}
	resp, err := u.f.do(req)
	var e *FileError
	if errors.As(err, &e) && (e.StatusCode == http.StatusNotFound || e.StatusCode == http.StatusGone) {
		u.at, u.reached, u.ended = "", 0, false
		return nil
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	u.reached, err = strconv.ParseInt(resp.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || u.reached < 0 {
		return fmt.Errorf("the server's Upload-Offset is %q", resp.Header.Get("Upload-Offset"))
	}
	if u.size >= 0 && u.reached >= u.size {
		u.reached, u.ended = u.size, true // its digest may have arrived, too
	}
	return nil
}

// send sends what has not arrived.
func (u *upload) send(ctx context.Context) error {
	content, err := u.open(u.reached)
	if err != nil {
		return err
	}
	src := &source{u: u, r: content, pos: u.reached}
	req, err := u.f.request(ctx, http.MethodPatch, u.at, io.NopCloser(src))
	if err != nil {
		content.Close()
		return err
	}
	req.Header.Set("Upload-Offset", strconv.FormatInt(u.reached, 10))
	req.Header.Set("Upload-Complete", "?0")
	req.Header.Set("Content-Type", "application/partial-upload")
	// Nothing is sent for an offset that is wrong, because what an earlier connection brought has arrived
	// meanwhile (https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1).
	req.Header.Set("Expect", "100-continue")
	if u.size >= 0 {
		if req.ContentLength = u.size - u.reached; req.ContentLength == 0 {
			req.Body = http.NoBody
		}
	}
	resp, err := u.f.do(req)
	content.Close()
	src.stop()
	if src.err != nil {
		return &contentError{src.err}
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	u.reached, u.ended = src.pos, true
	if u.size >= 0 && src.pos != u.size {
		return &contentError{fmt.Errorf("the content has %d bytes instead of %d: it changed while it was read", src.pos, u.size)}
	}
	return nil
}

// contentError is a failure of what is to be sent. Trying again does not help.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// source reads the content, adds to the sum what was not in it, and tells the progress. net/http may
// read on after a request has failed (http.RoundTripper), so stop ends it before the next begins.
type source struct {
	u *upload
	r io.Reader

	mu   sync.Mutex
	over bool
	pos  int64
	err  error
}

// stop returns when nothing reads any more.
func (s *source) stop() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, io.ErrClosedPipe
	}
	n, err := s.r.Read(p)
	end := s.pos + int64(n)
	if end > s.u.summed {
		s.u.sum.Write(p[n-int(end-s.u.summed) : n])
		s.u.summed = end
	}
	s.pos = end
	if s.u.opt.Progress != nil {
		s.u.opt.Progress(end)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// finish says that all has arrived, and what its digest is.
func (u *upload) finish(ctx context.Context) error {
	req, err := u.f.request(ctx, http.MethodPatch, u.at, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Upload-Offset", strconv.FormatInt(u.reached, 10))
	req.Header.Set("Upload-Complete", "?1")
	if !u.opt.archive {
		req.Header.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(u.sum.Sum(nil))+":")
	}
	resp, err := u.f.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	u.at = ""
	u.info = new(FileInfo)
	return json.NewDecoder(bytes.NewReader(body)).Decode(u.info)
}

// cancel removes what has arrived.
func (u *upload) cancel(ctx context.Context) {
	if u.at == "" {
		return
	}
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	if req, err := u.f.request(ctx, http.MethodDelete, u.at, nil); err == nil {
		if resp, err := u.f.do(req); err == nil {
			resp.Body.Close()
		}
	}
}

// UploadStream writes a file from a source that can be read only once. It cannot be resumed.
func (f *Files) UploadStream(ctx context.Context, path string, r io.Reader, opt UploadOptions) error {
	u := &upload{opt: opt, sum: sha256.New()}
	src := &source{u: u, r: r}
	req, err := f.put(ctx, path, io.NopCloser(src), opt)
	if err != nil {
		return err
	}
	resp, err := f.do(req)
	if err != nil {
		return err // also that of r
	}
	return resp.Body.Close()
}
