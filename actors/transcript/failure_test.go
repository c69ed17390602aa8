package transcript

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary run as a process of its own, for limits that cannot be set on a
// part of one.
const helperEnv = "TRANSCRIPT_TEST_HELPER"

// failing makes the store's n-th write from now on fail with err after short bytes.
func failing(s *Store, n, short int, err error) {
	s.pwritev = func(fd int, parts [][]byte, offset int64) (int, error) {
		if n--; n > 0 {
			return unix.Pwritev(fd, parts, offset)
		}
		if short == 0 {
			return -1, err
		}
		k, _ := unix.Pwrite(fd, parts[0][:min(short, len(parts[0]))], offset)
		short = 0
		return k, nil
	}
}

// When the disk fails under a write, none of that write is visible or stays on disk, and everything
// that follows is counted.
func TestFailedWriteLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		short int
		err   error
	}{"EIO": {0, unix.EIO}, "ENOSPC after a short write": {3, unix.ENOSPC}} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, 1<<20)
			tr := s.Create("t", Options{Limit: 1 << 20})
			calls := dropMarks(tr)
			out, err := tr.Writer(Stdout, WriterConfig{Lines: true}), tr.Writer(Stderr, WriterConfig{Lines: true})
			failing(s, 3, tc.short, tc.err)
			write(t, out, "one\n")
			write(t, err, "two\n")
			write(t, out, "three\nfour\nfi")
			write(t, err, "six\n")
			out.Close()
			err.Close()
			tr.Seal()
			runs, end := readFrom(t, tr, 0, 100)
			sameRuns(t, runs, []run{{data: "one\n"}, {stream: Stderr, data: "two\n"}, {mark: dropped{DropWrite, 8}}})
			c := tr.Counts()
			if end != io.EOF || *calls != 1 || c.DroppedLines != 4 || c.DroppedBytes != 17 {
				t.Fatalf("%v, calls %d, %+v", end, *calls, c)
			}
			st := s.Stats()
			if size, _ := disk(t, s); size != 8+2*1 || st.Bytes != size || st.WriteFailures != 1 {
				t.Fatalf("%d bytes on disk, %+v", size, st)
			}
		})
	}
}

// A short write is not a failure; the rest must go where it belongs.
func TestShortWritesAreContinued(t *testing.T) {
	s := openStore(t, 1<<20)
	s.pwritev = func(fd int, parts [][]byte, offset int64) (int, error) {
		for _, p := range parts {
			if len(p) > 0 {
				return unix.Pwrite(fd, p[:1], offset)
			}
		}
		return 0, nil
	}
	tr := s.Create("t", Options{Limit: 1 << 20})
	w := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 5})
	write(t, w, "12")
	write(t, w, "3\n4567")
	write(t, w, "89\n")
	w.Close()
	runs, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, runs, []run{{data: "123\n"}, {truncated: true, data: "45678[TRUNCATED]\n"}})
}

// Writes to a disk that is really full are short first, and then fail.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skipf("a small tmpfs cannot be mounted here: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := untilDiskFull(dir, 64<<10); err != nil {
		t.Fatal(err)
	}
}

