//go:build linux

package files

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/wire"
)

func ptr[T any](v T) *T { return &v }

func TestWriteReadsBack(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 3<<20+17)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(data)
	sum := sha256.Sum256(data)
	at := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	r := do(t, dir, &Request{
		Op: OpWrite, Path: "a/b/file", Parents: true, Size: ptr(int64(len(data))), SHA256: sum[:],
		Mode: ptr(uint32(0o640)), Modified: &at,
	}, string(data))
	if !r.Created || r.Entry.Mode != 0o640 || !r.Entry.Modified.Equal(at) || r.Entry.Name != "file" {
		t.Errorf("the reply is %+v, %+v", r, r.Entry)
	}
	first, rest := run(t, dir, &Request{Op: OpRead, Path: "a/b/file", Digest: true}, nil)
	if first.Length != int64(len(data)) || first.Entry.Tag != r.Entry.Tag {
		t.Errorf("read says %d bytes, tag %s; want %d, %s", first.Length, first.Entry.Tag, len(data), r.Entry.Tag)
	}
	if !bytes.Equal(rest[:len(data)], data) {
		t.Error("the content is another")
	}
	last := new(Reply)
	if err := json.Unmarshal(rest[len(data):], last); err != nil || !bytes.Equal(last.SHA256, sum[:]) {
		t.Errorf("the last line is %q", rest[len(data):])
	}
	part, rest := run(
		t,
		dir,
		&Request{Op: OpRead, Path: "a/b/file", Offset: 1 << 20, Length: 100, Match: r.Entry.Tag},
		nil,
	)
	if part.Length != 100 || !bytes.Equal(rest[:100], data[1<<20:][:100]) {
		t.Error("a range has other content")
	}
}

func TestWrittenFileIsWholeOrOld(t *testing.T) {
	dir := t.TempDir()
	do(t, dir, &Request{Op: OpWrite, Path: "f"}, "old")
	for _, c := range []struct {
		name string
		req  Request
		code Code
	}{
		{"too short", Request{Size: ptr(int64(9))}, CodeIncomplete},
		{"too long", Request{Size: ptr(int64(2))}, CodeIncomplete},
		{"another digest", Request{SHA256: make([]byte, 32)}, CodeDigest},
		{"another tag", Request{Match: "1-2-3"}, CodePrecond},
		{"new", Request{New: true}, CodeExists},
	} {
		c.req.Op, c.req.Path = OpWrite, "f"
		refused(t, dir, &c.req, "newer", c.code)
		if got := content(t, filepath.Join(dir, "f")); got != "old" {
			t.Errorf("%s: the file has %q", c.name, got)
		}
	}
	refused(t, dir, &Request{Op: OpWrite, Path: "g", Match: "*"}, "x", CodePrecond)
	refused(t, dir, &Request{Op: OpWrite, Path: "no/g"}, "x", CodeNotFound)
	refused(t, dir, &Request{Op: OpWrite, Path: "f/g", Parents: true}, "x", CodeExists)
	refused(t, dir, &Request{Op: OpWrite, Path: "."}, "x", CodeInvalid)
	onlyHas(t, dir, "f")
}

// onlyHas fails if dir has anything but names.
func onlyHas(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("%s has %q, want %q", dir, got, names)
	}
}

// Cancelling a command sends SIGTERM and, later, SIGKILL.
func TestEndedWriteLeavesNothing(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		for _, replace := range []bool{false, true} {
			dir := t.TempDir()
			var want []string
			if replace {
				do(t, dir, &Request{Op: OpWrite, Path: "f"}, "old")
				want = []string{"f"}
			}
			cmd := command(t, dir, &Request{Op: OpWrite, Path: "f"})
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// More than the pipe holds: some of it is in the file.
			if _, err := in.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Process.Signal(sig)
			_ = cmd.Wait()
			onlyHas(t, dir, want...)
		}
	}
}

func TestHolesAreKept(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 64<<20)
	copy(data[10<<20+5:], "in the middle")
	do(t, dir, &Request{Op: OpWrite, Path: "f"}, string(data))
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != int64(len(data)) || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes take %d on disk", st.Size, st.Blocks*512)
	}
	if content(t, filepath.Join(dir, "f")) != string(data) {
		t.Error("the content is another")
	}
}

// Piece by piece, the boundaries of blocks and of what is read do not agree.
func TestHolesInSmallPieces(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 5*block+123)
	data[block+1], data[4*block-1] = 1, 2
	r, w := io.Pipe()
	go func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for rest := data; len(rest) > 0; {
			n := min(1+rnd.IntN(1500), len(rest))
			_, _ = w.Write(rest[:n])
			rest = rest[n:]
		}
		w.Close()
	}()
	n, err := copySparse(f, r)
	if err != nil || n != int64(len(data)) {
		t.Fatal(n, err)
	}
	if got := content(t, f.Name()); got != string(data) {
		t.Error("the content is another")
	}
}

