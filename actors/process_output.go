package actors

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
)

const (
	// promptDelay is how long a line without a newline waits for more before it is
	// delivered as it is: long enough to join the writes of one printf, short enough for a prompt.
	promptDelay = 50 * time.Millisecond

	// A reader has a small buffer. When a read fills it, it takes a large one, gives that back when
	// the pipe is empty, and waits with the small one: silent streams hold little. The pipe grows to
	// the size of the large buffer, so that the command writes on while what it wrote is delivered.
	// The more streams there are, the less each takes: sharedBuffers is divided among them, as long
	// as that leaves more than a small one.
	smallBuffer   = 2 << 10
	largeBuffer   = 256 << 10
	sharedBuffers = 704 << 10
	// pipeSize is the capacity of a pipe on Linux that was not grown.
	pipeSize = 64 << 10

	// A reader that only drops output pauses after each pipe of it, for dropPause times the number
	// of such readers, so that together they drop about 512 MB/s; and for longer where there are
	// many, so that 80 drop 100 MB/s. Eighty commands that printed without end kept two processors
	// busy for nothing, and other sessions' commands waited.
	dropPause    = 125 * time.Microsecond
	fewDroppers  = 8
	maxDropPause = 50 * time.Millisecond // a command waits for it at its end
)

// ReadBufferFor returns the most that a stream's buffer has when there are so many streams.
func ReadBufferFor(streams int) int {
	return min(max(sharedBuffers/max(streams, 1), smallBuffer), largeBuffer)
}

// stdout and stderr index the streams of a process.
const (
	stdout = iota
	stderr
)

// output carries one stream from its pipe into the transcript. Its goroutine is
// the only reader of the pipe and closes it.
type output struct {
	stream   int
	pipe     Pipe
	writer   *transcript.Writer
	root     *actor.RootContext
	process  *actor.PID
	lastByte *atomic.Int64 // nanoseconds on the process's clock, shared by both streams
	clock    func() int64
	streams  *atomic.Int64 // how many are read
	droppers *atomic.Int64 // how many of them only drop

	small      []byte      // kept, because a busy reader that meets an empty pipe goes back to it often
	large      []byte      // nil while there is nothing to read
	catchingUp atomic.Bool // the process wants to know when nothing is left in the pipe
	filled     bool        // the last Read filled small: there is probably more
	drops      bool        // it is one of droppers
	dropped    int         // bytes since the last pause
}

// catchUp makes the reader report streamCaughtUp once it has read what the pipe holds now.
func (o *output) catchUp() {
	o.catchingUp.Store(true)
	// Interrupts a waiting Read. The reader looks at catchingUp after it sets a deadline
	// of its own, so this one cannot be overwritten unseen.
	_ = o.pipe.SetReadDeadline(time.Unix(1, 0))
}

func (o *output) run() {
	o.streams.Add(1)
	defer func() {
		o.streams.Add(-1)
		if o.drops {
			o.droppers.Add(-1)
		}
		o.giveBack()
		o.writer.Close()
		_ = o.pipe.Close()
		o.root.Send(o.process, streamEnded{stream: o.stream})
	}()
	o.small = make([]byte, smallBuffer)
	for {
		o.setDeadline()
		p, err := o.read()
		if len(p) > 0 {
			o.deliver(p)
			o.pace(len(p))
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if o.catchingUp.CompareAndSwap(true, false) && !o.drainNow() {
				return
			}
			if left, err := o.pipe.Pending(); err == nil && left > 0 {
				continue // it was this goroutine that was late, not the command
			}
			o.writer.Flush()
		default:
			return
		}
	}
}

// read waits for output and returns what there is of it, at most a buffer.
func (o *output) read() ([]byte, error) {
	if o.resize(); o.large != nil {
		n, err := o.pipe.ReadNow(o.large)
		if !errors.Is(err, proc.ErrPipeEmpty) {
			return o.large[:n], err
		}
		o.giveBack()
	}
	n, err := o.pipe.Read(o.small)
	o.filled = n == len(o.small)
	return o.small[:n], err
}

// pace pauses a reader that has dropped a pipe's capacity of n and the bytes before it.
func (o *output) pace(n int) {
	if !o.writer.Dropping() {
		return
	}
	if !o.drops {
		o.drops = true
		o.droppers.Add(1)
	}
	if o.dropped += n; o.dropped < pipeSize || o.catchingUp.Load() {
		return
	}
	o.dropped = 0
	time.Sleep(o.pause())
}

// pause returns how long a reader that drops output lets its command wait.
func (o *output) pause() time.Duration {
	n := o.droppers.Load()
	return min(time.Duration(n*max(1, n/fewDroppers))*dropPause, maxDropPause)
}

// resize sees to it that large is as long as a reader's may be now, if this one needs it.
func (o *output) resize() {
	if o.large == nil && !o.filled {
		return
	}
	o.filled = false
	size := ReadBufferFor(int(o.streams.Load()))
	if o.writer.Dropping() {
		size = min(size, pipeSize) // see dropPause
	}
	if size == len(o.large) {
		return
	}
	o.giveBack()
	if size == smallBuffer {
		return
	}
	o.pipe.Grow(size)
	if size == largeBuffer {
		o.large = *largeBuffers.Get().(*[]byte) //nolint:errcheck // the pool has nothing else
		return
	}
	o.large = make([]byte, size)
}

// giveBack ends the use of large.
func (o *output) giveBack() {
	if len(o.large) == largeBuffer {
		large := o.large
		largeBuffers.Put(&large)
	}
	o.large = nil
}

var largeBuffers = sync.Pool{New: func() any {
	b := make([]byte, largeBuffer)
	return &b
}}

func (o *output) deliver(p []byte) {
	if o.lastByte.Swap(o.clock()) == 0 {
		o.root.Send(o.process, outputSeen{})
	}
	_, _ = o.writer.Write(p)    // never fails: see transcript.Writer
	o.lastByte.Store(o.clock()) // it may have waited for a reader
}

func (o *output) setDeadline() {
	var deadline time.Time
	if o.writer.Pending() {
		deadline = time.Now().Add(promptDelay)
	}
	_ = o.pipe.SetReadDeadline(deadline)
	if o.catchingUp.Load() {
		_ = o.pipe.SetReadDeadline(time.Unix(1, 0))
	}
}

// drainNow reads as many bytes as the pipe held when it was called, delivers
// them, and reports streamCaughtUp. It returns false at the end of the pipe.
func (o *output) drainNow() bool {
	buf := o.small
	if o.large != nil {
		buf = o.large
	}
	_ = o.pipe.SetReadDeadline(time.Time{})
	left, err := o.pipe.Pending()
	for err == nil && left > 0 {
		var n int
		n, err = o.pipe.Read(buf[:min(left, len(buf))])
		left -= n
		if n > 0 {
			o.deliver(buf[:n])
		}
	}
	if err != nil {
		return false
	}
	o.writer.Flush()
	o.root.Send(o.process, streamCaughtUp{stream: o.stream})
	return true
}
