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
	// Ping of coder/websocket waits for the pong
	// (https://pkg.go.dev/github.com/coder/websocket#Conn.Ping), so it needs its own goroutine.
	// That lives for a round trip, or until the connection to a dead client ends.
	s.pings.Add(1)
	go func() {
		defer s.pings.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 2*interval)
		defer cancel()
		_ = s.ws.Ping(ctx) // the bytes of the pong count, see netConn.heard
	}()
}