// This is TestDiskFull without privileges: a process of its own limits the size of its files.
func TestFileSizeLimit(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func runHelper(dir string) int {
	limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)
	if err == nil {
		err = untilDiskFull(dir, 64<<10)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// untilDiskFull writes 100-byte lines in pieces of 1,000 to a directory that has room for the bytes
// given.
func untilDiskFull(dir string, room int64) (err error) {
	s, err := Open(Config{Dir: dir, Budget: 1 << 30})
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	tr := s.Create("t", Options{Limit: 1 << 30})
	var reason DropReason
	tr.OnDrop(func(r DropReason, _ int64) any { reason = r; return r })
	w := tr.Writer(Stdout, WriterConfig{Lines: true})
	piece := []byte(strings.Repeat(fill(99)+"\n", 10))
	const pieces = 100
	for range pieces {
		if n, err := w.Write(piece); n != len(piece) || err != nil {
			return fmt.Errorf("Write: %d, %w", n, err)
		}
	}
	w.Close()
	tr.Seal()
	c := tr.Counts()
	kept := c.OutputBytes / 1000
	if reason != DropWrite || kept < 60 || kept*1000 != c.OutputBytes ||
		c.DroppedBytes != 1000*(pieces-kept) || c.DroppedLines != 10*(pieces-kept) {
		return fmt.Errorf("reason %s, %+v", reason, c)
	}
	info, err := os.Stat(tr.path)
	if err != nil {
		return err
	}
	if st := s.Stats(); info.Size() != kept*(1000+longHeader) || st.Bytes != info.Size() || info.Size() > room {
		return fmt.Errorf("file of %d bytes, %+v", info.Size(), st)
	}
	cur, err := tr.Cursor(0, nil)
	if err != nil {
		return err
	}
	defer cur.Close()
	buf := make([]byte, 1<<20)
	p, err := cur.Next(buf)
	if err != nil || string(p.Data) != strings.Repeat(string(piece), int(kept)) {
		return fmt.Errorf("read %d bytes, %w", len(p.Data), err)
	}
	return nil
}

func TestDirectoryGone(t *testing.T) {
	s := openStore(t, 1<<20)
	open, silent := s.Create("open", Options{Limit: 1 << 20}), s.Create("silent", Options{Limit: 1 << 20})
	dropMarks(silent)
	ow, sw := open.Writer(Stdout, WriterConfig{}), silent.Writer(Stdout, WriterConfig{})
	write(t, ow, "before")
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir, nil, 0o600); err != nil { // in the way
		t.Fatal(err)
	}
	// What is open stays readable until it is closed.
	write(t, ow, " after")
	inside, _ := open.Cursor(0, nil)
	defer inside.Close()
	if p, err := inside.Next(make([]byte, 2)); string(p.Data) != "be" || err != nil {
		t.Fatal(err)
	}
	write(t, sw, "lost\n")
	sw.Close()
	silent.Seal()
	runs, _ := readFrom(t, silent, 0, 10)
	sameRuns(t, runs, []run{{mark: dropped{DropWrite, 0}}})
	balance(t, silent, 5)
	open.Mark("m")
	open.Seal()
	runs, _ = drain(t, inside, 100)
	sameRuns(t, runs, []run{{data: "fore after"}, {mark: "m"}})
	runs, end := readFrom(t, open, 3, 100)
	sameRuns(t, runs, []run{{gap: 9}, {mark: "m"}})
	if st := s.Stats(); end != io.EOF || st.WriteFailures != 1 || st.ReadFailures != 1 || st.Bytes != 14 {
		t.Fatalf("%v %+v", end, st)
	}
	if err := os.Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := open.Remove(); err != nil {
		t.Fatal(err)
	}
	// With the place free, the directory is made again for what comes.
	later := s.Create("later", Options{Limit: 1 << 20})
	write(t, later.Writer(Stdout, WriterConfig{}), "kept\n")
	runs, _ = readFrom(t, later, 0, 10)
	sameRuns(t, runs, []run{{data: "kept\n"}})
	if _, err := Open(Config{Dir: s.dir, Budget: 1}); err == nil {
		t.Error("the restored directory is not locked")
	}
}

// In embedded mode commands run as the same user and can write to the file. Tampering must cost
// them only their own output.
func TestTamperedFileGivesAGap(t *testing.T) {
	for name, tamper := range map[string]func(path string) error{
		"cut":        func(p string) error { return os.Truncate(p, 1) },
		"emptied":    func(p string) error { return os.Truncate(p, 0) },
		"zeros":      func(p string) error { return os.WriteFile(p, make([]byte, 5000), 0o600) },
		"ones":       func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("\xff", 5000)), 0o600) },
		"a symlink":  func(p string) error { return replace(p, func() error { return os.Symlink("/etc/passwd", p) }) },
		"a pipe":     func(p string) error { return replace(p, func() error { return unix.Mkfifo(p, 0o600) }) },
		"a folder":   func(p string) error { return replace(p, func() error { return os.Mkdir(p, 0o700) }) },
		"one header": func(p string) error { return overwrite(p, 100+longHeader, []byte{0xff, 0xff, 0xff, 0x7f}) },
	} {
		for retain := First; retain <= Last; retain++ {
			t.Run(name+"/"+retain.String(), func(t *testing.T) {
				s := openStore(t, 1<<20)
				tr := s.Create("t", Options{Retain: retain, Limit: 1 << 20, Scrollback: 1 << 20})
				w := tr.Writer(Stdout, WriterConfig{})
				for range 20 {
					write(t, w, fill(100))
				}
				tr.Seal()
				if err := tamper(tr.path); err != nil {
					t.Fatal(err)
				}
				for _, after := range []int64{0, 150, 1999} {
					for _, size := range []int{1, 10, 5000} {
						runs, err := readFrom(t, tr, after, size)
						if last := runs[len(runs)-1]; err != io.EOF || last.gap == 0 {
							t.Fatalf("from %d with %d: %v %s", after, size, err, show(runs))
						}
					}
				}
			})
		}
	}
}

func replace(path string, with func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return with()
}

func overwrite(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt(data, at)
	return err
}

// The store empties a file that it cannot remove, or keeps counting its bytes: the budget must not
// lie.
func TestFileThatCannotBeRemovedIsEmptied(t *testing.T) {
	s := openStore(t, 300)
	old := sealedWith(t, s, "old", fill(200))
	if err := replace(old.path, func() error { return os.MkdirAll(filepath.Join(old.path, "x"), 0o700) }); err != nil {
		t.Fatal(err)
	}
	tr := s.Create("t", Options{Limit: 1000})
	dropMarks(tr)
	write(t, tr.Writer(Stdout, WriterConfig{}), fill(200))
	runs, _ := readFrom(t, tr, 0, 10)
	sameRuns(t, runs, []run{{mark: dropped{DropBudget, 0}}})
	if st := s.Stats(); st.Bytes != 204 || st.Evicted != 0 {
		t.Fatalf("%+v", st)
	}
	if err := os.RemoveAll(old.path); err != nil {
		t.Fatal(err)
	}
	if err := old.Remove(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Bytes != 0 {
		t.Fatalf("%+v", st)
	}
}
