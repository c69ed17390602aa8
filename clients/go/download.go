package troupe

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
)

// Download copies a file to w, each byte once, and checks its SHA-256. After a lost connection it goes
// on where w has got to, on any pod. It fails if the file changes meanwhile: then w has part of it.
// progress is told how many bytes w has; nil: nobody is.
func (f *Files) Download(ctx context.Context, path string, w io.Writer, progress func(n int64)) error {
	d := &download{f: f, path: path, w: w, progress: progress, sum: sha256.New()}
	return f.retry(ctx, func() (int64, error) {
		err := d.attempt(ctx)
		return d.reached, err
	})
}

// copyBuffer is how much of a file is written at a time: io.Copy's 32 KiB would take four times the
// system calls.
const copyBuffer = 128 << 10

// DownloadTree returns a directory as a tar archive, which the caller closes. An archive that ends
// with another error than io.EOF is not whole.
func (f *Files) DownloadTree(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := f.request(ctx, http.MethodGet, f.target(path, nil), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/x-tar")
	resp, err := f.do(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// download is one file on its way.
type download struct {
	f        *Files
	path     string
	w        io.Writer
	progress func(int64)

	reached int64 // bytes that w has
	tag     string
	sum     hash.Hash
	want    string // Repr-Digest, once the server has said it
	whole   bool   // w has all bytes
	broken  bool   // w has failed
}

func (d *download) attempt(ctx context.Context) error {
	if !d.whole {
		if err := d.receive(ctx); err != nil {
			return err
		}
	}
	if d.want == "" { // a range has no digest of the file
		if err := d.askDigest(ctx); err != nil {
			return err
		}
	}
	if got := "sha-256=:" + base64.StdEncoding.EncodeToString(d.sum.Sum(nil)) + ":"; !strings.EqualFold(got, d.want) {
		return &contentError{fmt.Errorf("the SHA-256 of what has arrived is %s, that of the file %s", got, d.want)}
	}
	return nil
}

func (d *download) receive(ctx context.Context) error {
	req, err := d.f.request(ctx, http.MethodGet, d.f.target(d.path, nil), nil)
	if err != nil {
		return err
	}
	if d.reached > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.reached))
		req.Header.Set("If-Match", d.tag)
	} else {
		req.Header.Set("Want-Repr-Digest", "sha-256=10")
	}
	resp, err := d.f.do(req)
	var e *FileError
	if errors.As(err, &e) && d.reached > 0 && e.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		d.whole = true // the connection was lost behind the last byte
		return nil
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	d.tag = resp.Header.Get("ETag")
	if d.tag == "" {
		return &contentError{fmt.Errorf("%s is not a file", d.path)}
	}
	if d.reached > 0 && resp.StatusCode != http.StatusPartialContent {
		return &contentError{errors.New("the server does not resume the download")}
	}
	if _, err := io.CopyBuffer(d, resp.Body, make([]byte, copyBuffer)); err != nil {
		if d.broken {
			return &contentError{err}
		}
		return err
	}
	d.want, d.whole = resp.Trailer.Get("Repr-Digest"), true
	return nil
}

// Write implements io.Writer.
func (d *download) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.sum.Write(p[:n])
	d.reached += int64(n)
	d.broken = err != nil
	if d.progress != nil {
		d.progress(d.reached)
	}
	return n, err
}

func (d *download) askDigest(ctx context.Context) error {
	req, err := d.f.request(ctx, http.MethodHead, d.f.target(d.path, nil), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Want-Repr-Digest", "sha-256=10")
	resp, err := d.f.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if tag := resp.Header.Get("ETag"); tag != d.tag {
		return &contentError{errors.New("the file changed while it was read")}
	}
	if d.want = resp.Header.Get("Repr-Digest"); d.want == "" {
		return &contentError{errors.New("the server does not say the digest of the file")}
	}
	return nil
}
