//go:build linux

package fileserver

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/wire"
)

// row is a request and what is to come of it.
type row struct {
	what   string
	body   string
	header []string
	status int
	code   string // of a problem
}

// check sends the requests in their order.
func (s *server) check(rows []row) {
	s.t.Helper()
	for _, r := range rows {
		a := s.do(r.what, strings.NewReader(r.body), r.header...)
		if a.status != r.status {
			s.t.Errorf("%s %q: want %d, got %v", r.what, r.header, r.status, a)
		}
		if r.status >= 400 && !strings.HasPrefix(r.what, http.MethodHead) && a.code() != r.code {
			s.t.Errorf("%s %q: want the code %q, got %v", r.what, r.header, r.code, a)
		}
		retry := r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable
		if retry != (a.header.Get("Retry-After") != "") {
			s.t.Errorf("%s: %d with Retry-After %q", r.what, a.status, a.header.Get("Retry-After"))
		}
	}
}

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return digestHeader(sum[:])
}

// TestAnswers: what each kind of request is answered with.
func TestAnswers(t *testing.T) {
	s := serving(t, nil)
	s.sh("mkdir d empty; printf 0123456789 >f; : >none; ln -s f in; ln -s /etc out; mkfifo pipe; echo x >d/x")
	tag := s.do("HEAD /files/f", nil).header.Get("ETag")
	s.check([]row{
		{what: "GET /files/f", status: 200},
		{what: "GET /files/in", status: 200},
		{what: "GET /files/f?stat", status: 200},
		{what: "GET /files/d", status: 200},
		{what: "GET /files/?list&limit=1", status: 200},
		{what: "GET /files/d", header: []string{"Accept", "application/x-tar"}, status: 200},
		{what: "HEAD /files/f?watch", status: 200},
		{what: "HEAD /files/d", status: 200},
		{what: "GET /files/f", header: []string{"If-None-Match", `"x", W/` + tag}, status: 304},
		{what: "HEAD /files/f", header: []string{"If-None-Match", "*"}, status: 304},
		{what: "GET /files/f", header: []string{"If-Match", tag}, status: 200},
		{what: "GET /files/f", header: []string{"If-Match", "*"}, status: 200},
		{what: "GET /files/f", header: []string{"If-Match", `"x"`}, status: 412, code: "precondition"},
		{what: "HEAD /files/f", header: []string{"If-Match", `"x"`}, status: 412},
		{what: "GET /files/f", header: []string{"If-Match", `"x", "y"`}, status: 400, code: "invalid"},
		{what: "GET /files/?list&limit=0", status: 400, code: "invalid"},
		{what: "GET /files/?list&continue=%25", status: 400, code: "invalid"},
		{what: "GET /files/no", status: 404, code: "not_found"},
		{what: "HEAD /files/no", status: 404},
		{what: "GET /files/%2E%2E/x", status: 403, code: "outside"},
		{what: "GET /files/out/passwd", status: 403, code: "outside"},
		{what: "GET /files/%2Fetc/passwd", status: 403, code: "outside"},
		{what: "GET /files/%2Fproc/self/environ", status: 403, code: "outside"},
		{what: "GET /files/pipe", status: 409, code: "wrong_kind"},
		{what: "GET /files/f", header: []string{"Accept", "application/x-tar"}, status: 409, code: "wrong_kind"},
		{what: "GET /files/a%00b", status: 400, code: "invalid"},
		{what: "PATCH /files/f", status: 405},
		{what: "GET /uploads/upload-x", status: 405},

		{what: "PUT /files/new", body: "1", header: []string{"If-None-Match", "*"}, status: 201},
		{what: "PUT /files/new", body: "1", header: []string{"If-None-Match", "*"}, status: 412, code: "exists"},
		{what: "PUT /files/new", body: "1", header: []string{"If-None-Match", `"x"`}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "1", header: []string{"If-Match", `"x"`}, status: 412, code: "precondition"},
		{what: "PUT /files/new", body: "1", header: []string{"If-Match", "x"}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "2", header: []string{"Repr-Digest", digest("2")}, status: 200},
		{what: "PUT /files/new", body: "3", header: []string{"Repr-Digest", digest("2")}, status: 422, code: "digest"},
		{what: "PUT /files/new", body: "3", header: []string{"Repr-Digest", "md5=:AA==:"}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "3", header: []string{"Upload-Length", "2"}, status: 400, code: "incomplete"},
		{what: "PUT /files/new", body: "3", header: []string{"Upload-Length", "-2"}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "3", header: []string{"Upload-Complete", "1"}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "3", header: []string{"Content-Range", "bytes 1-1/2"}, status: 400, code: "invalid"},
		{what: "PUT /files/new", body: "3", header: []string{"Content-Encoding", "gzip"}, status: 400, code: "invalid"},
		{what: "PUT /files/new?mode=4755", body: "3", status: 400, code: "invalid"},
		{what: "PUT /files/new?modified=today", body: "3", status: 400, code: "invalid"},
		{what: "PUT /files/d", body: "3", status: 409, code: "wrong_kind"},
		{what: "PUT /files/no/new", body: "3", status: 404, code: "not_found"},
		{what: "PUT /files/a/b/new?parents", body: "3", status: 201},
		{what: "PUT /files/f/x", body: "3", status: 409, code: "wrong_kind"},
		{what: "PUT /files/out/troupe", body: "3", status: 403, code: "outside"},
		{what: "PUT /files/" + strings.Repeat("n", 256), body: "3", status: 400, code: "invalid"},

		{what: "POST /files/d", status: 400, code: "invalid"},
		{what: "POST /files/no?move=x", status: 404, code: "not_found"},
		{what: "POST /files/e?mkdir", status: 201},
		{what: "POST /files/e?mkdir", status: 409, code: "exists"},
		{what: "POST /files/e?mkdir&parents", status: 200},
		{what: "POST /files/f?move=d", status: 409, code: "exists"},
		{what: "POST /files/new?move=f", header: []string{"If-None-Match", "*"}, status: 412, code: "exists"},
		{what: "POST /files/new?move=moved", header: []string{"If-None-Match", "*"}, status: 200},
		{what: "POST /files/moved?move=out/x", status: 403, code: "outside"},
		{what: "POST /files/moved?move=../x", status: 403, code: "outside"},
		{what: "POST /files/moved?move=../x", header: []string{"If-None-Match", "*"}, status: 403, code: "outside"},
		{what: "POST /files/moved?move=..", header: []string{"If-None-Match", "*"}, status: 412, code: "exists"},
		{what: "DELETE /files/moved", header: []string{"If-Match", `"x"`}, status: 412, code: "precondition"},
		{what: "DELETE /files/moved", status: 204},
		{what: "DELETE /files/moved", status: 404, code: "not_found"},
		{what: "DELETE /files/d", status: 409, code: "exists"},
		{what: "DELETE /files/d?recursive", status: 204},
		{what: "DELETE /files/?recursive", status: 400, code: "invalid"},
		{what: "DELETE /files/out?recursive", status: 204}, // the link
	})
	if b, err := os.ReadFile(filepath.Join(s.dir, "f")); string(b) != "0123456789" {
		t.Errorf("f has %q, %v", b, err)
	}
	s.url += "x"
	s.check([]row{
		{what: "GET /files/f", status: 404, code: "no_session"},
		{what: "PUT /files/f", body: "x", status: 404, code: "no_session"},
		{what: "HEAD /uploads/upload-x", status: 404},
	})
}

