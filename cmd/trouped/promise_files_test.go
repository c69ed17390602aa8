package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// quick are options of a client that comes back at once.
func quick() troupe.Options {
	return troupe.Options{Backoff: troupe.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond}}
}

// room opens a session and returns its files, through the server at url.
func room(t *testing.T, s *instance, url string, opt troupe.Options) (*troupe.Client, *troupe.Files) {
	t.Helper()
	c, err := troupe.Dial(t.Context(), s.ws, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f, err := troupe.NewFiles(url, c.ID(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return c, f
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func from(data []byte) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[offset:])), nil }
}

// TestFilesSurviveCuts: a file goes up and down over a network that breaks, to another pod each time.
// What has arrived is not sent again.
func TestFilesSurviveCuts(t *testing.T) {
	f := launchFleet(t)
	data := randomBytes(24<<20 + 5)
	upwards := newProxyTo(t, f.roundRobin(), 0, 3<<20)
	upwards.upwards.Store(true)
	_, files := room(t, f.pods[0], upwards.ws(), quick())
	upwards.left.Store(6)
	info, err := files.Upload(t.Context(), "in/data", int64(len(data)), from(data), troupe.UploadOptions{Parents: true})
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(len(data)) || upwards.cuts.Load() < 3 {
		t.Errorf("the file has %d bytes of %d after %d cuts", info.Size, len(data), upwards.cuts.Load())
	}
	// In the buffers between there are some hundred KiB at each cut.
	if sent, most := upwards.carried.Load(), int64(len(data))+upwards.cuts.Load()<<20+1<<20; sent > most {
		t.Errorf("%d bytes were sent for a file of %d", sent, len(data))
	}

	downwards := newProxyTo(t, f.roundRobin(), 6, 3<<20)
	again, err := troupe.NewFiles(downwards.ws(), files.SessionID(), quick())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	var got bytes.Buffer
	if err := again.Download(t.Context(), "in/data", &got, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the file came back with other content")
	}
	if cuts := downwards.cuts.Load(); cuts < 3 {
		t.Errorf("%d cuts", cuts)
	}
	if sent, most := downwards.carried.Load(), int64(len(data))+downwards.cuts.Load()*(6<<20); sent > most {
		t.Errorf("%d bytes were sent for a file of %d", sent, len(data))
	}
}

