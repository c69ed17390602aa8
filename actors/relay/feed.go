package relay

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors/transcript"
)

const (
	// pieceCost is added to the bytes of each piece. It is the size of the piece's structs at either
	// end, so that a stream of single bytes is bounded too.
	pieceCost = 256
	// maxOutput bounds the cost of the pieces in one frame, unless a mark exceeds it.
	maxOutput = 62 << 10
	// leastRoom is the least credit with which a frame is begun or a piece added. It keeps a truncated
	// line of the default length from being cut in two, because only the end of the line says that it
	// is truncated. It is lower for small windows: an eighth of the first window, since a later one
	// may be a quarter of that, and half of it may not be granted yet.
	leastRoom = 16 << 10
	// tinyWindow lets a window move with pieces of one byte.
	tinyWindow = 4 << 10
	// markSlack is how far a mark may exceed the credit, since its size is known only after it was
	// read.
	markSlack = MaxEnvelope
)

// window counts how much of the output on a proxy's link the readers of its feeds have consumed.
// They run on goroutines of their own.
type window struct {
	done  atomic.Uint64 // cost since the link began
	alarm atomic.Uint64 // wake when done gets there; the proxy sets it
	wake  func()
}

// release gives back cost, and wakes the proxy when it is worth a frame to tell the origin.
func (w *window) release(cost int) {
	if cost == 0 {
		return
	}
	done, alarm := w.done.Add(uint64(cost)), w.alarm.Load()
	if done >= alarm && done-uint64(cost) < alarm {
		w.wake()
	}
}

// costOf returns the amount that a piece counts against the window.
func costOf(p *Piece) int {
	return pieceCost + len(p.GetData()) + len(p.GetWarning()) + len(p.GetCompleted()) + len(p.GetResized()) +
		len(p.GetScreen())
}

func costOfAll(pieces []*Piece) (cost int) {
	for _, p := range pieces {
		cost += costOf(p)
	}
	return cost
}

// feed is the output of one execution as it arrived, and the cursor that reads it.
type feed struct {
	execution string
	window    *window

	arrived int64 // offset after all that came; the proxy's

	mu      sync.Mutex
	offset  int64     // of what is read next
	queue   []arrival // not read yet
	eof     bool      // nothing comes after queue
	closed  bool
	waiting bool // notify is owed
	notify  func()
}

// arrival is what arrived in one frame. Its cost is given back when all of it is read, as its memory
// is.
type arrival struct {
	pieces []transcript.Piece // not read yet
	cost   int
	held   Held // what the pieces refer to; nil: memory of their own
}

func (a *arrival) free() {
	if a.held != nil {
		a.held.Free()
	}
	*a = arrival{}
}

var _ Cursor = (*feed)(nil)

// open begins reading. A client opens a feed once.
func (f *feed) open(notify func()) (Cursor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notify = notify
	return f, nil
}

// add takes what has arrived. If the feed is closed, it gives the cost back at once.
func (f *feed) add(a arrival, eof bool) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		f.window.release(a.cost)
		return
	}
	if len(a.pieces) > 0 {
		if a.held != nil {
			a.held.Ref()
		}
		f.queue = append(f.queue, a)
	}
	f.eof = f.eof || eof
	var notify func()
	if f.waiting {
		f.waiting, notify = false, f.notify
	}
	f.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// Next implements Cursor as transcript.Cursor does: it joins bytes of one stream, and returns each
// mark, gap and truncated line on its own.
func (f *feed) Next(buf []byte) (transcript.Piece, error) {
	f.mu.Lock()
	piece, done, err := f.next(buf)
	f.mu.Unlock()
	f.window.release(done)
	return piece, err
}

func (f *feed) next(buf []byte) (piece transcript.Piece, done int, err error) {
	switch {
	case len(buf) == 0:
		return piece, 0, io.ErrShortBuffer
	case f.closed:
		return piece, 0, transcript.ErrClosed
	case len(f.queue) == 0 && f.eof:
		return piece, 0, io.EOF
	case len(f.queue) == 0:
		f.waiting = true
		return piece, 0, transcript.ErrWait
	}
	first := &f.queue[0].pieces[0]
	if first.Data == nil {
		piece = *first
		f.offset = piece.Offset
		return piece, f.pop(), nil
	}
	piece = transcript.Piece{Stream: first.Stream, Truncated: first.Truncated}
	n := 0
	for n < len(buf) && len(f.queue) > 0 {
		p := &f.queue[0].pieces[0]
		if p.Data == nil || n > 0 && (p.Truncated || piece.Truncated || p.Stream != piece.Stream) {
			break
		}
		c := copy(buf[n:], p.Data)
		n += c
		f.offset += int64(c)
		if p.Data = p.Data[c:]; len(p.Data) == 0 {
			done += f.pop()
		}
	}
	piece.Data, piece.Offset = buf[:n], f.offset
	return piece, done, nil
}

// pop removes the first piece. It returns the cost of the frame that it came in, if it was the last
// of that.
func (f *feed) pop() int {
	first := &f.queue[0]
	if first.pieces = first.pieces[1:]; len(first.pieces) > 0 {
		return 0
	}
	cost := first.cost
	first.free()
	if f.queue = f.queue[1:]; len(f.queue) == 0 {
		f.queue = nil // its array keeps the size of the longest queue there was
	}
	return cost
}

// Offset implements Cursor.
func (f *feed) Offset() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.offset
}

// Close implements Cursor.
func (f *feed) Close() {
	f.mu.Lock()
	held := 0
	for i := range f.queue {
		held += f.queue[i].cost
		f.queue[i].free()
	}
	f.queue, f.closed, f.waiting, f.notify = nil, true, false, nil
	f.mu.Unlock()
	f.window.release(held)
}

// arrived returns a piece that has arrived, as a transcript has it. It returns false if the piece
// does not follow offset.
func arrived(p *Piece, offset int64) (transcript.Piece, bool) {
	mark, ok := decodeMark(p)
	out := transcript.Piece{Offset: p.GetOffset(), Mark: mark, Gap: p.GetGap(), Truncated: p.GetTruncated()}
	if p.GetStderr() {
		out.Stream = transcript.Stderr
	}
	if len(p.GetData()) > 0 {
		out.Data = p.GetData()
	}
	carries := 0
	for _, set := range []bool{out.Data != nil, out.Gap != 0, mark != nil} {
		if set {
			carries++
		}
	}
	// A piece with no content that this release knows may come from a later release. It must not move
	// the offset.
	ok = ok && carries <= 1 && out.Gap >= 0 && out.Offset == offset+out.Gap+int64(len(out.Data))
	return out, ok
}
