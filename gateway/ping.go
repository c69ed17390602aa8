package gateway

import (
	"context"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// tick runs in the writer once per ping interval. It ends a connection whose client has sent
// nothing for two intervals and pings it otherwise. Any byte counts, because a client that is
// uploading answers pings late.
func (s *socket) tick(timer *time.Timer) {
	interval := s.g.cfg.PingInterval
	timer.Reset(interval)
	s.mu.Lock()
	backpressured := s.backpressured
	s.mu.Unlock()
	if began := s.frameBegan.Load(); began != 0 && time.Duration(clock()-began) >= messageTimeout {
		s.end(wire.CauseReadTimeout)
		return
	}
	if s.takesBacklog() {
		s.conn.heard.Store(clock()) // it will come to the ping
	}
	if silent := time.Duration(clock() - s.conn.heard.Load()); silent >= 2*interval && !backpressured {
		s.end(wire.CausePingTimeout)
		return
	}
	if s.sent == 0 {
		// Browsers do not expose WebSocket pings to pages, and neither do cc-executor's clients.
		if err := s.notify(wire.MethodPing, nil); err != nil {
			s.end(s.writeCause())
			return
		}
	}
	s.sent = 0
	if err := s.conn.control(opPing, nil); err != nil { // the bytes of the pong count, see netConn.heard
		s.end(s.writeCause())
	}
}

// takesBacklog reports whether the client has read, since the last tick, from output that was under
// way to it then: a ping may be behind more of that than it reads in two intervals.
func (s *socket) takesBacklog() bool {
	backlog := int64(s.conn.unsent())
	arrived := s.conn.taken.Load() - backlog
	takes := s.backlog > 0 && arrived > s.arrived
	s.backlog, s.arrived = backlog, arrived
	return takes
}

// pinged is called by the WebSocket library, which then sends no pong itself: see netConn.control.
func (s *socket) pinged(_ context.Context, payload []byte) bool {
	s.mu.Lock()
	s.pong = append(make([]byte, 0, len(payload)), payload...)
	s.mu.Unlock()
	s.signal()
	return false
}

// sendPong answers the last ping of the client, if that was not done.
func (s *socket) sendPong() (sent bool, err error) {
	s.mu.Lock()
	pong := s.pong
	s.pong = nil
	s.mu.Unlock()
	if pong == nil {
		return false, nil
	}
	return true, s.conn.control(opPong, pong)
}
