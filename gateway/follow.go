package gateway

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// pullSize is how much of a transcript is read at a time: what fits a message and is carried over to the next.
const pullSize = wire.MaxOutputMessage

var pullBuffers = sync.Pool{New: func() any { return new([pullSize]byte) }}

// follower streams one execution's transcript to its client. It belongs to the writer, but for ready.
type follower struct {
	id       string
	encoding wire.Encoding
	cursor   actors.Cursor
	ready    atomic.Bool // there may be something to send

	// What was pulled and not sent yet, in order: gap, held, then behind or end.
	buf    *[pullSize]byte // nil while nothing is held
	gap    int64
	held   []byte // bytes of one stream
	stream transcript.Stream
	cut    bool             // held is one truncated line
	offset int64            // of the transcript, after held
	behind transcript.Piece // does not join held: another stream, a gap, a mark
	more   bool             // behind is set
	ended  bool             // the cursor gave io.EOF

	// What the client has. The next values count once they are written to the socket.
	sent, nextSent           int64
	completed, nextCompleted bool
	drop                     bool // nothing more will come
}

// follow opens a feed. A second one for an execution replaces the first.
func (c *conn) follow(feed actors.Feed) error {
	f := &follower{id: feed.ExecutionID, encoding: feed.Encoding}
	if f.encoding == wire.EncodingUTF8 {
		f.encoding = "" // the default is not shown in messages
	}
	f.ready.Store(true)
	cursor, err := feed.Open(func() {
		f.ready.Store(true)
		c.signal()
	})
	if err != nil {
		c.log.Error("output cannot be followed", "session", c.sessionID(), "execution", feed.ExecutionID, "err", err)
		return c.notify(wire.MethodError, &wire.ProcessError{
			ExecutionID: feed.ExecutionID, Error: wire.Errorf(wire.CodeInternal, "the output cannot be read"),
		})
	}
	f.cursor = cursor
	f.sent = cursor.Offset()
	f.nextSent, f.offset = f.sent, f.sent
	for i, old := range c.following {
		if old.id == f.id {
			old.close()
			c.following[i] = f
			return nil
		}
	}
	c.following = append(c.following, f)
	return nil
}

// nextFollower returns the one whose turn it is among those that have something, or nil.
func (c *conn) nextFollower() *follower {
	for i := range c.following {
		at := (c.turn + i) % len(c.following)
		if f := c.following[at]; f.ready.Load() {
			c.turn = at + 1
			return f
		}
	}
	return nil
}

// unfollowEnded drops the followers that have come to their end.
func (c *conn) unfollowEnded() {
	kept := c.following[:0]
	for i, f := range c.following {
		switch {
		case !f.drop:
			kept = append(kept, f)
		case i < c.turn:
			c.turn--
		}
	}
	clear(c.following[len(kept):])
	c.following = kept
}

// step sends one message of f's output, and the marks that follow it at once.
func (c *conn) step(f *follower) error {
	if f.drop {
		return nil // replaced in this very round
	}
	f.pull()
	if f.holds() {
		if err := c.sendOutput(f); err != nil {
			return err
		}
	}
	for f.pull(); f.more && !f.holds(); f.pull() {
		mark := f.behind.Mark
		if mark == nil {
			f.promote() // and let others have their turn
			return nil
		}
		f.more = false
		if err := c.sendMark(f, mark); err != nil {
			return err
		}
	}
	if !f.more && !f.holds() {
		f.recycle()
		if f.ended {
			f.close()
		}
	}
	return nil
}

// holds reports whether there is output to send before whatever is behind.
func (f *follower) holds() bool { return len(f.held) > 0 || f.gap > 0 }

// sendOutput sends as much of what is held as one message takes.
func (c *conn) sendOutput(f *follower) error {
	o := wire.Output{
		ExecutionID: f.id, Type: f.stream.String(), Encoding: f.encoding, Truncated: f.cut,
		Offset: f.offset, Gap: f.gap,
	}
	out, n := wire.AppendOutput(c.buffer(), &o, f.held, wire.MaxOutputMessage)
	if err := c.writeMessage(out); err != nil {
		return err
	}
	if f.gap > 0 {
		c.g.metrics.gaps.Inc()
		c.g.metrics.gapBytes.Add(float64(f.gap))
	}
	f.held, f.gap = f.held[n:], 0
	f.nextSent = f.offset - int64(len(f.held))
	return nil
}

// sendMark sends a notification that has its place in the output.
func (c *conn) sendMark(f *follower, mark any) error {
	switch m := mark.(type) {
	case *wire.Warning:
		return c.notify(wire.MethodWarning, m)
	case *wire.Completed:
		f.nextCompleted = true
		return c.notify(wire.MethodCompleted, m)
	}
	c.log.Error("unknown mark in a transcript", "session", c.sessionID(), "execution", f.id)
	return nil
}

// notify writes a notification now.
func (c *conn) notify(method string, params any) error {
	return c.send(&item{method: method, result: params})
}

// pull reads what is there, as far as it joins what is held.
func (f *follower) pull() {
	for !f.more && !f.ended && len(f.held) <= pullSize/2 {
		if f.buf == nil {
			f.takeBuffer()
		}
		if len(f.held) > 0 && &f.held[0] != &f.buf[0] {
			f.held = f.buf[:copy(f.buf[:], f.held)]
		}
		// Before Next, because the notification may come while it returns.
		f.ready.Store(false)
		piece, err := f.cursor.Next(f.buf[len(f.held):])
		switch {
		case errors.Is(err, transcript.ErrWait):
			if f.holds() {
				f.ready.Store(true)
			}
			return
		case err != nil:
			// io.EOF, or the cursor was closed: either way it has no more.
			f.ended = true
		default:
			f.add(piece)
		}
	}
	f.ready.Store(true)
}

// add joins a piece to what is held, or puts it behind.
func (f *follower) add(p transcript.Piece) {
	switch {
	case len(f.held) == 0:
		f.behind, f.more = p, true
		if p.Mark == nil {
			f.promote()
		}
	case p.Mark == nil && p.Gap == 0 && p.Stream == f.stream && !p.Truncated && !f.cut:
		f.held = f.buf[:len(f.held)+len(p.Data)]
		f.offset = p.Offset
	default:
		f.behind, f.more = p, true
	}
}

// promote makes the piece behind the one that is held.
func (f *follower) promote() {
	p := f.behind
	f.behind, f.more = transcript.Piece{}, false
	f.gap += p.Gap
	f.held, f.stream, f.cut, f.offset = p.Data, p.Stream, p.Truncated, p.Offset
}

// settle says that what step wrote has reached the socket.
func (f *follower) settle() {
	f.sent, f.completed = f.nextSent, f.nextCompleted
}

func (f *follower) takeBuffer() {
	b, ok := pullBuffers.Get().(*[pullSize]byte)
	if !ok {
		b = new([pullSize]byte)
	}
	f.buf = b
}

// recycle gives the buffer back when nothing is held in it.
func (f *follower) recycle() {
	if f.buf != nil {
		pullBuffers.Put(f.buf)
		f.buf, f.held = nil, nil
	}
}

// close ends the follower. What it held is in the transcript still.
func (f *follower) close() {
	f.cursor.Close()
	f.held, f.more, f.gap, f.drop = nil, false, 0, true
	f.ready.Store(false)
	f.recycle()
}
