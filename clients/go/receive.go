package troupe

import (
	"bytes"
	"io"

	"github.com/troupe-dev/troupe/actors/wire"
)

// receiveOutput queues a piece of the transcript after making it contiguous
// with what was queued before. It takes ownership of data, the bytes of the piece.
// A non-nil error asks for a new connection.
func (e *Execution) receiveOutput(s *socket, out *wire.Output, data []byte) error {
	e.mu.Lock()
	e.arrived = max(e.arrived, out.Offset)
	have, retriedAt, receiving := e.offset, e.gapRetriedAt, e.phase.queues()
	if e.phase == phaseDiscarding {
		e.offset = max(e.offset, out.Offset)
		e.delivered, receiving = e.offset, false
	}
	e.mu.Unlock()

	shortest, longest := rawLength(out.Encoding, data)
	end := out.Offset
	advance := end - have // new bytes that Gap and data cover
	gap := out.Gap
	switch {
	case !receiving || advance <= 0: // a repetition, or nothing
		putBuffer(data)
		e.acknowledge()
		return nil
	case advance > longest+out.Gap:
		if retriedAt != have {
			e.mu.Lock()
			e.gapRetriedAt = have
			e.mu.Unlock()
			return errHole
		}
		gap = advance - longest
		s.c.log.Warn("output is missing", "execution", e.id, "offset", have, "bytes", gap)
	case advance < shortest: // overlaps what is here
		data = lastRaw(data, advance, out.Encoding)
		gap = 0
	case advance < shortest+out.Gap: // only its gap overlaps
		gap = advance - shortest
	}
	if gap > 0 {
		if !e.push(s, &Gap{Bytes: gap, Offset: have + gap, Unreported: gap > out.Gap}) {
			return nil
		}
	}
	if len(data) > 0 {
		e.push(s, &Output{Stream: out.Type, Data: data, Truncated: out.Truncated, Offset: end})
	}
	return nil
}

// receiveCompleted queues the end. A non-nil error asks for a new connection.
func (e *Execution) receiveCompleted(s *socket, done *wire.Completed) error {
	e.mu.Lock()
	e.completedArrived = true
	if e.completed == nil && e.err == nil {
		e.completed = done
		close(e.finished)
	}
	if !e.phase.queues() || e.completedQueued {
		e.mu.Unlock()
		e.acknowledge()
		return nil
	}
	missing := done.OutputBytes - e.offset
	if e.phase == phaseDiscarding {
		missing = 0
	}
	if missing > 0 && e.gapRetriedAt != e.offset {
		e.gapRetriedAt = e.offset
		e.mu.Unlock()
		return errHole
	}
	e.mu.Unlock()
	if missing > 0 && !e.push(s, &Gap{Bytes: missing, Offset: done.OutputBytes, Unreported: true}) {
		return nil
	}
	if !e.push(s, &Completed{*done}) {
		return nil
	}
	e.mu.Lock()
	e.completedQueued = true
	if e.phase == phaseDiscarding {
		e.completedTaken = true
	}
	if !survived(done) {
		e.phase = e.phase.after(stepCompleted)
	}
	ended := e.phase == phaseEnded
	if ended && e.atEnd == nil {
		e.atEnd = io.EOF
	}
	last := ended && len(e.queue) == 0 // Next took it just now, or it is discarded
	e.mu.Unlock()
	e.acknowledge()
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

// receiveWarning queues a warning unless it repeats one after a resume.
func (e *Execution) receiveWarning(s *socket, w *wire.Warning) {
	e.mu.Lock()
	again := e.lastWarn.Code == w.Code && e.lastWarn.Offset == w.Offset
	e.mu.Unlock()
	if !again && e.push(s, &Warning{*w}) {
		e.mu.Lock()
		e.lastWarn = *w
		e.mu.Unlock()
	}
}

// push queues ev, waiting for room. It reports false if ev was not taken because the connection or
// the execution is ending. In the former case the server sends ev again, since offset did not move.
func (e *Execution) push(s *socket, ev Event) bool {
	n := cost(ev)
	for {
		e.mu.Lock()
		if !e.phase.queues() {
			e.mu.Unlock()
			return false
		}
		discarding := e.phase == phaseDiscarding
		// Twice the window, since small events cost more than their bytes.
		if e.bytes == 0 || e.bytes+n <= 2*s.c.opt.Window || discarding {
			if after, ok := span(ev); ok {
				e.offset = after
			}
			if discarding {
				e.delivered = e.offset
			} else {
				e.enqueue(ev)
			}
			e.mu.Unlock()
			signal(e.wake)
			return true
		}
		e.mu.Unlock()
		if !s.awaitRoom(e) {
			return false
		}
	}
}

// joinBelow is the size up to which pieces of output are joined in the queue, so that a window full
// of tiny ones costs little more than their bytes.
const joinBelow = 16 << 10

// enqueue appends ev to the queue, or joins it to the last event. e.mu is held.
func (e *Execution) enqueue(ev Event) {
	if len(e.queue) > 0 {
		last, isOutput := e.queue[len(e.queue)-1].(*Output)
		next, follows := ev.(*Output)
		if isOutput && follows && last.Stream == next.Stream && !last.Truncated && !next.Truncated &&
			len(last.Data)+len(next.Data) <= joinBelow {
			last.Data = append(last.Data, next.Data...)
			last.Offset = next.Offset
			e.bytes += len(next.Data)
			return
		}
	}
	e.queue = append(e.queue, ev)
	e.bytes += cost(ev)
}

// awaitRoom leaves the socket unread until the consumer has read from e, and reports whether to try
// again. TCP flow control then slows down a server that knows no windows. A server that does sends
// less than fills the queue, unless the output alternates between the streams in tiny pieces.
func (s *socket) awaitRoom(e *Execution) bool {
	s.blocked.Store(true)
	defer func() {
		s.touch()
		s.blocked.Store(false)
	}()
	select {
	case <-e.space:
		return true
	case <-s.c.ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// received reports whether e has received everything that the server has for it, up to its end.
// That is nothing if the execution never started.
func (e *Execution) received() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch e.phase {
	case phasePending, phaseEnded, phaseFailed:
		return true
	}
	return e.completedQueued
}

// pending reports whether execute is not answered yet.
func (e *Execution) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.phase == phasePending
}

// position is where a resume continues; follow is false if it must not name e.
func (e *Execution) position() (offset int64, follow bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.delivered, e.phase.resumable()
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
