package transcript

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"sync"
	"testing"
)

// script appends random records of both streams with marks between them, and returns what must be
// read back.
func script(t testing.TB, tr *Transcript, rng *rand.Rand, n int) []run {
	t.Helper()
	var want []run
	for i := range n {
		size := 1 + rng.Intn(40)
		if rng.Intn(8) == 0 {
			size = 1 + rng.Intn(30_000)
		}
		data := []byte(fmt.Sprintf("%d:", i) + strings.Repeat(string(rune('a'+i%26)), size) + "\n")
		c := chunk{stream: Stream(rng.Intn(2)), held: data[:1], body: data[1:]}
		if rng.Intn(10) == 0 {
			c.truncated, c.marker = true, marker
		}
		if got := tr.append(c); got != c.size() {
			t.Fatalf("append: %d", got)
		}
		r := run{stream: c.stream, truncated: len(c.marker) > 0, data: string(data) + string(c.marker)}
		if r.truncated { // Its own run even beside another: keep the parts together, the lines apart.
			want = append(want, r)
		} else {
			want = join(want, r)
		}
		if rng.Intn(20) == 0 {
			tr.Mark(i + 1)
			want = append(want, run{mark: i + 1})
		}
	}
	return want
}

func TestAnyOffsetAndAnyBufferGiveTheSameBytes(t *testing.T) {
	s := openStore(t, 1<<30)
	rng := rand.New(rand.NewSource(2))
	tr := s.Create("t", Options{Limit: 1 << 30})
	want := script(t, tr, rng, 600)
	all := text(want)
	if tr.index.len() < 5 {
		t.Fatalf("only %d index entries: the search is not tested", tr.index.len())
	}
	for _, sealed := range []bool{false, true} {
		if sealed {
			tr.Seal()
		}
		got, err := readFrom(t, tr, 0, 64<<10)
		if (err == io.EOF) != sealed {
			t.Fatal(err)
		}
		sameRuns(t, got, want)
		for range 80 {
			after := rng.Intn(len(all) + 1)
			size := []int{1 + rng.Intn(4), 1 + rng.Intn(300), 1 + rng.Intn(100_000)}[rng.Intn(3)]
			if size < 5 {
				after = max(after, len(all)-3000)
			}
			rejoins(t, tr, after, size, all)
		}
	}
}

// rejoins checks that the pieces from an offset on are all[after:].
func rejoins(t testing.TB, tr *Transcript, after, size int, all string) {
	t.Helper()
	c, err := tr.Cursor(int64(after), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, size)
	at := after
	for {
		p, err := c.Next(buf)
		if err != nil {
			break
		}
		if !strings.HasPrefix(all[at:], string(p.Data)) || p.Gap != 0 {
			t.Fatalf("from %d with %d bytes of buffer: at %d not what was written", after, size, at)
		}
		at += len(p.Data)
	}
	if at != len(all) {
		t.Fatalf("from %d with %d bytes of buffer: ended at %d of %d", after, size, at, len(all))
	}
}

func TestNextJoinsRecordsOfOneStream(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 30})
	out, err := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 10}), tr.Writer(Stderr, WriterConfig{Lines: true})
	for range 1000 {
		write(t, out, "line\n")
	}
	write(t, err, "error\n")
	write(t, out, "more\n12345678901\nlast\n")
	c, _ := tr.Cursor(0, nil)
	defer c.Close()
	buf := make([]byte, 64<<10)
	for _, want := range []Piece{
		{Stream: Stdout, Data: []byte(strings.Repeat("line\n", 1000)), Offset: 5000},
		{Stream: Stderr, Data: []byte("error\n"), Offset: 5006},
		{Stream: Stdout, Data: []byte("more\n"), Offset: 5011},
		{Stream: Stdout, Data: []byte("1234567890[TRUNCATED]\n"), Truncated: true, Offset: 5033},
		{Stream: Stdout, Data: []byte("last\n"), Offset: 5038},
	} {
		p, err := c.Next(buf)
		if err != nil || p.Stream != want.Stream || string(p.Data) != string(want.Data) ||
			p.Truncated != want.Truncated || p.Offset != want.Offset {
			t.Fatalf("got %+v %v, want %+v", p, err, want)
		}
	}
}

// A reader sees the marks in order and each of them once, also when it resumes exactly at one.
func TestMarksAreSeenOnceAndInOrder(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 30})
	w := tr.Writer(Stdout, WriterConfig{})
	tr.Mark("start")
	write(t, w, "abc")
	tr.Mark("one")
	tr.Mark("two")
	tr.Mark(nil)
	write(t, w, "def")
	tr.Mark("end")
	tr.Seal()
	tr.Mark("late")
	for after, want := range map[int64]string{
		0: "start abc one two def end", 1: "bc one two def end", 3: "one two def end",
		4: "ef end", 6: "end",
	} {
		for _, size := range []int{1, 2, 100} {
			runs, err := readFrom(t, tr, after, size)
			if err != io.EOF {
				t.Fatal(err)
			}
			var got []string
			for _, r := range runs {
				if r.mark != nil {
					got = append(got, r.mark.(string))
				} else {
					got = append(got, r.data)
				}
			}
			if strings.Join(got, " ") != want {
				t.Fatalf("after %d: got %q, want %q", after, got, want)
			}
		}
	}
}

