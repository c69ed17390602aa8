package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// write is the writer goroutine. It alone sends messages, and it ends the connection.
func (s *socket) write() {
	defer s.finish()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in the writer", "session", s.sessionID(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.end(wire.CauseInternal)
		}
	}()
	ticks := time.NewTimer(s.g.cfg.PingInterval)
	defer ticks.Stop()
	var unacked <-chan time.Time // ends the wait for acks after Disconnect
	for !s.over() {
		// Read before the round, which then sends everything queued before Disconnect.
		leaving := s.leaving()
		worked, err := s.round()
		if err != nil {
			s.end(s.writeCause())
			return
		}
		if worked {
			unacked = nil
			select {
			case <-ticks.C:
				s.tick(ticks)
			default:
			}
			continue
		}
		if leaving && !s.awaitsAck() {
			return
		}
		if leaving && unacked == nil {
			unacked = time.After(s.g.cfg.WriteTimeout)
		}
		s.release()
		select {
		case <-s.wake:
		case <-s.dead:
		case <-ticks.C:
			s.tick(ticks)
		case <-unacked:
			return
		}
	}
}

// over reports whether the writer must stop sending.
func (s *socket) over() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// leaving reports whether Disconnect was called: the connection ends once everything is sent. The
// client may take its time for that, as long as it takes something within each write timeout.
// Close of the gateway sets a limit when the server stops.
func (s *socket) leaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushing
}

// round sends what is queued and then one message of output; the executions take turns. Everything
// goes out in as few packets as possible. It returns false if there was nothing to send.
func (s *socket) round() (worked bool, err error) {
	if worked, err = s.sendPong(); err != nil {
		return true, err
	}
	items := s.take()
	var f *follower
	if len(items) == 0 {
		if f = s.nextFollower(); f == nil {
			return worked, nil
		}
	}
	s.conn.cork()
	defer func() {
		if flushErr := s.conn.uncork(); err == nil {
			err = flushErr
		}
		if err == nil {
			s.commit(items, f)
		}
	}()
	for i := range items {
		if err := s.send(&items[i]); err != nil {
			s.requeue(items[i:])
			return true, err
		}
	}
	if f == nil {
		f = s.nextFollower() // the items may have brought one
	}
	if f != nil {
		return true, s.step(f)
	}
	return true, nil
}

// commit accounts for a round that was written. A round that failed counts as not sent, although
// part of it may have arrived.
func (s *socket) commit(items []item, f *follower) {
	if f != nil {
		f.commit()
		s.claim(f)
		s.unfollowEnded()
	}
	if len(items) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range items {
		if items[i].size > 0 {
			s.requestDone(items[i].size)
		}
	}
}

// claimEvery is how often output is acknowledged in the place of a client that sends no acks: four
// times within the window of an execution that retains what is unread.
const claimEvery = 256 << 10

// claim acknowledges what was written in the place of a client that sends no acks: now and then, and
// the end. Survivors of the command may still write after it: that is acknowledged as it is written.
func (s *socket) claim(f *follower) {
	end := f.completed && (!f.claimedEnd || f.sent > f.claimed && !f.ready.Load())
	if f.credit.window > 0 || !end && f.sent-f.claimed < claimEvery {
		return
	}
	f.claimed, f.claimedEnd = f.sent, f.completed
	s.request(nil, &wire.AckParams{ExecutionID: f.id, Offset: f.sent, Completed: f.completed})
}

// send writes one item.
func (s *socket) send(it *item) error {
	var err error
	out := s.buffer()
	switch {
	case it.feed != nil:
		return s.follow(*it.feed)
	case it.answer:
		out, err = wire.AppendResponse(out, it.id, it.result, it.err)
	default:
		out, err = wire.AppendNotification(out, it.method, it.result)
	}
	if err != nil {
		// The engine's value has no JSON form. The client still needs an answer to its request.
		s.log.Error("message not encoded", "session", s.sessionID(), "method", it.method, "err", err)
		if !it.answer {
			return nil
		}
		out, err = wire.AppendResponse(s.buffer(), it.id, nil,
			wire.Errorf(wire.CodeInternal, "the answer could not be encoded"))
		if err != nil {
			return err
		}
	}
	return s.writeMessage(websocket.MessageText, out)
}

// writeMessage writes one message. netConn bounds the write, so it needs no context.
func (s *socket) writeMessage(typ websocket.MessageType, b []byte) error {
	s.sent++
	s.g.metrics.messagesSent.Inc()
	return s.ws.Write(context.Background(), typ, b)
}

// writeCause returns the cause of a failed write.
func (s *socket) writeCause() wire.Cause {
	if s.conn.stalled.Load() {
		return wire.CauseWriteTimeout
	}
	// The reader knows whether the client closed in order: a write fails in that case too.
	wait := time.NewTimer(readerTimeout)
	defer wait.Stop()
	select {
	case <-s.readerDone:
	case <-wait.C:
	}
	if s.conn.aborted.Load() {
		return wire.CauseWriteTimeout
	}
	return wire.CauseClientGone
}

// readerTimeout is how long the writer waits, after a write has failed, for the reader to fail as
// well. The reader does so at once unless it waits for capacity.
const readerTimeout = time.Second
