package transcript

import (
	"bytes"
	"io"
	"math/rand"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// numbered returns up to 1 MiB of a sequence from an offset. It repeats after a number of bytes that
// no block, window or buffer is a multiple of.
func numbered(from int64, n int) []byte { return sequence[from%sequencePeriod:][:n] }

const sequencePeriod = 1<<20 - 3

var sequence = func() []byte {
	b := make([]byte, sequencePeriod, 2<<20)
	rand.New(rand.NewSource(7)).Read(b)
	return append(b, b...)
}()

// await polls for a condition that another goroutine brings about.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func blocked(tr *Transcript) bool {
	_, yes := tr.Blocked()
	return yes
}

// follow reads tr to its end and calls seen with each piece.
func follow(t testing.TB, tr *Transcript, size int, seen func(Piece)) {
	t.Helper()
	ready := make(chan struct{}, 1)
	c, err := tr.Cursor(0, func() { ready <- struct{}{} })
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	buf := make([]byte, size)
	for {
		p, err := c.Next(buf)
		switch err {
		case nil:
			seen(p)
		case ErrWait:
			<-ready
		case io.EOF:
			return
		default:
			t.Error(err)
			return
		}
	}
}

// 300 MB flow through, to a reader that acknowledges late: nothing is lost, and the file stays below
// 4 MiB.
func TestUnreadLosesNothingOnLittleDisk(t *testing.T) {
	const total = 300 << 20
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Unread})
	tr.OnDrop(func(r DropReason, at int64) any { t.Errorf("dropped at %d: %s", at, r); return nil })
	var writer sync.WaitGroup
	writer.Go(func() {
		w := tr.Writer(Stdout, WriterConfig{})
		for at := int64(0); at < total; {
			n := int(min(1+at%(64<<10), total-at))
			_, _ = w.Write(numbered(at, n))
			at += int64(n)
		}
		w.Close()
		tr.Seal()
	})
	at, acked, most := int64(0), int64(0), int64(0)
	follow(t, tr, 64<<10, func(p Piece) {
		if p.Gap != 0 || !bytes.Equal(p.Data, numbered(at, len(p.Data))) {
			t.Fatalf("at %d: gap %d, or not what was written", at, p.Gap)
		}
		at = p.Offset
		if at-acked > UnreadWindow/2 {
			size, files := disk(t, s)
			most = max(most, size)
			if st := s.Stats(); files != 1 || st.Bytes < size {
				t.Fatalf("%d files, %d bytes, %+v", files, size, st)
			}
			acked = at - 1000
			tr.Ack(acked)
		}
	})
	writer.Wait()
	if c := tr.Counts(); at != total || c != (Counts{OutputBytes: total}) {
		t.Errorf("read %d, %+v", at, c)
	}
	if most >= 4<<20 || most < UnreadWindow {
		t.Errorf("%d bytes on disk", most)
	}
	tr.Ack(total)
	if size, files := disk(t, s); size != 0 || files != 0 || s.Stats().Bytes != 0 {
		t.Errorf("%d bytes in %d files after everything was acknowledged, %+v", size, files, s.Stats())
	}
}

// The writer waits at the window, not before, and only for an Ack.
func TestUnreadWriterWaitsAtTheWindow(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Unread})
	out, stderr := tr.Writer(Stdout, WriterConfig{}), tr.Writer(Stderr, WriterConfig{})
	write(t, out, fill(UnreadWindow-1))
	write(t, out, "x")
	var writers sync.WaitGroup
	writers.Go(func() { _, _ = out.Write([]byte("more")) })
	await(t, "the writer waits", func() bool { return blocked(tr) })
	since, _ := tr.Blocked()
	writers.Go(func() { _, _ = stderr.Write([]byte("even more")) })
	await(t, "both wait", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.recycled.waiting == 2
	})
	if again, _ := tr.Blocked(); again != since || time.Since(since) < 0 {
		t.Errorf("blocked since %v, then since %v", since, again)
	}
	// Everything else works meanwhile.
	tr.Mark("mark")
	other := sealedWith(t, s, "other", "data")
	if runs, _ := readFrom(t, other, 0, 10); text(runs) != "data" {
		t.Error("another transcript is held up")
	}
	runs, _ := readFrom(t, tr, 0, 64<<10)
	sameRuns(t, runs, []run{{data: fill(UnreadWindow)}, {mark: "mark"}})
	if end := tr.End(); end != UnreadWindow || tr.Counts().OutputBytes != end {
		t.Errorf("%d bytes were taken", end)
	}
	tr.Ack(0)
	tr.Ack(-5)
	if !blocked(tr) {
		t.Fatal("an Ack of nothing made room")
	}
	tr.Ack(1 << 40) // Acknowledges the end, not what comes later.
	writers.Wait()
	if blocked(tr) {
		t.Error("still blocked")
	}
	runs, _ = readFrom(t, tr, 0, 100)
	if len(runs) == 0 || runs[0].gap != UnreadWindow || len(text(runs)) != 13 {
		t.Errorf("got %s", show(runs))
	}
}