func TestCursorRefusesOffsetsThatDoNotExist(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 30})
	write(t, tr.Writer(Stdout, WriterConfig{}), "abc")
	for _, after := range []int64{-1, 4} {
		if _, err := tr.Cursor(after, nil); !errors.Is(err, ErrOffset) {
			t.Fatalf("after %d: %v", after, err)
		}
	}
	c, err := tr.Cursor(3, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(nil); err != io.ErrShortBuffer {
		t.Fatal(err)
	}
	c.Close()
	c.Close()
	if _, err := c.Next(make([]byte, 1)); err != ErrClosed {
		t.Fatal(err)
	}
}

// The cursor calls notify once for each ErrWait, for bytes, marks, Seal and Remove. It does not
// call it without an ErrWait, nor after Close.
func TestNotifyComesOncePerWait(t *testing.T) {
	s := openStore(t, 1<<30)
	buf := make([]byte, 100)
	for name, happen := range map[string]func(*Transcript, *Writer){
		"bytes":  func(_ *Transcript, w *Writer) { _, _ = w.Write([]byte("x")) },
		"mark":   func(tr *Transcript, _ *Writer) { tr.Mark(1) },
		"seal":   func(tr *Transcript, _ *Writer) { tr.Seal() },
		"remove": func(tr *Transcript, _ *Writer) { _ = tr.Remove() },
		"drop":   func(_ *Transcript, w *Writer) { _, _ = w.Write(make([]byte, 200)) },
	} {
		tr := s.Create("t", Options{Limit: 100})
		dropMarks(tr)
		w := tr.Writer(Stdout, WriterConfig{})
		calls := 0
		c, _ := tr.Cursor(0, func() { calls++ })
		closed, _ := tr.Cursor(0, func() { t.Errorf("%s: notified after Close", name) })
		for range 2 { // Waiting twice is waiting once.
			if _, err := c.Next(buf); err != ErrWait {
				t.Fatal(err)
			}
		}
		if _, err := closed.Next(buf); err != ErrWait {
			t.Fatal(err)
		}
		closed.Close()
		happen(tr, w)
		happen(tr, w)
		if calls != 1 {
			t.Fatalf("%s: %d calls", name, calls)
		}
		if _, err := c.Next(buf); err == ErrWait {
			t.Fatalf("%s: notified for nothing", name)
		}
		c.Close()
	}
}

// A lost wakeup hangs this test.
func TestNoWakeupIsLost(t *testing.T) {
	s := openStore(t, 1<<30)
	const total = 20_000
	for _, readers := range []int{1, 12} {
		tr := s.Create("t", Options{Limit: 1 << 30})
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				ready := make(chan struct{}, 1)
				c, err := tr.Cursor(0, func() { ready <- struct{}{} }) // Blocks, and fails, if called too often.
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				buf := make([]byte, 1000)
				for {
					_, err := c.Next(buf)
					if err == io.EOF {
						break
					}
					if err == ErrWait {
						<-ready
					}
				}
				if c.Offset() != total {
					t.Errorf("read %d bytes", c.Offset())
				}
			})
		}
		for _, stream := range []Stream{Stdout, Stderr} {
			wg.Go(func() {
				w := tr.Writer(stream, WriterConfig{})
				for range total / 2 / 5 {
					_, _ = w.Write([]byte("12345"))
				}
			})
		}
		wg.Go(func() {
			for tr.End() < total {
				ready := make(chan struct{}, 1)
				c, _ := tr.Cursor(tr.End(), func() { ready <- struct{}{} })
				if _, err := c.Next(make([]byte, 1)); err == ErrWait && tr.End() < total {
					<-ready
				}
				c.Close()
			}
			tr.Seal()
		})
		wg.Wait()
	}
}

// Two readers, one slow and one fast, both see everything while two writers are at work.
func TestReadersDoNotDisturbEachOther(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 30})
	var writers, readers sync.WaitGroup
	lines := 4000
	for _, stream := range []Stream{Stdout, Stderr} {
		writers.Go(func() {
			w := tr.Writer(stream, WriterConfig{Lines: true})
			for i := range lines {
				_, _ = fmt.Fprintf(w, "%s %d\npart", stream, i)
			}
			w.Close()
		})
	}
	for _, size := range []int{7, 300, 64 << 10} {
		readers.Go(func() {
			ready := make(chan struct{}, 1)
			c, _ := tr.Cursor(0, func() { ready <- struct{}{} })
			defer c.Close()
			var got [2]strings.Builder
			buf := make([]byte, size)
			for {
				p, err := c.Next(buf)
				if err == ErrWait {
					<-ready
					continue
				}
				if err != nil {
					break
				}
				got[p.Stream].Write(p.Data)
			}
			for _, stream := range []Stream{Stdout, Stderr} {
				want := &strings.Builder{}
				for i := range lines {
					fmt.Fprintf(want, "%s %d\npart", stream, i)
				}
				if got[stream].String() != want.String() {
					t.Errorf("buffer %d: %s is not what was written", size, stream)
				}
			}
		})
	}
	writers.Wait()
	tr.Seal()
	readers.Wait()
}