// TestRanges: what a Range is answered with.
func TestRanges(t *testing.T) {
	s := serving(t, nil)
	s.sh("printf 0123456789 >f; : >none")
	tag := s.do("HEAD /files/f", nil).header.Get("ETag")
	for _, c := range []struct {
		path, spec, ifRange string
		status              int
		content, spans      string
	}{
		{"f", "bytes=2-4", "", 206, "234", "bytes 2-4/10"},
		{"f", "bytes=2-", tag, 206, "23456789", "bytes 2-9/10"},
		{"f", "bytes=-3", "", 206, "789", "bytes 7-9/10"},
		{"f", "bytes=-30", "", 206, "0123456789", "bytes 0-9/10"},
		{"f", "bytes=8-100", "", 206, "89", "bytes 8-9/10"},
		{"f", "bytes=0-0", "", 206, "0", "bytes 0-0/10"},
		{"f", "bytes=10-", "", 416, "", "bytes */10"},
		{"f", "bytes=11-12", "", 416, "", "bytes */10"},
		{"none", "bytes=0-", "", 416, "", "bytes */0"},
		{"none", "bytes=-5", "", 200, "", ""},
		{"f", "bytes=2-4", `"another"`, 200, "0123456789", ""},
		{"f", "bytes=0-1,4-5", "", 200, "0123456789", ""},
		{"f", "lines=0-1", "", 200, "0123456789", ""},
		{"f", "bytes=4-2", "", 200, "0123456789", ""},
		{"f", "bytes=-0", "", 200, "0123456789", ""},
		{"f", "bytes=0-9223372036854775807", "", 206, "0123456789", "bytes 0-9/10"},
		{"f", "bytes=8-99999999999999999999", "", 206, "89", "bytes 8-9/10"},
		{"f", "bytes=99999999999999999999-", "", 416, "", "bytes */10"},
		{"f", "bytes=-99999999999999999999", "", 206, "0123456789", "bytes 0-9/10"},
		{"f", "bytes=+1-2", "", 200, "0123456789", ""},
	} {
		header := []string{"Range", c.spec}
		if c.ifRange != "" {
			header = append(header, "If-Range", c.ifRange)
		}
		a := s.do("GET /files/"+c.path, nil, header...)
		if a.status != c.status || a.header.Get("Content-Range") != c.spans || a.status < 400 && a.body != c.content {
			t.Errorf("%s of %s: %v", c.spec, c.path, a)
		}
	}
}