// TestFilesEndAtTheWalls: paths, links and other subjects' sessions.
func TestFilesEndAtTheWalls(t *testing.T) {
	s := launchFor(t, []string{"alice", "bob"})
	opt := quick()
	opt.Token = tokenOf("alice")
	c, files := room(t, s, s.ws, opt)
	sh(t, c, "ln -s /etc etc; ln -s /proc/self/root root; echo mine >own; mkdir d; ln -s ../own d/link")
	for _, path := range []string{"../x", "/etc/passwd", "etc/passwd", "root/etc/passwd", "d/../../x"} {
		var refused *troupe.FileError
		err := files.Download(t.Context(), path, io.Discard, nil)
		if !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
			t.Errorf("reading %s: %v", path, err)
		}
		_, err = files.Upload(t.Context(), path, 1, from([]byte("x")), troupe.UploadOptions{Parents: true})
		if !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
			t.Errorf("writing %s: %v", path, err)
		}
	}
	var got bytes.Buffer
	if err := files.Download(t.Context(), "d/link", &got, nil); err != nil || got.String() != "mine\n" {
		t.Errorf("a link within the session: %q, %v", got.String(), err)
	}
	opt.Token = tokenOf("bob")
	others, err := troupe.NewFiles(s.ws, c.ID(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(others.Close)
	var refused *troupe.FileError
	if _, err := others.List(t.Context(), "."); !errors.As(err, &refused) || refused.StatusCode != http.StatusNotFound {
		t.Errorf("the files of another subject: %v", err)
	}
	opt.Token = "wrong"
	others, err = troupe.NewFiles(s.ws, c.ID(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(others.Close)
	if _, err := others.List(
		t.Context(),
		".",
	); !errors.As(err, &refused) ||
		refused.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %v", err)
	}
}

// sh runs a shell command that must succeed.
func sh(t *testing.T, c *troupe.Client, command string) string {
	t.Helper()
	var out, errs bytes.Buffer
	done, err := c.Run(t.Context(), wire.ExecuteParams{Command: command}, &out, &errs)
	if err != nil || done.ExitCode != 0 {
		t.Fatalf("%s: %v, %+v\n%s", command, err, done, errs.String())
	}
	return out.String()
}

// TestFilesThatAreCancelledLeaveNothing: an upload whose client goes, and one that is cancelled.
func TestFilesThatAreCancelledLeaveNothing(t *testing.T) {
	s := launch(t)
	c, files := room(t, s, s.ws, quick())
	sh(t, c, "echo old >f")
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{}, 1)
	body, feed := io.Pipe()
	go func() {
		for range 100 {
			if _, err := feed.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
		begun <- struct{}{}
	}()
	ended := make(chan error, 1)
	go func() {
		_, err := files.Upload(
			ctx,
			"f",
			1<<30,
			func(int64) (io.ReadCloser, error) { return body, nil },
			troupe.UploadOptions{},
		)
		ended <- err
	}()
	<-begun
	cancel()
	body.Close()
	if err := <-ended; err == nil {
		t.Error("the upload succeeded")
	}
	eventually(t, func() error {
		st, err := c.Status(t.Context())
		if err != nil {
			return err
		}
		for id, e := range st.Executions {
			if strings.HasPrefix(id, "upload-") && e.Completed == nil {
				return fmt.Errorf("%s runs", id)
			}
		}
		return nil
	})
	if got := sh(t, c, "ls -A; cat f"); got != "f\nold\n" {
		t.Errorf("the session has %q", got)
	}
}

// TestFilesAreWholeOrRefused: digest, size and preconditions, as any HTTP client gives them.
func TestFilesAreWholeOrRefused(t *testing.T) {
	s := launch(t)
	c, files := room(t, s, s.ws, quick())
	url := s.http + "/api/v1/sessions/" + c.ID() + "/files/f"
	type answer struct {
		status int
		header http.Header
		body   string
	}
	put := func(body string, header ...string) answer {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return answer{resp.StatusCode, resp.Header, string(b)}
	}
	first := put("one", "If-None-Match", "*")
	if first.status != http.StatusCreated || first.header.Get("ETag") == "" {
		t.Fatalf("%+v", first)
	}
	for _, want := range []struct {
		status int
		header []string
	}{
		{http.StatusPreconditionFailed, []string{"If-None-Match", "*"}},
		{http.StatusPreconditionFailed, []string{"If-Match", `"1-2"`}},
		{http.StatusUnprocessableEntity, []string{"Repr-Digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"}},
		{http.StatusBadRequest, []string{"Repr-Digest", "md5=:AAAA:"}},
		{http.StatusOK, []string{"If-Match", first.header.Get("ETag")}},
	} {
		resp := put("two", want.header...)
		if resp.status != want.status {
			t.Errorf("%q: %d %s", want.header, resp.status, resp.body)
		}
		if kind := resp.header.Get("Content-Type"); want.status >= 400 && kind != "application/problem+json" {
			t.Errorf("%q: an error of the type %s", want.header, kind)
		}
	}
	var got bytes.Buffer
	if err := files.Download(t.Context(), "f", &got, nil); err != nil || got.String() != "two" {
		t.Errorf("the file has %q, %v", got.String(), err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=-2")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusPartialContent || string(b) != "wo" ||
		resp.Header.Get("Content-Range") != "bytes 1-2/3" {
		t.Errorf("a range: %d %q %s", resp.StatusCode, b, resp.Header.Get("Content-Range"))
	}
}

// TestFilesStopAtTheDiskLimit: an upload that is larger than the session may have ends, and says why.
func TestFilesStopAtTheDiskLimit(t *testing.T) {
	s := launchFor(t, []string{"alice"}, "--session-disk", "4MiB", "--workspace", t.TempDir(), "--workdir", ".")
	opt := quick()
	opt.Token = tokenOf("alice")
	_, files := room(t, s, s.ws, opt)
	data := randomBytes(32 << 20)
	_, err := files.Upload(t.Context(), "f", int64(len(data)), from(data), troupe.UploadOptions{})
	var refused *troupe.FileError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusInsufficientStorage {
		t.Errorf("got %v", err)
	}
}

// TestFilesOfManyGoAsATree: trees of many files go both ways, with modes, links and odd names.
func TestFilesOfManyGoAsATree(t *testing.T) {
	s := launch(t)
	c, files := room(t, s, s.ws, quick())
	sh(t, c, `mkdir -p t/a/b; i=0; while [ $i -lt 2000 ]; do echo $i >t/a/f$i; i=$((i+1)); done
		ln -s ../a t/a/b/link; printf x >"t/$(printf 'caf\351')"; chmod 700 t/a/f7; mkdir t/empty`)
	archive, err := files.DownloadTree(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := io.ReadAll(archive)
	archive.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := files.UploadTree(t.Context(), "u", from(tree), troupe.UploadOptions{Parents: true}); err != nil {
		t.Fatal(err)
	}
	const sum = `cd %s && find . -printf '%%P %%y %%m %%l\n' | LC_ALL=C sort | sha256sum; find . -type f | LC_ALL=C sort | xargs -d '\n' cat | sha256sum`
	if a, b := sh(t, c, fmt.Sprintf(sum, "t")), sh(t, c, fmt.Sprintf(sum, "u")); a != b {
		t.Errorf("the tree came back as another:\n%s%s", a, b)
	}
}

// TestFileTransfersHoldLittle: the memory of the server and of the runner does not depend on the size of a file.
func TestFileTransfersHoldLittle(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector multiplies memory")
	}
	s := launch(t)
	size := int64(1 << 30)
	if soaking {
		size = 5 << 30
	}
	c, files := room(t, s, s.ws, quick())
	warm := randomBytes(8 << 20)
	if _, err := files.Upload(t.Context(), "w", int64(len(warm)), from(warm), troupe.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	before, runner := s.memory("VmRSS"), s.memoryOf(s.runner, "VmRSS")
	open := func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(&pattern{pos: offset, end: size}), nil
	}
	if _, err := files.Upload(t.Context(), "big", size, open, troupe.UploadOptions{}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if err := files.Download(t.Context(), "big", sum, nil); err != nil {
		t.Fatal(err)
	}
	if grown := s.memory("VmHWM") - before; grown > 16<<20 {
		t.Errorf("the server grew by %d bytes", grown)
	} else {
		t.Logf("the server grew by %d KiB for %d MiB each way", grown>>10, size>>20)
	}
	if grown := s.memoryOf(s.runner, "VmHWM") - runner; grown > 16<<20 {
		t.Errorf("the runner grew by %d bytes", grown)
	} else {
		t.Logf("the runner grew by %d KiB", grown>>10)
	}
	sh(t, c, "rm big")
}

// pattern is content that is not zero and costs little to make.
type pattern struct{ pos, end int64 }

func (p *pattern) Read(b []byte) (int, error) {
	n := int(min(int64(len(b)), p.end-p.pos))
	if n == 0 {
		return 0, io.EOF
	}
	for i := 0; i < n; i += 512 {
		b[i] = byte(p.pos>>9) | 1
	}
	p.pos += int64(n)
	return n, nil
}
