package transcript

import (
	"testing"
	"time"
)

// TestPaceHoldsWritersOfLast: they are ahead of what was acknowledged by the window and what one write
// adds, until it moves, or nobody paces them.
func TestPaceHoldsWritersOfLast(t *testing.T) {
	const window = 64 << 10
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20})
	tr.Pace(0, window)
	w := tr.Writer(Stdout, WriterConfig{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for at := int64(0); at < 4<<20; at += 1 << 10 {
			_, _ = w.Write(numbered(at, 1<<10))
		}
	}()
	for _, acked := range []int64{0, 10_000, 10_000, 70_000} {
		tr.Ack(acked)
		want := (acked + window + 1<<10 - 1) >> 10 << 10
		await(t, "the writer waits", func() bool { return tr.End() == want && blocked(tr) })
	}
	tr.Ack(5) // less than before changes nothing
	time.Sleep(5 * time.Millisecond)
	if end := tr.End(); end > 70_000+window+1<<10 {
		t.Errorf("an old ack let the writer go on to %d", end)
	}
	tr.Pace(0, 0)
	<-done
	if c := tr.Counts(); c.OutputBytes != 4<<20 || c.DroppedBytes != 0 {
		t.Errorf("%+v", c)
	}
	w.Close()
	tr.Seal()
}

// TestPaceEnds: a sealed transcript holds no writer, nor does one whose tree is dead.
func TestPaceEnds(t *testing.T) {
	for name, end := range map[string]func(*Transcript){
		"unblock": (*Transcript).Unblock, "seal": (*Transcript).Seal,
		"remove": func(tr *Transcript) { _ = tr.Remove() },
	} {
		s := openStore(t, 1<<30)
		tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20})
		tr.Pace(0, 10)
		w := tr.Writer(Stdout, WriterConfig{})
		write(t, w, "0123456789")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = w.Write([]byte("more"))
		}()
		await(t, "the writer waits", func() bool { return blocked(tr) })
		end(tr)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the writer waits on", name)
		}
		w.Close()
		_ = tr.Remove()
	}
}