// A command must be killed and reported while its output waits: whatever ends a transcript, or says
// that its tree is dead, ends the wait.
func TestUnreadWaitEnds(t *testing.T) {
	for name, end := range map[string]func(*Store, *Transcript){
		"Unblock": func(_ *Store, tr *Transcript) { tr.Unblock() },
		"Seal":    func(_ *Store, tr *Transcript) { tr.Seal() },
		"Remove":  func(_ *Store, tr *Transcript) { _ = tr.Remove() },
		"Close":   func(s *Store, _ *Transcript) { _ = s.Close() },
		"a full disk for the other stream": func(s *Store, tr *Transcript) {
			tr.Ack(1)
			_, _ = tr.Writer(Stderr, WriterConfig{}).Write([]byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, 1<<30)
			tr := s.Create("t", Options{Retain: Unread})
			w := tr.Writer(Stdout, WriterConfig{})
			write(t, w, fill(UnreadWindow))
			if name == "a full disk for the other stream" {
				s.pwritev = func(int, [][]byte, int64) (int, error) { return 0, unix.ENOSPC }
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = w.Write([]byte(fill(200_000)))
				w.Close()
			}()
			await(t, "the writer waits", func() bool { return blocked(tr) })
			end(s, tr)
			<-done
			c := tr.Counts()
			if sum := c.OutputBytes + c.DroppedBytes; name == "Unblock" && c.DroppedBytes != 0 ||
				sum < UnreadWindow+200_000 || sum > UnreadWindow+200_001 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// What a pipe may still hold is taken once the tree is dead: 1 MiB for each stream, which is the
// most that a command may set its pipes to. More is dropped, and said: something outside of the tree
// may hold the pipe and write on.
func TestUnreadAfterTheTreeIsDead(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Unread})
	calls := dropMarks(tr)
	w := tr.Writer(Stdout, WriterConfig{})
	write(t, w, fill(UnreadWindow))
	tr.Unblock()
	for range 34 {
		write(t, w, fill(64<<10))
	}
	if c := tr.Counts(); c.DroppedBytes != 0 {
		t.Fatalf("%+v", c)
	}
	for range 100 {
		write(t, w, fill(64<<10))
	}
	w.Close()
	tr.Seal()
	balance(t, tr, UnreadWindow+134*64<<10)
	if size, _ := disk(t, s); size >= 4<<20 || *calls != 1 || tr.Counts().DroppedBytes == 0 {
		t.Errorf("%d bytes on disk, OnDrop called %d times, %+v", size, *calls, tr.Counts())
	}
	runs, err := readFrom(t, tr, 0, 64<<10)
	if err != io.EOF || int64(len(text(runs))) != tr.End() {
		t.Errorf("%v, %d of %d bytes can be read", err, len(text(runs)), tr.End())
	}
}

// Single bytes cost the most headers: the file of a full window of them stays below 4 MiB as well.
func TestUnreadSingleBytes(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Unread})
	write(t, tr.Writer(Stderr, WriterConfig{}), "y")
	pwritev := s.pwritev
	s.pwritev = func(_ int, parts [][]byte, _ int64) (n int, _ error) { // A million writes would take seconds.
		for _, p := range parts {
			n += len(p)
		}
		return n, nil
	}
	w := tr.Writer(Stdout, WriterConfig{})
	for range 2 {
		for end := tr.End(); tr.End() < end+UnreadWindow-1; {
			_, _ = w.Write([]byte("x"))
		}
		if n := s.Stats().Bytes; n < 2*UnreadWindow || n > 3<<20 {
			t.Fatalf("%d bytes of file", n)
		}
		tr.Ack(tr.End() - 1)
	}
	tr.Ack(tr.End())
	s.pwritev = pwritev
	write(t, w, "z")
	runs, _ := readFrom(t, tr, tr.End()-1, 10)
	sameRuns(t, runs, []run{{data: "z"}})
}