// TestDigests: one that is asked for comes with the file, or with HEAD, and is right.
func TestDigests(t *testing.T) {
	s := serving(t, nil)
	s.sh("printf content >f")
	want := []string{"Want-Repr-Digest", "sha-256=10"}
	if a := s.do("HEAD /files/f", nil, want...); a.header.Get("Repr-Digest") != digest("content") ||
		a.header.Get("Content-Length") != "7" {
		t.Error(a)
	}
	if a := s.do("GET /files/f", nil, want...); a.trailer.Get("Repr-Digest") != digest("content") || a.body != "content" {
		t.Errorf("%v %v", a, a.trailer)
	}
}

// TestNothingOfASessionRunsInABrowser: a page that a session holds is a download.
func TestNothingOfASessionRunsInABrowser(t *testing.T) {
	s := serving(t, nil)
	s.sh(`printf '<script>' >'a"b.html'`)
	h := s.do("GET /files/a%22b.html", nil).header
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "Content-Disposition": "attachment; filename*=UTF-8''a%22b.html",
		"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Accept-Ranges": "bytes",
	} {
		if h.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, h.Get(name), want)
		}
	}
}

// TestBusySessionsSayWhenToTryAgain: beyond --max-executions, and while the server stops.
func TestBusySessionsSayWhenToTryAgain(t *testing.T) {
	s := serving(t, func(c *setup) { c.engine.Limits.MaxExecutions = 1 })
	e, err := s.session.Execute(t.Context(), wire.ExecuteParams{Command: "sleep 100"})
	if err != nil {
		t.Fatal(err)
	}
	s.check([]row{
		{what: "GET /files/f", status: 429},
		{what: "PUT /files/f", body: "x", status: 429},
		{what: "DELETE /files/f", status: 429},
	})
	stop, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		s.engine.Drain(stop)
	}()
	defer func() {
		close(stop)
		<-drained
	}()
	for { // until the session has learnt of it
		a := s.do("GET /files/f", nil)
		if a.status == http.StatusTooManyRequests {
			continue
		}
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Error(a)
		}
		break
	}
	_ = e.Cancel(t.Context())
}

