package actors

import (
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
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
			r.tree("x").print(strings.Repeat("x", pipeSize-1) + "\n")
		}
		synctest.Wait()
		// A reader makes its last pause after the last byte was taken from it, in no time of ours.
		if took, least := time.Since(began), (pipes-1)*dropPause; took < least || took > 2*least {
			t.Errorf("%d pipes took %v, want about %v", pipes, took, least)
		}
		r.tree("x").exit(0)
		time.Sleep(time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done.DroppedBytes != pipes*pipeSize {
			t.Errorf("%d bytes dropped, want %d", done.DroppedBytes, pipes*pipeSize)
		}
		h.stop(t, c)
	})
	o := &output{droppers: new(atomic.Int64)}
	o.droppers.Store(1600)
	if got := o.pause(); got != maxDropPause {
		t.Errorf("1600 droppers pause for %v, want %v", got, maxDropPause)
	}
}

// heldPipe has as much output as a test says, and notes the buffers and the room it was given.
type heldPipe struct {
	fakePipe
	left, room int
}

func (p *heldPipe) ReadNow(b []byte) (int, error) {
	if p.left == 0 {
		return 0, proc.ErrPipeEmpty
	}
	n := min(p.left, len(b))
	p.left -= n
	return n, nil
}

func (p *heldPipe) Read(b []byte) (int, error) {
	p.left = max(p.left, 1) // it waits for a byte
	return p.ReadNow(b)
}

func (p *heldPipe) Grow(size int) { p.room = max(p.room, size) }

// TestReadersHoldLittle: a reader that waits for its command has a small buffer, also after a flood,
// and the readers of many commands that flood share what few may have.
func TestReadersHoldLittle(t *testing.T) {
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	pipe := &heldPipe{}
	o := &output{
		pipe: pipe, streams: new(atomic.Int64), small: make([]byte, smallBuffer),
		writer: store.Create("s/x", transcript.Options{}).Writer(transcript.Stdout, transcript.WriterConfig{}),
	}
	for i, step := range []struct {
		left    int // in the pipe
		streams int64
		read    int
		held    int // while the output is delivered
	}{
		{100, 1, 100, 0},
		{smallBuffer + 1, 1, smallBuffer, 0},
		{1 << 20, 1, largeBuffer, largeBuffer},
		{1, 1, 1, largeBuffer},
		{0, 1, 1, 0}, // it caught up
		{1 << 20, 1, smallBuffer, 0},
		{1 << 20, sharedBuffers / (8 << 10), 8 << 10, 8 << 10},
		{1 << 20, 1, largeBuffer, largeBuffer},
		{1 << 20, 1600, smallBuffer, 0}, // others came
		{1 << 20, sharedBuffers / largeBuffer, largeBuffer, largeBuffer},
	} {
		pipe.left, pipe.room = step.left, 0
		o.streams.Store(step.streams)
		p, err := o.read()
		if len(p) != step.read || len(o.large) != step.held || err != nil {
			t.Errorf("step %d: read %d bytes and holds %d, want %d and %d: %v",
				i, len(p), len(o.large), step.read, step.held, err)
		}
		if pipe.room > step.held {
			t.Errorf("step %d: the pipe has grown to %d", i, pipe.room)
		}
	}
	if pipe.room != largeBuffer {
		t.Errorf("the pipe has grown to %d", pipe.room)
	}
}
