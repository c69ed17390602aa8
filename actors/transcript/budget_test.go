package transcript

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// sealedWith makes a sealed transcript of one record.
func sealedWith(t testing.TB, s *Store, name, data string) *Transcript {
	t.Helper()
	tr := s.Create(name, Options{Limit: 1 << 30})
	write(t, tr.Writer(Stdout, WriterConfig{}), data)
	tr.Mark(name)
	tr.Seal()
	return tr
}

// addsUp checks that the store's sums are those of its transcripts.
func addsUp(t *testing.T, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	type sums struct {
		used, evictable int64
		transcripts     int
	}
	var all sums
	each := map[string]sums{}
	for tr := range s.all {
		sum := each[tr.owner.name]
		sum.used, sum.transcripts = sum.used+tr.disk, sum.transcripts+1
		if tr.place != nil {
			sum.evictable += tr.disk
			all.evictable += tr.disk
		}
		all.used += tr.disk
		each[tr.owner.name] = sum
	}
	if all.used != s.used || all.evictable != s.evictable || s.chosen != 0 || len(each) != len(s.owners) {
		t.Errorf("used %d, evictable %d, chosen %d, %d owners; transcripts sum up to %+v of %d", s.used, s.evictable,
			s.chosen, len(s.owners), all, len(each))
	}
	for name, o := range s.owners {
		if got := (sums{o.used, o.evictable, o.transcripts}); got != each[name] || o.chosen != 0 || o.next != nil {
			t.Errorf("owner %q has %+v, its transcripts sum up to %+v", name, got, each[name])
		}
	}
}

func TestOldestSealedGivesWay(t *testing.T) {
	const record = 100 + longHeader
	s := openStore(t, 4*record)
	live := s.Create("live", Options{Limit: 1 << 20})
	lw := live.Writer(Stdout, WriterConfig{})
	write(t, lw, fill(100)) // The oldest, but not sealed.
	first, second := sealedWith(t, s, "first", fill(100)), sealedWith(t, s, "second", fill(100))
	inside, _ := first.Cursor(0, nil)
	defer inside.Close()
	if p, err := inside.Next(make([]byte, 40)); len(p.Data) != 40 || err != nil {
		t.Fatal(err)
	}
	write(t, lw, fill(100))
	if st := s.Stats(); st.Evicted != 0 || st.Bytes != 4*record {
		t.Fatalf("%+v", st)
	}
	write(t, lw, fill(100))
	if st := s.Stats(); st.Evicted != 1 || st.EvictedBytes != record || st.Bytes != 4*record {
		t.Fatalf("%+v", st)
	}
	runs, err := drain(t, inside, 40)
	sameRuns(t, runs, []run{{gap: 60}, {mark: "first"}})
	if err != io.EOF {
		t.Fatal(err)
	}
	runs, _ = readFrom(t, first, 0, 40)
	sameRuns(t, runs, []run{{gap: 100}, {mark: "first"}})
	runs, _ = readFrom(t, first, 100, 40)
	sameRuns(t, runs, []run{{mark: "first"}})
	runs, _ = readFrom(t, second, 0, 40)
	sameRuns(t, runs, []run{{data: fill(100)}, {mark: "second"}})
	addsUp(t, s)
	if size, files := disk(t, s); size != 4*record || files != 2 {
		t.Fatalf("%d bytes in %d files", size, files)
	}
}

// The store evicts nothing when eviction would not make enough room.
func TestNothingIsEvictedInVain(t *testing.T) {
	s := openStore(t, 300)
	old := sealedWith(t, s, "old", fill(100))
	tr := s.Create("big", Options{Limit: 1 << 20})
	calls := dropMarks(tr)
	w := tr.Writer(Stdout, WriterConfig{Lines: true})
	write(t, w, fill(150)+"\n")
	write(t, w, strings.Repeat(fill(99)+"\n", 4))
	write(t, w, "x\n")
	w.Close()
	tr.Seal()
	if c := tr.Counts(); *calls != 1 || c.DroppedLines != 5 || c.DroppedBytes != 402 {
		t.Fatalf("calls %d, %+v", *calls, c)
	}
	runs, _ := readFrom(t, tr, 0, 1000)
	sameRuns(t, runs, []run{{data: fill(150) + "\n"}, {mark: dropped{DropBudget, 151}}})
	runs, _ = readFrom(t, old, 0, 1000)
	sameRuns(t, runs, []run{{data: fill(100)}, {mark: "old"}})
	if st := s.Stats(); st.Evicted != 0 || st.WriteFailures != 0 || st.Evictable != st.Bytes {
		t.Fatalf("%+v", st)
	}
}

func TestRemoveGivesBackTheBudget(t *testing.T) {
	s := openStore(t, 1000)
	tr := s.Create("t", Options{Limit: 1000})
	w := tr.Writer(Stdout, WriterConfig{})
	write(t, w, fill(500))
	tr.Mark("m")
	for range 2 {
		if err := tr.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, w, "late")
	w.Close()
	balance(t, tr, 504)
	runs, err := readFrom(t, tr, 10, 100)
	sameRuns(t, runs, []run{{gap: 490}, {mark: "m"}})
	if st := s.Stats(); err != io.EOF || st.Bytes != 0 || st.Transcripts != 0 {
		t.Fatalf("%v %+v", err, st)
	}
	tr.Seal()
	sealedWith(t, s, "next", fill(900))
	addsUp(t, s)
	if st := s.Stats(); st.Evicted != 0 || st.Bytes != 904 {
		t.Fatalf("%+v", st)
	}
}