// TestRunnersWithoutTheProgram: an image that has only the runner.
func TestRunnersWithoutTheProgram(t *testing.T) {
	s := serving(t, func(c *setup) {
		bare := filepath.Join(t.TempDir(), "troupe-runner")
		b, err := os.ReadFile(filepath.Join(buildDir, "troupe-runner"))
		if err == nil {
			err = os.WriteFile(bare, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.runner = bare
	})
	s.check([]row{
		{what: "GET /files/f", status: 501, code: "no_program"},
		{what: "PUT /files/f", body: "x", status: 501, code: "no_program"},
		{what: "POST /files/f?mkdir", status: 501, code: "no_program"},
		{what: "DELETE /files/f", status: 501, code: "no_program"},
	})
}

// TestServersThatAllowNoFiles: --allow-command without troupe-files.
func TestServersThatAllowNoFiles(t *testing.T) {
	s := serving(t, func(c *setup) { c.engine.AllowCommands = []string{"/bin/true"} })
	s.check([]row{{what: "GET /files/f", status: 403}})
}

// TestFullDisks: an upload for which there is no room says so, and leaves nothing.
func TestFullDisks(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting a small disk: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
	s := serving(t, func(c *setup) { c.dir = disk })
	large := strings.Repeat("x", 3<<20)
	s.check([]row{
		{what: "PUT /files/f", body: large, status: 507, code: "no_space"},
		{
			what: "PUT /files/", body: string(archived(t, tar.Header{Name: "f", Size: 3 << 20})),
			header: []string{"Content-Type", "application/x-tar"}, status: 507, code: "no_space",
		},
		{what: "PATCH " + s.begin("f"), body: large, header: []string{"Upload-Offset", "0"}, status: 507, code: "no_space"},
		{what: "PUT /files/f", body: "x", status: 201},
	})
	s.idle()
	if have := s.sh("ls -A"); have != "f\n" {
		t.Errorf("the disk has %q", have)
	}
	// Its size may be unknown until the disk is full.
	if a := s.do("PUT /files/f", struct{ io.Reader }{strings.NewReader(large)}); a.code() != "no_space" {
		t.Error(a)
	}
}

// archived returns a tar archive of files whose content is x.
func archived(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// TestArchives: what goes in, what is refused, and what comes out.
func TestArchives(t *testing.T) {
	s := serving(t, nil)
	s.sh("mkdir d; echo secret >secret")
	asTar := []string{"Content-Type", "application/x-tar"}
	for name, c := range map[string]struct {
		headers []tar.Header
		code    string
	}{
		"absolute": {[]tar.Header{{Name: "/tmp/troupe-x", Size: 1}}, "outside"},
		"parent":   {[]tar.Header{{Name: "a/../../x", Size: 1}}, "outside"},
		"link": {
			[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/x", Size: 1}}, "outside",
		},
		"hard link": {[]tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}}, "outside"},
		"device":    {[]tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, "unsupported"},
		"pipe":      {[]tar.Header{{Name: "pipe", Typeflag: tar.TypeFifo}}, "unsupported"},
	} {
		if a := s.do("PUT /files/d", bytes.NewReader(archived(t, c.headers...)), asTar...); a.code() != c.code {
			t.Errorf("%s: %v", name, a)
		}
	}
	if have := s.sh("ls; cat secret"); have != "d\nsecret\nsecret\n" {
		t.Errorf("the session has %q", have)
	}
	whole := archived(t, tar.Header{Name: "f", Size: 2000}, tar.Header{Name: "g", Size: 2000})
	if a := s.do("PUT /files/d", bytes.NewReader(whole[:3000]), asTar...); a.code() != "incomplete" {
		t.Errorf("half an archive: %v", a)
	}
	a := s.do("PUT /files/e?parents", bytes.NewReader(archived(t,
		tar.Header{Name: "sub/", Typeflag: tar.TypeDir, Mode: 0o750}, tar.Header{Name: "sub/f", Size: 3, Mode: 0o4755},
		tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "sub/f"},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/nowhere"})), asTar...)
	if a.status != http.StatusOK || a.body != "{\"files\":4}\n" {
		t.Error(a)
	}
	// The mode has no set-uid bit, and h is the same file.
	if have := s.sh("cd e; stat -c '%n %a %h %N' sub sub/f l; cat h"); have != "sub 750 2 'sub'\nsub/f 755 2 'sub/f'\n"+
		"l 777 1 'l' -> '/nowhere'\nxxx" {
		t.Errorf("unpacked: %q", have)
	}
	packed := s.do("GET /files/e", nil, "Accept", "application/x-tar")
	if packed.header.Get("Content-Type") != "application/x-tar" {
		t.Error(packed)
	}
	list := exec.CommandContext(t.Context(), "tar", "-t")
	list.Stdin = strings.NewReader(packed.body)
	if out, err := list.CombinedOutput(); err != nil || len(strings.Fields(string(out))) != 4 {
		t.Errorf("tar lists %q, %v", out, err)
	}
}

// TestArchivesOfGNUTarWithHoles: tar -S writes files with holes in a form of its own.
func TestArchivesOfGNUTarWithHoles(t *testing.T) {
	s := serving(t, nil)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 8<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, format := range []string{"gnu", "posix"} {
		packed, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-cSf", "-", "--format="+format, "disk").Output()
		if err != nil {
			t.Skip("tar -S: ", err)
		}
		a := s.do("PUT /files/", bytes.NewReader(packed), "Content-Type", "application/x-tar")
		if a.status != http.StatusOK {
			t.Fatal(format, a)
		}
		if have := s.sh("stat -c %s disk; tail -c 3 disk; [ $(stat -c %b disk) -lt 100 ]; rm disk"); have != "8388611\nend" {
			t.Errorf("%s: %q", format, have)
		}
	}
}

// TestNamesModesTimesAndHoles: what a file has beside its content goes both ways.
func TestNamesModesTimesAndHoles(t *testing.T) {
	s := serving(t, nil)
	content := strings.Repeat("\x00", 4<<20) + "end"
	const what = "PUT /files/a%20b/caf%E9%0A%25?parents&mode=0604&modified=2001-02-03T04:05:06.789Z"
	a := s.do(what, strings.NewReader(content))
	if a.status != http.StatusCreated {
		t.Fatal(a)
	}
	var e files.Entry
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Name != "caf\xe9\n%" || e.Mode != 0o604 {
		t.Errorf("%+v %v", e, err)
	}
	st, err := os.Stat(filepath.Join(s.dir, "a b", "caf\xe9\n%"))
	if err != nil {
		t.Fatal(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Blocks > 100 || st.Mode() != 0o604 || st.ModTime().UnixMilli() != 981173106789 {
		t.Errorf("%v %v %+v", st.Mode(), st.ModTime(), sys)
	}
	var l wire.FileList
	a = s.do("GET /files/a%20b", nil)
	if err := json.Unmarshal([]byte(a.body), &l); err != nil || len(l.Entries) != 1 || l.Entries[0].Name != e.Name ||
		!strings.Contains(a.body, `"caf%E9%0A%25"`) {
		t.Errorf("%v %v", a, err)
	}
	if a := s.do("GET /files/a%20b/caf%E9%0A%25", nil); a.body != content || a.header.Get("ETag") != `"`+e.Tag+`"` {
		t.Error("the content came back as another")
	}
	s.sh("ln -s target link")
	if a := s.do("GET /files/link?stat", nil); !strings.Contains(a.body, `"kind":"symlink"`) ||
		!strings.Contains(a.body, `"link":"target"`) {
		t.Error(a)
	}
	a = s.do("PUT /files/link", strings.NewReader("x"))
	if have := s.sh("readlink link || cat link; ls"); a.status != http.StatusOK || have != "xa b\nlink\n" {
		t.Errorf("a link was not replaced: %v, %q", a, have)
	}
}

func tarFile(name string, size int64) tar.Header { return tar.Header{Name: name, Size: size} }