func TestPathsStayInside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "home")
	for _, d := range []string{dir, filepath.Join(top, "out")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(top, "out", "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"abs": secret, "rel": "../out/secret", "dir": "../out", "absdir": filepath.Join(top, "out"),
		"proc": "/proc/self/root", "dev": "/dev", "fd": "/proc/self/fd",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	expected := []Code{CodeOutside, CodeNotFound, CodeExists, CodeWrongKind, CodeInvalid}
	for _, path := range []Name{
		"../out/secret", "abs", "rel", "dir/secret", "absdir/secret", "proc/etc/passwd", "x/../../out/secret",
		Name(secret), Name(dir + "/../out/secret"), "/etc/passwd", "/proc/self/environ", "..",
		"dev/null", "dev/shm", "fd/0", "/dev/stdin",
	} {
		for _, req := range []Request{
			{Op: OpRead},
			{Op: OpList},
			{Op: OpPack},
			{Op: OpWrite, Parents: true},
			{Op: OpUnpack, Parents: true},
			{Op: OpMkdir, Parents: true},
		} {
			if (path == "abs" || path == "rel") && req.Op == OpWrite {
				continue // replaces the link itself
			}
			req.Path = path
			r, rest := run(t, dir, &req, strings.NewReader(""))
			if r.Error == nil {
				t.Errorf("%s %s succeeded: %q", req.Op, path, rest)
			} else if !slices.Contains(expected, r.Error.Code) {
				t.Errorf("%s %s: %s, %s", req.Op, path, r.Error.Code, r.Error.Message)
			}
		}
		refused(t, dir, &Request{Op: OpMove, Path: "abs", Target: "dir/x"}, "", CodeOutside)
	}
	onlyHas(t, filepath.Join(top, "out"), "secret")
	if content(t, secret) != "secret" {
		t.Error("the file outside has changed")
	}
	do(t, dir, &Request{Op: OpWrite, Path: Name(filepath.Join(dir, "in"))}, "x")
	if content(t, filepath.Join(dir, "in")) != "x" {
		t.Error("an absolute path inside was not taken")
	}
	// A link is removed, not what it leads to.
	do(t, dir, &Request{Op: OpRemove, Path: "dir", Recursive: true}, "")
	onlyHas(t, filepath.Join(top, "out"), "secret")
	refused(t, dir, &Request{Op: OpRemove, Path: ".", Recursive: true}, "", CodeInvalid)
	refused(t, dir, &Request{Op: OpRemove, Path: Name(dir), Recursive: true}, "", CodeInvalid)
}

// A command may exchange a directory for a link at any moment.
func TestSwappedLinksLeadNowhere(t *testing.T) {
	top := t.TempDir()
	dir, out := filepath.Join(top, "home"), filepath.Join(top, "out")
	for _, d := range []string{dir, out, filepath.Join(dir, "real")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(out, "f"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "real", "f"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../out", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	swap(t, filepath.Join(dir, "real"), filepath.Join(dir, "link"))
	inside := 0
	for i := range 200 {
		if r, rest := run(t, dir, &Request{Op: OpRead, Path: "real/f"}, nil); r.Error == nil {
			inside++
			if !bytes.HasPrefix(rest, []byte("inside")) {
				t.Fatalf("read %q", rest)
			}
		}
		run(t, dir, &Request{Op: OpWrite, Path: Name(fmt.Sprintf("real/w%d", i))}, strings.NewReader("x"))
		run(
			t,
			dir,
			&Request{Op: OpUnpack, Path: "real"},
			archive(t, tar.Header{Name: fmt.Sprintf("t%d", i), Typeflag: tar.TypeReg}),
		)
		run(t, dir, &Request{Op: OpRemove, Path: "real/f2", Recursive: true}, nil)
	}
	if inside == 0 {
		t.Error("nothing was read in 200 attempts: the test shows nothing")
	}
	onlyHas(t, out, "f")
	if content(t, filepath.Join(out, "f")) != "secret" {
		t.Error("the file outside has changed")
	}
}

// swap exchanges two files until the test ends, as a command may.
func swap(t *testing.T, a, b string) {
	t.Helper()
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
				time.Sleep(5 * time.Microsecond) // leaves the processor to the program
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		swapping.Wait()
	})
}

// TestSwappedTargetsLeadNowhere: what a request names itself, and what an archive does, becomes a link at any moment.
// Neither content nor modes nor times outside change.
func TestSwappedTargetsLeadNowhere(t *testing.T) {
	top := t.TempDir()
	dir, out := filepath.Join(top, "home"), filepath.Join(top, "out")
	for _, d := range []string{dir, out, filepath.Join(dir, "d"), filepath.Join(dir, "to")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"out/f": "secret", "home/f": "inside", "home/d/f": "inside"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"flink": "../out/f", "dlink": "../out"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	describe := func() string {
		said, err := exec.CommandContext(t.Context(), "find", out, "-printf", "%P %m %T@ %s %n\n").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(said)
	}
	before := describe()
	swap(t, filepath.Join(dir, "f"), filepath.Join(dir, "flink"))
	swap(t, filepath.Join(dir, "d"), filepath.Join(dir, "dlink"))
	secret := sha256.Sum256([]byte("secret"))
	then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for i := range 200 {
		for _, req := range []Request{
			{Op: OpRead, Path: "f", Digest: true},
			{Op: OpRead, Path: "d/f"},
			{Op: OpStat, Path: "f", Follow: true, Digest: true},
			{Op: OpList, Path: "d"},
			{Op: OpWrite, Path: "d/new", Mode: ptr(uint32(0o600))},
			{Op: OpWrite, Path: "d/e/new", Parents: true},
			{Op: OpMkdir, Path: Name(fmt.Sprintf("d/made%d", i)), Parents: true},
			{Op: OpMove, Path: "to", Target: "d/to", New: true},
			{Op: OpMove, Path: "d/to", Target: "to"},
			{Op: OpRemove, Path: "d/new"},
			{Op: OpRemove, Path: "d/e", Recursive: true},
		} {
			r, rest := run(t, dir, &req, strings.NewReader("x"))
			if bytes.Contains(rest, []byte("secret")) || bytes.Equal(r.SHA256, secret[:]) {
				t.Fatalf("%s %s: %q %x", req.Op, req.Path, rest, r.SHA256)
			}
		}
		run(t, dir, &Request{Op: OpUnpack, Path: "."}, archive(t,
			tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700, ModTime: then},
			tar.Header{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "d/f"},
			tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "x", ModTime: then}))
		if i%20 == 0 {
			// As a process: it ends when it finds that it cannot pack what has become a link.
			packed, _ := command(t, dir, &Request{Op: OpPack, Path: "."}).Output()
			if bytes.Contains(packed, []byte("secret")) {
				t.Fatal("the archive has what is outside")
			}
		}
	}
	if after := describe(); after != before {
		t.Errorf("outside there was\n%sand is\n%s", before, after)
	}
}