// A reader that comes late gets the newest bytes, exactly, and a gap in place of the others.
func TestLastKeepsTheNewest(t *testing.T) {
	const scrollback = 100_000
	for _, piece := range []int{1, 31, 32, 4096, 64 << 10, 1 << 20} {
		s := openStore(t, 1<<30)
		tr := s.Create("t", Options{Retain: Last, Scrollback: scrollback})
		w := tr.Writer(Stdout, WriterConfig{})
		total := int64(0)
		for total < 400_000 {
			_, _ = w.Write(numbered(total, piece))
			total += int64(piece)
		}
		w.Close()
		for _, sealed := range []bool{false, true} {
			if sealed {
				tr.Seal()
			}
			want := []run{{gap: total - scrollback}, {data: string(numbered(total-scrollback, scrollback))}}
			for _, size := range []int{1000, 1 << 20} {
				runs, _ := readFrom(t, tr, 0, size)
				sameRuns(t, runs, want)
			}
			runs, _ := readFrom(t, tr, total-5, 10)
			sameRuns(t, runs, []run{{data: string(numbered(total-5, 5))}})
		}
		most := int64(scrollback + 4*blockSize)
		if piece == 1 {
			most += scrollback // A header for each byte.
		}
		if size, files := disk(t, s); size != s.Stats().Bytes || size > most || files != 1 {
			t.Fatalf("pieces of %d: %d bytes in %d files, %+v", piece, size, files, s.Stats())
		}
		balance(t, tr, total)
	}
}

// The memory of a transcript that runs for days does not grow: neither its index nor its marks.
func TestLastHasBoundedMemory(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 64 << 10})
	w := tr.Writer(Stdout, WriterConfig{})
	piece := make([]byte, 64<<10)
	for i := range 20_000 {
		_, _ = w.Write(piece)
		for range 10 {
			tr.Mark(i)
		}
	}
	r := tr.recycled
	for what, n := range map[string]int{
		"index": cap(tr.index.items), "blocks": cap(r.slots.items), "free blocks": cap(r.free.items), "slots": int(r.next),
	} {
		if n > 32 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if n := cap(tr.marks); len(tr.marks) != maxMarks || n > 4*maxMarks {
		t.Errorf("%d marks in %d places", len(tr.marks), n)
	}
	if size, _ := disk(t, s); size > 256<<10 {
		t.Errorf("%d bytes on disk", size)
	}
	runs, _ := readFrom(t, tr, tr.End(), 10)
	if len(runs) == 0 || runs[len(runs)-1].mark != 19_999 {
		t.Error("the newest mark is missing")
	}
}

// A reader that is overtaken all the time still sees bytes that were written, in place.
func TestSlowReadersOfLast(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 256 << 10})
	var readers sync.WaitGroup
	for _, size := range []int{100, 5000, 200_000} {
		readers.Go(func() {
			at, got := int64(0), int64(0)
			follow(t, tr, size, func(p Piece) {
				at += p.Gap
				if !bytes.Equal(p.Data, numbered(at, len(p.Data))) {
					t.Errorf("at %d: not what was written", at)
				}
				at += int64(len(p.Data))
				got += int64(len(p.Data))
				if at != p.Offset {
					t.Errorf("at %d, the piece says %d", at, p.Offset)
				}
			})
			if at != tr.End() || got < 256<<10 {
				t.Errorf("ended at %d of %d with %d bytes read", at, tr.End(), got)
			}
		})
	}
	w := tr.Writer(Stdout, WriterConfig{})
	for at := int64(0); at < 100<<20; {
		n := 1 + int(at*7919%(64<<10))
		_, _ = w.Write(numbered(at, n))
		at += int64(n)
	}
	w.Close()
	tr.Seal()
	readers.Wait()
	if st := s.Stats(); st.ReadFailures != 0 {
		t.Errorf("%+v", st)
	}
}

