package gateway

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// pullSize is how much of a transcript is read at a time: enough for one message and a remainder.
	// With smallPull a connection makes do while many others are busy.
	pullSize  = wire.MaxOutputMessage
	smallPull = SmallOutput
	// RestSize is the longest remainder that waits for more output to join it, such as the beginning
	// of a line. A session may have a hundred followers, so each may keep little between its turns.
	RestSize = 2 << 10
)

// pullBuffer holds what was pulled from a transcript, behind room for the header of a binary frame:
// such a frame is sent from where it was read to.
type pullBuffer []byte

// room is how much can be pulled into the buffer.
func (b pullBuffer) room() int { return len(b) - wire.MaxOutputHeader }

// follower streams one execution's transcript to the client. The writer owns it, except for ready
// and credit.
type follower struct {
	id       string
	encoding wire.Encoding
	number   uint16 // of the stream, for binary frames
	cursor   actors.Cursor
	credit   *credit
	ready    atomic.Bool // there may be something to send
	need     int64       // least credit with which a turn achieves something

	// Pulled and not sent yet, in order: gap, held, then next or the end. During a turn, held and the
	// data of next are in the socket's buffer; between turns, held is in rest and next has no data.
	gap       int64
	held      []byte // unsent bytes of one stream
	at        int    // where held is in the buffer
	rest      []byte
	stream    transcript.Stream
	truncated bool             // held is of one truncated line
	offset    int64            // transcript position after held
	next      transcript.Piece // cannot join held: another stream, a gap or a mark
	hasNext   bool             // next is set
	ended     bool             // the cursor returned io.EOF

	// What was written to the connection. The next… values take effect when the round is written.
	sent, nextSent           int64
	completed, nextCompleted bool
	claimed                  int64 // position up to which the socket has acknowledged in the client's place
	claimedEnd               bool  // and process.completed
	drop                     bool  // remove it: there is nothing more to send
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
	f.claimed = f.sent
	f.nextSent, f.offset = f.sent, f.sent
	f.credit = &credit{window: feed.Window, sent: f.sent, acked: f.sent}
	s.add(f)
	if s.binary {
		return s.openStream(f)
	}
	return nil
}

// add puts f among the followers.
func (s *socket) add(f *follower) {
	s.setCredit(f.id, f.credit)
	for i, old := range s.following {
		if old.id == f.id {
			s.leave(old)
			s.following[i] = f
			return
		}
	}
	s.following = append(s.following, f)
}

// nextFollower returns the next follower, in round-robin order, that may have something to send and
// is allowed to, or nil.
func (s *socket) nextFollower() *follower {
	for i := range s.following {
		at := (s.rrIndex + i) % len(s.following)
		if f := s.following[at]; f.ready.Load() && (f.need == 0 || f.credit.room() >= f.need) {
			s.rrIndex = at + 1
			return f
		}
	}
	return nil
}

