package troupe

import (
	"bytes"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// hurriedStall replaces StallTimeout while a request waits for its answer
// behind a full execution, so that a Cancel is answered at once.
const hurriedStall = 100 * time.Millisecond

// receiveOutput queues a piece of the transcript after making it contiguous
// with what was queued before. data, the bytes of the piece, becomes the queue's.
// A non-nil error asks for a new connection.
func (e *Execution) receiveOutput(l *link, out *wire.Output, data []byte) error {
	e.mu.Lock()
	if e.parked || e.ended || e.err != nil {
		e.mu.Unlock()
		return nil
	}
	if e.discard {
		e.offset, e.delivered = max(e.offset, out.Offset), max(e.offset, out.Offset)
		e.mu.Unlock()
		putBuffer(data)
		return nil
	}
	have, healed, resync := e.offset, e.healed, e.resync
	e.mu.Unlock()

	shortest, longest := rawLength(out.Encoding, data)
	end := out.Offset
	advance := end - have // what Gap and data cover of what is not yet here
	gap := out.Gap
	switch {
	case advance <= 0:
		return nil // a repetition, or nothing
	case advance > longest+out.Gap && resync:
		return nil // of before the answer to refetch
	case advance > longest+out.Gap:
		if healed != have {
			e.mu.Lock()
			e.healed = have
			e.mu.Unlock()
			return errHole
		}
		gap = advance - longest
		l.c.log.Warn("output is missing", "execution", e.id, "offset", have, "bytes", gap)
	case advance < shortest: // overlaps what is here
		data = lastRaw(data, advance, out.Encoding)
		gap = 0
	case advance < shortest+out.Gap: // only its gap does
		gap = advance - shortest
	}
	if gap > 0 {
		if !e.push(l, &Gap{Bytes: gap, Offset: have + gap, Unreported: gap > out.Gap}) {
			return nil
		}
	}
	if len(data) > 0 {
		e.push(l, &Output{Stream: out.Type, Data: data, Truncated: out.Truncated, Offset: end})
	}
	return nil
}

// receiveCompleted queues the end. A non-nil error asks for a new connection.
func (e *Execution) receiveCompleted(l *link, done *wire.Completed) error {
	e.mu.Lock()
	if e.completed == nil && e.err == nil {
		e.completed = done
		close(e.finished)
	}
	missing := done.OutputBytes - e.offset
	if e.parked || e.lastQueued || e.err != nil {
		e.mu.Unlock()
		return nil
	}
	if missing > 0 && !e.discard {
		if e.healed != e.offset {
			e.healed = e.offset
			e.mu.Unlock()
			return errHole
		}
		e.mu.Unlock()
		if !e.push(l, &Gap{Bytes: missing, Offset: done.OutputBytes, Unreported: true}) {
			return nil
		}
	} else {
		e.mu.Unlock()
	}
	if !e.push(l, &Completed{*done}) {
		return nil
	}
	e.mu.Lock()
	e.lastQueued = true
	e.ended = !e.keep || !survived(done)
	last := e.ended && len(e.queue) == 0 // it was read this moment, or is discarded
	e.mu.Unlock()
	if last {
		e.c.forget(e)
	}
	signal(e.wake)
	return nil
}

// survived reports whether processes may live on, and write, after done.
func survived(done *wire.Completed) bool {
	return done.Survivors != nil && done.Survivors.Kept
}

// receiveWarning queues a warning unless it is the one that a resumed
// transcript repeats.
func (e *Execution) receiveWarning(l *link, w *wire.Warning) {
	e.mu.Lock()
	again := e.lastWarn.Code == w.Code && e.lastWarn.Offset == w.Offset
	e.mu.Unlock()
	if !again && e.push(l, &Warning{*w}) {
		e.mu.Lock()
		e.lastWarn = *w
		e.mu.Unlock()
	}
}

// push queues ev, waiting for room. It reports false if ev was not taken: the
// connection is ending, or the execution was parked because nobody reads it.
// Either way the server sends ev again, since offset did not move.
func (e *Execution) push(l *link, ev Event) bool {
	n := cost(ev)
	for {
		e.mu.Lock()
		if e.parked || e.ended || e.err != nil {
			e.mu.Unlock()
			return false
		}
		if e.bytes == 0 || e.bytes+n <= l.c.opt.BufferBytes || e.discard {
			if after, ok := span(ev); ok {
				e.offset, e.resync = after, false
			}
			if e.discard {
				e.delivered = e.offset
			} else {
				e.queue = append(e.queue, ev)
				e.bytes += n
			}
			e.mu.Unlock()
			signal(e.wake)
			return true
		}
		e.mu.Unlock()
		if !l.awaitRoom(e) {
			return false
		}
	}
}

// awaitRoom leaves the socket unread until e was read from. It parks e when
// that takes too long, and reports whether to try again.
func (l *link) awaitRoom(e *Execution) bool {
	l.blocked.Store(true)
	defer func() {
		l.touch()
		l.blocked.Store(false)
	}()
	timer := time.NewTimer(l.c.opt.StallTimeout)
	defer timer.Stop()
	hurried := false
	for {
		if !hurried && l.c.urgent.Load() > 0 {
			hurried = true
			timer.Reset(min(hurriedStall, l.c.opt.StallTimeout))
		}
		select {
		case <-e.space:
			return true
		case <-l.c.hurry:
		case <-l.c.ctx.Done():
			return false
		case <-l.ctx.Done():
			return false
		case <-timer.C:
			e.park()
			return false
		}
	}
}

func (e *Execution) park() {
	e.mu.Lock()
	e.parked = len(e.queue) > 0 && !e.discard // else it was read this moment
	e.mu.Unlock()
	signal(e.wake)
}

// unpark takes output again, from offset on. On a connection that went on,
// pieces of before may still come until the first that continues at offset.
func (e *Execution) unpark(sameLink bool) {
	e.mu.Lock()
	e.parked, e.refetching, e.resync = false, false, sameLink
	e.mu.Unlock()
}

// whole reports whether all that the server has of e is here: its end
// and what came before, or nothing because it was never started.
func (e *Execution) whole() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.started || e.err != nil || e.lastQueued && !e.parked
}

// position is where resume goes on; follow is false if resume must not name e.
func (e *Execution) position() (offset int64, follow bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.offset, e.started && !e.ended && e.err == nil
}

var replacement = []byte("\uFFFD")

// rawLength bounds the transcript bytes that data stands for. They are known
// exactly for base64, and for text without U+FFFD: each of those may stand for
// one to three bytes.
func rawLength(enc wire.Encoding, data []byte) (shortest, longest int64) {
	n := int64(len(data))
	if enc == wire.EncodingBase64 {
		return n, n
	}
	return n - 2*int64(bytes.Count(data, replacement)), n
}

// lastRaw cuts data to its last n transcript bytes. Where U+FFFD makes that
// inexact, each is taken for one byte.
func lastRaw(data []byte, n int64, enc wire.Encoding) []byte {
	if enc == wire.EncodingBase64 || !bytes.Contains(data, replacement) {
		return data[int64(len(data))-n:]
	}
	i := len(data)
	for ; n > 0 && i > 0; n-- {
		if bytes.HasSuffix(data[:i], replacement) {
			i -= len(replacement)
		} else {
			i--
		}
	}
	return data[i:]
}