// A Last transcript that cannot grow gives its oldest bytes for the newest, whether the budget or
// the disk is short.
func TestLastThatCannotGrowKeepsLess(t *testing.T) {
	for name, room := range map[string]func(s *Store){
		"budget": func(*Store) {},
		"disk": func(s *Store) {
			s.budget = 1 << 30
			s.fallocate = func(fd int, at, size int64) error {
				if at+size > 300_000 {
					return unix.ENOSPC
				}
				return unix.Fallocate(fd, 0, at, size)
			}
		},
		"disk without fallocate": func(s *Store) {
			s.fallocate = func(int, int64, int64) error { return unix.EOPNOTSUPP }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, 300_000)
			room(s)
			tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20})
			calls := dropMarks(tr)
			w := tr.Writer(Stdout, WriterConfig{})
			for at := int64(0); at < 5_000_000; at += 5000 {
				_, _ = w.Write(numbered(at, 5000))
			}
			runs, _ := readFrom(t, tr, 0, 1<<20)
			if len(runs) != 2 || len(runs[1].data) < 100_000 ||
				runs[1].data != string(numbered(runs[0].gap, 5_000_000-int(runs[0].gap))) {
				t.Errorf("got %s", show(runs))
			}
			size, _ := disk(t, s)
			if *calls != 0 || size != s.Stats().Bytes || size > 300_000 || s.Stats().WriteFailures != 0 {
				t.Errorf("%d bytes on disk, OnDrop called %d times, %+v", size, *calls, s.Stats())
			}
			addsUp(t, s)
		})
	}
}

// A spent budget and a full disk drop the output of an Unread transcript, say so, and leave what was
// stored readable.
func TestUnreadDropsWhenItCannotStore(t *testing.T) {
	for name, tc := range map[string]struct {
		fail   func(*Store)
		reason DropReason
	}{
		"budget": {func(s *Store) { s.budget = 150_000 }, DropBudget},
		"disk":   {func(s *Store) { failing(s, 3, 10, unix.ENOSPC) }, DropWrite},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, 1<<30)
			tc.fail(s)
			tr := s.Create("t", Options{Retain: Unread})
			calls := dropMarks(tr)
			w := tr.Writer(Stdout, WriterConfig{})
			write(t, w, fill(300_000))
			w.Close()
			tr.Seal()
			balance(t, tr, 300_000)
			runs, err := readFrom(t, tr, 0, 1<<20)
			want := dropped{tc.reason, 2 * maxRecycled}
			sameRuns(t, runs, []run{{data: fill(2 * maxRecycled)}, {mark: want}})
			size, _ := disk(t, s)
			if err != io.EOF || *calls != 1 || size != s.Stats().Bytes {
				t.Errorf("%v, OnDrop called %d times, %d bytes on disk, %+v", err, *calls, size, s.Stats())
			}
			addsUp(t, s)
		})
	}
}

// Two writers wait for one reader, an observer looks on, and marks come at any time: the reader gets
// both streams whole and in order, however small its acknowledged steps are.
func TestUnreadWithTwoWritersAndAnObserver(t *testing.T) {
	const each = 8 << 20
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Unread})
	var writers, observers sync.WaitGroup
	for _, stream := range []Stream{Stdout, Stderr} {
		writers.Go(func() {
			w := tr.Writer(stream, WriterConfig{})
			for at := int64(0); at < each; {
				n := min(1+at*31%(100<<10), each-at)
				_, _ = w.Write(numbered(at, int(n)))
				at += n
			}
			w.Close()
		})
	}
	observers.Go(func() { follow(t, tr, 3000, func(Piece) {}) })
	go func() {
		writers.Wait()
		tr.Mark("end")
		tr.Seal()
	}()
	var got [2]int64
	marks := 0
	follow(t, tr, 50_000, func(p Piece) {
		if p.Mark != nil {
			marks++
			return
		}
		if at := got[p.Stream]; p.Gap != 0 || !bytes.Equal(p.Data, numbered(at, len(p.Data))) {
			t.Fatalf("%s at %d: gap %d, or not what was written", p.Stream, at, p.Gap)
		}
		got[p.Stream] += int64(len(p.Data))
		tr.Ack(p.Offset)
	})
	observers.Wait()
	if got != [2]int64{each, each} || marks != 1 || s.Stats().Bytes != 0 {
		t.Errorf("read %d and %d bytes, %d marks, %+v", got[0], got[1], marks, s.Stats())
	}
}