// archive returns a tar with the given headers, whose files have the content of their sizes in x.
func archive(t *testing.T, headers ...tar.Header) io.Reader {
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
	return &b
}

func TestHostileArchivesEndInside(t *testing.T) {
	top := t.TempDir()
	for name, headers := range map[string][]tar.Header{
		"absolute":           {{Name: filepath.Join(top, "x"), Typeflag: tar.TypeReg, Size: 1}},
		"parent":             {{Name: "../x", Typeflag: tar.TypeReg, Size: 1}},
		"hidden parent":      {{Name: "a/../../x", Typeflag: tar.TypeReg, Size: 1}},
		"through a link":     {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/x", Typeflag: tar.TypeReg, Size: 1}},
		"absolute link":      {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: top}, {Name: "l/x", Typeflag: tar.TypeReg, Size: 1}},
		"hard link":          {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		"absolute hard link": {{Name: "h", Typeflag: tar.TypeLink, Linkname: filepath.Join(top, "secret")}},
		"link, hard link":    {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/secret"}},
		"device":             {{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"pipe":               {{Name: "pipe", Typeflag: tar.TypeFifo}},
	} {
		if err := os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(top, "home")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r, _ := run(t, dir, &Request{Op: OpUnpack, Path: "."}, archive(t, headers...))
		if r.Error == nil || r.Error.Code == CodeFailed {
			t.Errorf("%s: got %v", name, r.Error)
		}
		onlyHas(t, top, "home", "secret")
		os.RemoveAll(dir)
	}
}

func TestTreeGoesThroughAnArchive(t *testing.T) {
	top := t.TempDir()
	from, to := filepath.Join(top, "from"), filepath.Join(top, "to")
	for _, d := range []string{from, to, filepath.Join(from, "sub"), filepath.Join(from, "sub/empty")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("long", 50)
	for name, data := range map[string]string{"a": "1", "sub/b\xff\xfe": "not UTF-8", "sub/" + long: "2", "sub/new\nline": "3", "big": strings.Repeat("z", 300<<10)} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(from, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../a", filepath.Join(from, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(from, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	if err := os.Chtimes(filepath.Join(from, "a"), then, then); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "sub/empty"), 0o555); err != nil {
		t.Fatal(err)
	}
	_, packed := run(t, top, &Request{Op: OpPack, Path: "from"}, nil)
	r, _ := run(t, top, &Request{Op: OpUnpack, Path: "to"}, bytes.NewReader(packed))
	if r.Error != nil {
		t.Fatal(r.Error)
	}
	os.Remove(filepath.Join(from, "pipe"))
	describe := func(dir string) string {
		out, err := exec.CommandContext(
			t.Context(),
			"sh",
			"-c",
			`cd "$1" && find . -mindepth 1 -printf '%P %y %m %s %l %TY-%Tm-%Td %TT\n' | sed 's/ d \([0-9]*\) .*/ d \1/' | LC_ALL=C sort; find . -type f -exec cat {} + | wc -c`,
			"sh",
			dir,
		).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if a, b := describe(from), describe(to); a != b {
		t.Errorf("packed:\n%s\nunpacked:\n%s", a, b)
	}
}

func TestListingIsPaged(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range MaxEntries + 500 {
		name := fmt.Sprintf("f%05d\xff", i)
		want = append(want, name)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for after, more := Name(""), true; more; {
		r := do(t, dir, &Request{Op: OpList, Path: ".", After: after}, "")
		for _, e := range r.Entries {
			got = append(got, string(e.Name))
			after = e.Name
		}
		more = r.More
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %d names of %d", len(got), len(want))
	}
}

func TestChangeWhileReading(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(f *os.File) error{
		"written":  func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 3<<20); return err },
		"appended": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 4<<20); return err },
		"cut":      func(f *os.File) error { return f.Truncate(2 << 20) },
	} {
		cmd := command(t, dir, &Request{Op: OpRead, Path: "f", Length: 4 << 20})
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		_, _ = io.Copy(io.Discard, out)
		if cmd.Wait() == nil {
			t.Errorf("a file that was %s while it was read was taken for whole", name)
		}
	}
}

func TestSpecialFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, &Request{Op: OpRead, Path: "pipe"}, "", CodeWrongKind)
	refused(t, dir, &Request{Op: OpRead, Path: "."}, "", CodeWrongKind)
	refused(t, dir, &Request{Op: OpList, Path: "pipe"}, "", CodeWrongKind)
	refused(t, dir, &Request{Op: "format", Path: "pipe"}, "", CodeInvalid)
	refused(t, dir, &Request{Op: OpRead, Path: "a\x00b"}, "", CodeInvalid)
}

func TestFullDiskIsSaid(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting a small disk: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	data := strings.Repeat("x", 2<<20)
	refused(t, dir, &Request{Op: OpWrite, Path: "f"}, data, CodeNoSpace)
	onlyHas(t, dir)
}

func TestNamesSurviveText(t *testing.T) {
	for _, n := range []Name{"", "a b", "100%", "caf\xe9", "é", "new\nline", "\ufffd", "%41"} {
		text, err := n.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Name
		if err := back.UnmarshalText(text); err != nil || back != n {
			t.Errorf("%q became %q by way of %q, %v", n, back, text, err)
		}
	}
}

func TestWatchTellsChanges(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, dir, &Request{Op: OpWatch, Path: ".", Recursive: true})
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	replies := json.NewDecoder(out)
	await := func(kind string, path Name) {
		t.Helper()
		for {
			var r Reply
			if err := replies.Decode(&r); err != nil {
				t.Fatalf("waiting for %s %s: %v", kind, path, err)
			}
			if r.Change.Kind == kind && r.Change.Path == path {
				return
			}
		}
	}
	await(wire.FileReady, "")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "sub", "f"), []byte("x"), 0o644))
	await(wire.FileCreated, "sub/f")
	await(wire.FileModified, "sub/f")
	must(os.Chmod(filepath.Join(dir, "sub", "f"), 0o600))
	await(wire.FileModeChanged, "sub/f")
	must(os.Rename(filepath.Join(dir, "sub", "f"), filepath.Join(dir, "g")))
	await(wire.FileCreated, "g")
	must(os.Remove(filepath.Join(dir, "g")))
	await(wire.FileRemoved, "g")
	must(os.MkdirAll(filepath.Join(dir, "new", "deep"), 0o755))
	await(wire.FileCreated, "new/deep")
	must(os.WriteFile(filepath.Join(dir, "new", "deep", "f"), nil, 0o644))
	await(wire.FileCreated, "new/deep/f")
}
