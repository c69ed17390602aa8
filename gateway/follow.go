package gateway

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// pullSize is how much of a transcript is read at a time: enough for one message and a remainder.
const pullSize = wire.MaxOutputMessage

var pullBuffers = sync.Pool{New: func() any { return new([pullSize]byte) }}

// follower streams one execution's transcript to the client. The writer owns it, except for ready.
type follower struct {
	id       string
	encoding wire.Encoding
	cursor   actors.Cursor
	ready    atomic.Bool // there may be something to send

	// Pulled and not sent yet, in order: gap, held, then next or the end.
	buf       *[pullSize]byte // nil while nothing is held
	gap       int64
	held      []byte // unsent bytes of one stream
	stream    transcript.Stream
	truncated bool             // held is one truncated line
	offset    int64            // transcript position after held
	next      transcript.Piece // cannot join held: another stream, a gap or a mark
	hasNext   bool             // next is set
	ended     bool             // the cursor returned io.EOF

	// What the client has received. The next… values take effect when the round is written.
	sent, nextSent           int64
	completed, nextCompleted bool
	drop                     bool // remove it: there is nothing more to send
}

// follow opens a feed. A second one for an execution replaces the first.
func (s *socket) follow(feed actors.Feed) error {
	f := &follower{id: feed.ExecutionID, encoding: feed.Encoding}
	if f.encoding == wire.EncodingUTF8 {
		f.encoding = "" // messages omit the default
	}
	f.ready.Store(true)
	cursor, err := feed.Open(func() {
		f.ready.Store(true)
		s.signal()
	})
	if err != nil {
		s.log.Error("cannot follow output", "session", s.sessionID(), "execution", feed.ExecutionID, "err", err)
		return s.notify(wire.MethodError, &wire.ProcessError{
			ExecutionID: feed.ExecutionID, Error: wire.Errorf(wire.CodeInternal, "the output cannot be read"),
		})
	}
	f.cursor = cursor
	f.sent = cursor.Offset()
	f.nextSent, f.offset = f.sent, f.sent
	for i, old := range s.following {
		if old.id == f.id {
			old.close()
			s.following[i] = f
			return nil
		}
	}
	s.following = append(s.following, f)
	return nil
}

// nextFollower returns the next follower, in round-robin order, that may have something to send, or
// nil.
func (s *socket) nextFollower() *follower {
	for i := range s.following {
		at := (s.rrIndex + i) % len(s.following)
		if f := s.following[at]; f.ready.Load() {
			s.rrIndex = at + 1
			return f
		}
	}
	return nil
}

// unfollowEnded removes the followers that have ended.
func (s *socket) unfollowEnded() {
	kept := s.following[:0]
	for i, f := range s.following {
		switch {
		case !f.drop:
			kept = append(kept, f)
		case i < s.rrIndex:
			s.rrIndex--
		}
	}
	clear(s.following[len(kept):])
	s.following = kept
}

// step sends one message of f's output and the marks directly behind it.
func (s *socket) step(f *follower) error {
	if f.drop {
		return nil // replaced in this round
	}
	f.pull()
	if f.holds() {
		if err := s.sendOutput(f); err != nil {
			return err
		}
	}
	for f.pull(); f.hasNext && !f.holds(); f.pull() {
		mark := f.next.Mark
		if mark == nil {
			f.advance() // next, but the other executions send first
			return nil
		}
		f.hasNext = false
		if err := s.sendMark(f, mark); err != nil {
			return err
		}
	}
	if !f.hasNext && !f.holds() {
		f.recycle()
		if f.ended {
			f.close()
		}
	}
	return nil
}

// holds reports whether there is output to send before next.
func (f *follower) holds() bool { return len(f.held) > 0 || f.gap > 0 }

// sendOutput sends as much of held as fits in one message.
func (s *socket) sendOutput(f *follower) error {
	o := wire.Output{
		ExecutionID: f.id, Type: f.stream.String(), Encoding: f.encoding, Truncated: f.truncated,
		Offset: f.offset, Gap: f.gap,
	}
	out, n := wire.AppendOutput(s.buffer(), &o, f.held, wire.MaxOutputMessage)
	if err := s.writeMessage(out); err != nil {
		return err
	}
	if f.gap > 0 {
		s.g.metrics.gaps.Inc()
		s.g.metrics.gapBytes.Add(float64(f.gap))
	}
	f.held, f.gap = f.held[n:], 0
	f.nextSent = f.offset - int64(len(f.held))
	return nil
}

// sendMark sends a notification whose position in the output matters.
func (s *socket) sendMark(f *follower, mark any) error {
	switch m := mark.(type) {
	case *wire.Warning:
		return s.notify(wire.MethodWarning, m)
	case *wire.Completed:
		f.nextCompleted = true
		return s.notify(wire.MethodCompleted, m)
	}
	s.log.Error("unknown mark in a transcript", "session", s.sessionID(), "execution", f.id)
	return nil
}

// notify writes a notification immediately, ahead of the queue.
func (s *socket) notify(method string, params any) error {
	return s.send(&item{method: method, result: params})
}

// pull reads from the cursor while the pieces join held.
func (f *follower) pull() {
	for !f.hasNext && !f.ended && len(f.held) <= pullSize/2 {
		if f.buf == nil {
			f.takeBuffer()
		}
		if len(f.held) > 0 && &f.held[0] != &f.buf[0] {
			f.held = f.buf[:copy(f.buf[:], f.held)]
		}
		// Cleared before Next: the notification may arrive before Next has returned.
		f.ready.Store(false)
		piece, err := f.cursor.Next(f.buf[len(f.held):])
		switch {
		case errors.Is(err, transcript.ErrWait):
			if f.holds() {
				f.ready.Store(true)
			}
			return
		case err != nil:
			// io.EOF, or the cursor was closed: there is no more.
			f.ended = true
		default:
			f.add(piece)
		}
	}
	f.ready.Store(true)
}

// add joins a piece to held, or makes it next.
func (f *follower) add(p transcript.Piece) {
	switch {
	case len(f.held) == 0:
		f.next, f.hasNext = p, true
		if p.Mark == nil {
			f.advance()
		}
	case p.Mark == nil && p.Gap == 0 && p.Stream == f.stream && !p.Truncated && !f.truncated:
		f.held = f.buf[:len(f.held)+len(p.Data)]
		f.offset = p.Offset
	default:
		f.next, f.hasNext = p, true
	}
}

// advance makes next the held piece.
func (f *follower) advance() {
	p := f.next
	f.next, f.hasNext = transcript.Piece{}, false
	f.gap += p.Gap
	f.held, f.stream, f.truncated, f.offset = p.Data, p.Stream, p.Truncated, p.Offset
}

// commit records that what step wrote has reached the network connection.
func (f *follower) commit() {
	f.sent, f.completed = f.nextSent, f.nextCompleted
}

func (f *follower) takeBuffer() {
	b, ok := pullBuffers.Get().(*[pullSize]byte)
	if !ok {
		b = new([pullSize]byte)
	}
	f.buf = b
}

// recycle returns the buffer to the pool. Nothing may be held in it.
func (f *follower) recycle() {
	if f.buf != nil {
		pullBuffers.Put(f.buf)
		f.buf, f.held = nil, nil
	}
}

// close ends the follower. The transcript still has what it held.
func (f *follower) close() {
	f.cursor.Close()
	f.held, f.hasNext, f.gap, f.drop = nil, false, 0, true
	f.ready.Store(false)
	f.recycle()
}
