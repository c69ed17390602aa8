package actors

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// latePipe has one Read fail as if its goroutine had not run since before the deadline: there is
// something to read.
type latePipe struct {
	fakePipe
	reads int
	left  int // what is in the pipe
}

func (p *latePipe) Pending() (int, error) { return p.left, nil }

func (p *latePipe) Read(b []byte) (int, error) {
	if p.reads++; p.reads == 2 {
		p.left = 1
		return 0, os.ErrDeadlineExceeded
	}
	p.left = 0
	return p.fakePipe.Read(b)
}

// TestLateReaderBreaksNoLine: what a line begins with is delivered as a prompt when the command
// pauses, not when this process does. It would stay when the rest of its line is over the limit.
func TestLateReaderBreaksNoLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRunner(running)
		r.stdout = func(c net.Conn) Pipe { return &latePipe{fakePipe: fakePipe{c}} }
		h := newHarness(t, r, nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", OutputLimit: 8})
		synctest.Wait()
		tree := r.tree("x")
		tree.print("half")
		tree.print(" a line\n")
		synctest.Wait()
		tree.exit(0)
		synctest.Wait()
		if done := find[wire.Completed](c); done.OutputBytes != 0 || done.DroppedLines != 1 || done.DroppedBytes != 12 ||
			done.DroppedReason != wire.WarnOutputLimit {
			t.Errorf("%+v", done)
		}
		h.stop(t, c)
	})
}

// TestDroppedOutputIsReadAtASharedRate: commands whose output is only dropped do not keep the
// processors busy. Every byte of it counts, and no command waits long for its turn.
func TestDroppedOutputIsReadAtASharedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRunner(running)
		h := newHarness(t, r, nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", OutputLimit: 8})
		synctest.Wait()
		const pipes = 100
		began := time.Now()
		for range pipes {
			r.tree("x").print(strings.Repeat("x", largeBuffer-1) + "\n")
		}
		synctest.Wait()
		// A reader makes its last pause after the last byte was taken from it, in no time of ours.
		if took, least := time.Since(began), (pipes-1)*dropPause; took < least || took > 2*least {
			t.Errorf("%d pipes took %v, want about %v", pipes, took, least)
		}
		r.tree("x").exit(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done.DroppedBytes != pipes*largeBuffer {
			t.Errorf("%d bytes dropped, want %d", done.DroppedBytes, pipes*largeBuffer)
		}
		h.stop(t, c)
	})
	o := &output{droppers: new(atomic.Int64)}
	o.droppers.Store(1600)
	if got := o.pause(); got != maxDropPause {
		t.Errorf("1600 droppers pause for %v, want %v", got, maxDropPause)
	}
}

// TestReadersHoldLittle: a reader that waits for its command has a small buffer, also after a flood,
// and the readers of many commands that flood share what few may have.
func TestReadersHoldLittle(t *testing.T) {
	pipe := &latePipe{}
	o := &output{pipe: pipe, streams: new(atomic.Int64), small: make([]byte, smallBuffer)}
	buf := o.small
	for i, step := range []struct {
		left    int  // in the pipe
		filled  bool // by the last read
		streams int64
		want    int
	}{
		{1, false, 1, smallBuffer},
		{0, true, 1, smallBuffer},
		{1, true, 1, largeBuffer},
		{1, false, 1, largeBuffer},
		{0, true, 1, smallBuffer}, // it caught up
		{1, true, sharedBuffers / (8 << 10), 8 << 10},
		{1, true, 1, largeBuffer},
		{1, true, 1600, smallBuffer}, // others came
	} {
		pipe.left = step.left
		o.streams.Store(step.streams)
		if buf = o.resize(buf, step.filled); len(buf) != step.want {
			t.Errorf("step %d: a buffer of %d bytes, want %d", i, len(buf), step.want)
		}
	}
}
