package transcript

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenSaysWhatWouldBeRight(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := Open(Config{Dir: filepath.Join(base, "held"), Budget: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	for name, tc := range map[string]struct {
		cfg  Config
		want []string
	}{
		"no dir":       {Config{Budget: 1}, []string{"Dir is empty", "name a directory"}},
		"no budget":    {Config{Dir: base}, []string{"Budget is 0", "2147483648"}},
		"a file":       {Config{Dir: file, Budget: 1}, []string{file, "not a directory"}},
		"below a file": {Config{Dir: filepath.Join(file, "x"), Budget: 1}, []string{file, "name a directory"}},
		"missing parent": {
			Config{Dir: filepath.Join(base, "a", "b"), Budget: 1},
			[]string{filepath.Join(base, "a") + " does not exist"},
		},
		"in use":       {Config{Dir: filepath.Join(base, "held"), Budget: 1}, []string{"in use by another process"}},
		"not writable": {Config{Dir: "/proc/self", Budget: 1}, []string{"/proc/self", "cannot write", "make it writable"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(tc.cfg)
			if err == nil {
				_ = s.Close()
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	s := openStore(t, 1<<20)
	tr := s.Create("../../../escape", Options{Limit: 100})
	write(t, tr.Writer(Stdout, WriterConfig{}), "x")
	for path, want := range map[string]os.FileMode{s.dir: 0o700 | os.ModeDir, tr.path: 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, want)
		}
	}
	if filepath.Dir(tr.path) != s.dir {
		t.Errorf("a name chosen by a client leads to %s", tr.path)
	}
}

// Open removes the files of a killed process, which would use disk that no budget knows of. It
// leaves files that are not its own.
func TestOpenRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	left, other := filepath.Join(dir, "7"+suffix), filepath.Join(dir, "notes.txt")
	for _, p := range []string{left, other} {
		if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(Config{Dir: dir, Budget: 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error("the leftover is still there")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != "notes.txt" {
		t.Errorf("left in the directory: %v", entries)
	}
}

func TestSilentCommandDoesNoDiskIO(t *testing.T) {
	s := openStore(t, 1<<20)
	tr := s.Create("t", Options{Limit: 100})
	w := tr.Writer(Stdout, WriterConfig{Lines: true})
	_, _ = w.Write(nil)
	w.Flush()
	w.Close()
	tr.Mark("completed")
	tr.Seal()
	if runs, _ := readFrom(t, tr, 0, 10); len(runs) != 1 {
		t.Fatalf("got %v", runs)
	}
	if _, files := disk(t, s); files != 0 {
		t.Fatal("there is a file")
	}
	if err := tr.Remove(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	s := openStore(t, 1<<20)
	live, done := s.Create("live", Options{Limit: 100}), s.Create("done", Options{Limit: 100})
	lw := live.Writer(Stdout, WriterConfig{})
	write(t, lw, "abc")
	write(t, done.Writer(Stdout, WriterConfig{}), "def")
	done.Seal()
	if st := s.Stats(); st.Transcripts != 2 || st.Bytes != 8 {
		t.Fatalf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Fatal("the directory is still there")
	}
	write(t, lw, "more")
	lw.Close()
	balance(t, live, 7)
	runs, _ := readFrom(t, live, 1, 10)
	sameRuns(t, runs, []run{{gap: 2}})
	after := s.Create("after", Options{Limit: 100})
	write(t, after.Writer(Stdout, WriterConfig{}), "x")
	if c := after.Counts(); c.DroppedBytes != 1 {
		t.Fatalf("%+v", c)
	}
	if st := s.Stats(); st.Bytes != 0 {
		t.Fatalf("%+v", st)
	}
}

// An execution may run for days, so the statistics show while it runs what it prints and what it
// loses, by cause.
func TestStoreCountsOutputAsItComes(t *testing.T) {
	s := openStore(t, 200)
	lines := WriterConfig{Lines: true, MaxLine: 4}
	over := s.Create("over its limit", Options{Limit: 12})
	w := over.Writer(Stdout, lines)
	write(t, w, "1234\n5678\n")
	if got := s.Stats(); got.OutputBytes != 10 || got.DroppedBytes != [DropClosed + 1]int64{} {
		t.Fatalf("before the limit: %+v", got)
	}
	write(t, w, "abcd\nef\n")
	budget := s.Create("over the budget", Options{Limit: 1 << 20}).Writer(Stdout, WriterConfig{})
	write(t, budget, fill(300))
	gone := s.Create("removed", Options{Limit: 100})
	if err := gone.Remove(); err != nil {
		t.Fatal(err)
	}
	write(t, gone.Writer(Stderr, lines), "late\n")
	cut := s.Create("cut", Options{Limit: 100}).Writer(Stdout, lines)
	write(t, cut, "12345\n")
	s.pwritev = func(int, [][]byte, int64) (int, error) { return 0, unix.EIO }
	write(t, s.Create("broken", Options{Limit: 100}).Writer(Stdout, lines), "x\ny\n")

	got := s.Stats()
	wantLines := [DropClosed + 1]int64{DropLimit: 2, DropWrite: 2, DropBudget: 1, DropClosed: 1}
	wantBytes := [DropClosed + 1]int64{DropLimit: 8, DropWrite: 4, DropBudget: 300, DropClosed: 5}
	if got.DroppedLines != wantLines || got.DroppedBytes != wantBytes {
		t.Errorf("dropped lines %v and bytes %v by reason, want %v and %v", got.DroppedLines, got.DroppedBytes, wantLines,
			wantBytes)
	}
	if want := int64(10 + len("1234[TRUNCATED]\n")); got.OutputBytes != want || got.TruncatedLines != 1 {
		t.Errorf("%d bytes and %d truncated lines, want %d and 1", got.OutputBytes, got.TruncatedLines, want)
	}
}

// The log names the session and the execution with the keys that all other logs use, so that a
// search finds them.
func TestLogNamesSessionAndExecution(t *testing.T) {
	var out bytes.Buffer
	s, err := Open(Config{
		Dir: filepath.Join(t.TempDir(), "t"), Budget: 1000,
		Logger: slog.New(slog.NewTextHandler(&out, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.pwritev = func(int, [][]byte, int64) (int, error) { return 0, unix.EIO }
	write(t, s.Create("pod-0.5f2c/build-1", Options{Limit: 100}).Writer(Stdout, WriterConfig{}), "x")
	if !strings.Contains(out.String(), " session=pod-0.5f2c execution=build-1 ") {
		t.Error(out.String())
	}
}