// awaitsAck reports whether there is output for which the client has given no credit.
func (s *socket) awaitsAck() bool {
	return slices.ContainsFunc(s.following, func(f *follower) bool { return f.need > 0 })
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

// leave ends a follower.
func (s *socket) leave(f *follower) {
	f.close()
	s.endCredit(f.id, f.credit)
	if f.number != 0 {
		s.mu.Lock()
		s.streams.retire(f.number)
		s.mu.Unlock()
	}
}

// step is one turn of a follower: it sends one buffer's worth of output and the marks directly
// behind it, as far as the client's credit goes.
func (s *socket) step(f *follower) error {
	if f.drop {
		return nil // replaced in this round
	}
	more := f.pull(s.pullBuffer())
	for {
		if err := s.sendHeld(f, more); err != nil {
			return err
		}
		if f.holds() || !f.hasNext {
			break
		}
		mark := f.next.Mark
		if mark == nil {
			f.advance()
			if more = true; len(f.held) == 0 {
				break // a gap: the next turn sends it with what comes behind it
			}
			continue
		}
		f.hasNext = false
		if err := s.sendMark(f, mark); err != nil {
			return err
		}
		more = f.pull(s.pullBuffer())
	}
	f.keep()
	if f.ended && !f.hasNext && !f.holds() {
		s.leave(f)
	}
	return nil
}

// holds reports whether there is output to send before next.
func (f *follower) holds() bool { return len(f.held) > 0 || f.gap > 0 }

// sendHeld sends what is held, as far as the credit goes. If more output may join it, a short
// remainder of a message stays behind, so that pieces end where lines end.
func (s *socket) sendHeld(f *follower, more bool) error {
	f.need = 0
	for f.holds() {
		room := f.credit.room()
		payload := f.held[:min(int64(len(f.held)), room)]
		if !s.binary && f.encoding == "" && (more || len(payload) < len(f.held)) {
			payload = payload[:len(payload)-partialRune(payload)]
		}
		if len(payload) == 0 && f.gap == 0 {
			if room <= int64(len(f.held)) {
				f.need = room + 1
			}
			return nil
		}
		cut, err := s.sendOutput(f, payload)
		if err != nil || cut && more && len(f.held) <= RestSize {
			return err
		}
	}
	return nil
}

// sendOutput sends as much of payload, the beginning of held, as fits in one message. It reports
// whether that was not all of it.
func (s *socket) sendOutput(f *follower, payload []byte) (cut bool, err error) {
	o := wire.Output{
		ExecutionID: f.id, Type: f.stream.String(), Encoding: f.encoding, Gap: f.gap,
		Offset: f.offset - int64(len(f.held)-len(payload)), // after payload
		// A truncated line may have been pulled in parts. Only its end says that it is truncated.
		Truncated: f.truncated && bytes.HasSuffix(payload, []byte{'\n'}),
	}
	var msg []byte
	n, typ := len(payload), websocket.MessageBinary
	if s.binary {
		msg = f.frame(s.pull, &o, n)
	} else {
		typ = websocket.MessageText
		msg, n = wire.AppendOutput(s.buffer(), &o, payload, s.pull.room())
	}
	f.nextSent = o.Offset - int64(len(payload)-n)
	f.credit.send(f.nextSent, f.gap)
	if err := s.writeMessage(typ, msg); err != nil {
		return false, err
	}
	if f.gap > 0 {
		s.g.metrics.gaps.Inc()
		s.g.metrics.gapBytes.Add(float64(f.gap))
	}
	f.held, f.at, f.gap = f.held[n:], f.at+n, 0
	return n < len(payload), nil
}

// frame makes a binary frame of the first n bytes of held, which are in buf. What is before them in
// buf has been sent.
func (f *follower) frame(buf pullBuffer, o *wire.Output, n int) []byte {
	var room [wire.MaxOutputHeader]byte
	header := wire.AppendOutputHeader(room[:0], &wire.OutputFrame{
		Stream: f.number, Stderr: f.stream == transcript.Stderr, Truncated: o.Truncated, Offset: o.Offset, Gap: o.Gap,
	})
	begin := f.at - len(header)
	copy(buf[begin:], header)
	return buf[begin : f.at+n]
}

// sendMark sends a notification whose position in the output matters.
func (s *socket) sendMark(f *follower, mark any) error {
	switch m := mark.(type) {
	case *wire.Warning:
		return s.notify(wire.MethodWarning, m)
	case *wire.Resized:
		r := *m // the mark belongs to all who read it
		r.Offset = f.offset
		return s.notify(wire.MethodResized, &r)
	case *wire.Screen:
		part := *m
		part.Offset = f.offset
		return s.notify(wire.MethodScreen, &part)
	case *wire.Completed:
		f.nextCompleted = true
		f.credit.complete()
		return s.notify(wire.MethodCompleted, m)
	}
	s.log.Error("unknown mark in a transcript", "session", s.sessionID(), "execution", f.id)
	return nil
}

// notify writes a notification immediately, ahead of the queue.
func (s *socket) notify(method string, params any) error {
	return s.send(&item{method: method, result: params})
}

// pull reads from the cursor into buf while the pieces join held, no further than the credit goes.
// Without credit it reads one byte, to learn whether a mark or a gap comes first: these need none.
// It reports whether more output may join what is held.
func (f *follower) pull(buf pullBuffer) (more bool) {
	f.at = wire.MaxOutputHeader
	f.held = buf[f.at : f.at+copy(buf[f.at:], f.held)]
	limit := int(min(int64(buf.room()), max(f.credit.room(), 1)))
	for !f.hasNext && !f.ended && len(f.held) <= buf.room()/2 && len(f.held) < limit {
		// Cleared before Next: the notification may arrive before Next has returned.
		f.ready.Store(false)
		free := f.at + len(f.held)
		piece, err := f.cursor.Next(buf[free : f.at+limit])
		switch {
		case errors.Is(err, transcript.ErrWait):
			return false
		case err != nil:
			// io.EOF, or the cursor was closed: there is no more.
			f.ended = true
		default:
			f.add(buf, piece)
		}
	}
	f.ready.Store(true)
	return !f.hasNext && !f.ended
}

// add joins a piece to held, or makes it next.
func (f *follower) add(buf pullBuffer, p transcript.Piece) {
	switch {
	case len(f.held) == 0:
		f.next, f.hasNext = p, true
		if p.Mark == nil {
			f.advance()
		}
	case p.Mark == nil && p.Gap == 0 && p.Stream == f.stream && p.Truncated == f.truncated && !f.lineIsWhole():
		f.held = buf[f.at : f.at+len(f.held)+len(p.Data)]
		f.offset = p.Offset
	default:
		f.next, f.hasNext = p, true
	}
}

// lineIsWhole reports whether held is a truncated line up to its end. Nothing joins that.
func (f *follower) lineIsWhole() bool { return f.truncated && f.held[len(f.held)-1] == '\n' }

// advance makes next the held piece. It was pulled behind what was held.
func (f *follower) advance() {
	p := f.next
	f.next, f.hasNext = transcript.Piece{}, false
	f.gap += p.Gap
	f.at += len(f.held)
	f.held, f.stream, f.truncated, f.offset = p.Data, p.Stream, p.Truncated, p.Offset
}

// keep moves what is held out of the buffer at the end of a turn.
func (f *follower) keep() {
	if f.rest = append(f.rest[:0], f.held...); len(f.rest) == 0 && !f.ready.Load() {
		f.rest = nil
	}
	f.held = f.rest
}

// commit records that what step wrote has reached the network connection.
func (f *follower) commit() {
	f.sent, f.completed = f.nextSent, f.nextCompleted
}

// close ends the follower. The transcript still has what it held.
func (f *follower) close() {
	f.cursor.Close()
	f.held, f.rest, f.hasNext, f.gap, f.drop = nil, nil, false, 0, true
	f.ready.Store(false)
}

// partialRune returns the length of the incomplete rune at the end of b.
func partialRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
