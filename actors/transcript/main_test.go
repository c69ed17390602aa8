package transcript

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if run := os.Getenv(helperEnv); run != "" {
		os.Exit(runHelper(run))
	}
	goleak.VerifyTestMain(m)
}

func openStore(t testing.TB, budget int64) *Store {
	t.Helper()
	s, err := Open(Config{Dir: filepath.Join(t.TempDir(), "transcripts"), Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run is a stretch of one stream; marks and gaps have their own.
type run struct {
	stream    Stream
	truncated bool
	data      string
	gap       int64
	mark      any
}

// join appends r, joining what a reader may get joined or not.
func join(runs []run, r run) []run {
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		plain := func(r run) bool { return r.mark == nil && r.gap == 0 && !r.truncated }
		if plain(*last) && plain(r) && last.stream == r.stream {
			last.data += r.data
			return runs
		}
		// The parts of one truncated line: it ends with the marker's newline.
		if last.truncated && r.truncated && last.stream == r.stream && !strings.HasSuffix(last.data, "\n") {
			last.data += r.data
			return runs
		}
	}
	return append(runs, r)
}

// readFrom reads t from an offset until ErrWait or io.EOF, which it returns, checking every piece's
// offset.
func readFrom(t testing.TB, tr *Transcript, after int64, size int) ([]run, error) {
	t.Helper()
	c, err := tr.Cursor(after, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return drain(t, c, size)
}

func drain(t testing.TB, c *Cursor, size int) ([]run, error) {
	t.Helper()
	var runs []run
	buf := make([]byte, size)
	at := c.Offset()
	for {
		p, err := c.Next(buf)
		if err != nil {
			if err != io.EOF && err != ErrWait {
				t.Fatalf("Next: %v", err)
			}
			return runs, err
		}
		at += int64(len(p.Data)) + p.Gap
		if p.Offset != at || c.Offset() != at {
			t.Fatalf("piece ends at %d, Offset says %d, want %d", p.Offset, c.Offset(), at)
		}
		if len(p.Data) == 0 && p.Gap == 0 && p.Mark == nil {
			t.Fatal("empty piece")
		}
		if len(p.Data) > 0 && &p.Data[0] != &buf[0] {
			t.Fatal("Data is not the front of buf")
		}
		runs = join(runs, run{p.Stream, p.Truncated, string(p.Data), p.Gap, p.Mark})
	}
}

func sameRuns(t testing.TB, got, want []run) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d runs, want %d\ngot  %s\nwant %s", len(got), len(want), show(got), show(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("run %d\ngot  %s\nwant %s", i, show(got[i:i+1]), show(want[i:i+1]))
		}
	}
}

func show(runs []run) string {
	var b strings.Builder
	for _, r := range runs {
		d := r.data
		if len(d) > 120 {
			d = d[:60] + "…" + d[len(d)-60:]
		}
		b.WriteString(strings.Join([]string{r.stream.String(), quote(d)}, " "))
		if r.truncated {
			b.WriteString(" truncated")
		}
		if r.gap != 0 || r.mark != nil {
			b.WriteString(" gap or mark")
		}
		b.WriteString("; ")
	}
	return b.String()
}

func quote(s string) string { return strings.ReplaceAll(s, "\n", "⏎") }

func text(runs []run) string {
	var b strings.Builder
	for _, r := range runs {
		b.WriteString(r.data)
	}
	return b.String()
}

// balance checks the accounting identity of the package comment.
func balance(t testing.TB, tr *Transcript, produced int64) {
	t.Helper()
	c := tr.Counts()
	if sum := c.OutputBytes - 12*c.TruncatedLines + c.TruncatedBytes + c.DroppedBytes; sum != produced {
		t.Fatalf("%d bytes were produced, %d accounted for: %+v", produced, sum, c)
	}
	if c.OutputBytes != tr.End() {
		t.Fatalf("OutputBytes %d, End %d", c.OutputBytes, tr.End())
	}
}

// disk returns the bytes and the number of transcript files in the store's directory.
func disk(t testing.TB, s *Store) (size int64, files int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // Evicted just now.
		}
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
		files++
	}
	return size, files
}

func fill(n int) string { return string(bytes.Repeat([]byte("x"), n)) }

func write(t testing.TB, w *Writer, s string) {
	t.Helper()
	if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}