// A session that keeps 100 finished transcripts must not hold 100 descriptors.
func TestSealedTranscriptsHoldNoDescriptor(t *testing.T) {
	s := openStore(t, 1<<20)
	before := descriptors(t)
	all := make([]*Transcript, 100)
	for i := range all {
		all[i] = sealedWith(t, s, "t", "data")
	}
	idle, _ := all[0].Cursor(0, nil) // Never reads.
	defer idle.Close()
	for _, tr := range all {
		if runs, _ := readFrom(t, tr, 0, 100); text(runs) != "data" {
			t.Fatal("not what was written")
		}
	}
	if n := descriptors(t); n != before {
		t.Fatalf("%d descriptors, %d before", n, before)
	}
	inside, _ := all[1].Cursor(0, nil)
	_, _ = inside.Next(make([]byte, 1))
	if n := descriptors(t); n != before+1 {
		t.Fatalf("%d descriptors while reading, %d before", n, before)
	}
	inside.Close()
	if n := descriptors(t); n != before {
		t.Fatalf("%d descriptors after Close, %d before", n, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors cannot be counted: %v", err)
	}
	return len(entries)
}

// A transcript may be evicted between the decision to read and the read. The reader gets a gap, and
// the store counts no read failure, which would send an SRE to a healthy disk.
func TestEvictionDuringARead(t *testing.T) {
	s := openStore(t, 300)
	old := sealedWith(t, s, "old", fill(200))
	c, _ := old.Cursor(50, nil)
	defer c.Close()
	v, err := c.look()
	if err != nil {
		t.Fatal(err)
	}
	sealedWith(t, s, "new", fill(200))
	if _, err = c.fill(v, make([]byte, 10)); err == nil {
		t.Fatal("the handle was left open: the bytes would stay on disk")
	}
	if p := c.unreadable(err); p.Gap != 150 || p.Offset != 200 {
		t.Fatalf("%+v", p)
	}
	runs, end := drain(t, c, 10)
	sameRuns(t, runs, []run{{mark: "old"}})
	if st := s.Stats(); end != io.EOF || st.ReadFailures != 0 || st.Evicted != 1 {
		t.Fatalf("%v %+v", end, st)
	}
}

// Writers force evictions, readers are in the middle of what is evicted, and Remove and Seal come
// at any time. Readers still see the right bytes or a gap of the right size, and the disk never
// holds more than the budget.
func TestEvictionUnderReaders(t *testing.T) {
	const budget = 256 << 10
	s := openStore(t, budget)
	stop := make(chan struct{})
	var watch, work sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if st := s.Stats(); st.Bytes > budget {
				t.Errorf("%d bytes in use", st.Bytes)
			}
			s.mu.Lock() // Or a file counted before its eviction would be added to what took its place.
			size, _ := disk(t, s)
			s.mu.Unlock()
			if size > budget {
				t.Errorf("%d bytes on disk", size)
			}
		}
	})
	var gaps sync.Map
	for g := range 4 {
		work.Go(func() {
			for i := range 60 {
				tr := s.Create(fmt.Sprint(g, "/", i), Options{Limit: 1 << 20})
				tr.OnDrop(func(r DropReason, _ int64) any { t.Errorf("dropped: %s", r); return nil })
				var readers sync.WaitGroup
				for r := range 3 {
					readers.Go(func() {
						if readPattern(t, tr, 100+5000*r) {
							gaps.Store(tr, true)
						}
					})
				}
				w := tr.Writer(Stream(i%2), WriterConfig{Lines: true})
				for range 10 {
					_, _ = w.Write(pattern[:4096])
				}
				tr.Mark("done")
				w.Close()
				tr.Seal()
				if i%7 == 0 {
					if err := tr.Remove(); err != nil {
						t.Error(err)
					}
				}
				readers.Wait()
			}
		})
	}
	work.Wait()
	close(stop)
	watch.Wait()
	addsUp(t, s)
	n := 0
	gaps.Range(func(any, any) bool { n++; return true })
	if st := s.Stats(); st.Evicted == 0 || n == 0 || st.ReadFailures != 0 {
		t.Errorf("%d gaps, %+v: nothing was tested, or reads failed", n, st)
	}
}

// pattern is 4096 bytes of lines, so that any 4096 of them in a row follow from the offset.
var pattern = bytes.Repeat([]byte("0123456789abcd\n\n"), 600)

// readPattern reads to the end and reports whether there was a gap.
func readPattern(t *testing.T, tr *Transcript, size int) (gap bool) {
	ready := make(chan struct{}, 1)
	c, err := tr.Cursor(0, func() { ready <- struct{}{} })
	if err != nil {
		t.Error(err)
		return false
	}
	defer c.Close()
	buf := make([]byte, size)
	marks, at := 0, int64(0)
	for {
		p, err := c.Next(buf)
		if err == ErrWait {
			<-ready
			continue
		}
		if err == io.EOF {
			break
		}
		if !bytes.HasPrefix(pattern[at%16:], p.Data) && !bytes.HasPrefix(bytes.Repeat(pattern, 2)[at%16:], p.Data) {
			t.Errorf("at %d: not what was written", at)
		}
		if p.Mark != nil {
			marks++
		}
		gap = gap || p.Gap > 0
		at += int64(len(p.Data)) + p.Gap
	}
	if end := tr.End(); at != end || marks != 1 {
		t.Errorf("ended at %d of %d with %d marks", at, end, marks)
	}
	return gap
}
