package gateway

import (
	"context"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// tick runs in the writer once per ping interval. It ends a connection whose
// client was not heard for two of them (any byte counts: a client that is
// uploading answers pings late), and pings it otherwise.
func (c *conn) tick(timer *time.Timer) {
	interval := c.g.cfg.PingInterval
	timer.Reset(interval)
	c.mu.Lock()
	gated := c.gated
	c.mu.Unlock()
	if silent := time.Duration(clock() - c.sock.heard.Load()); silent >= 2*interval && !gated {
		c.end(wire.CausePingTimeout)
		return
	}
	if c.sent == 0 {
		// cc-executor's clients and browsers do not see WebSocket pings.
		if err := c.notify(wire.MethodPing, nil); err != nil {
			c.end(c.writeCause())
			return
		}
	}
	c.sent = 0
	// The library's Ping waits for the pong, so it cannot run here. The goroutine
	// lives for a round trip; for a dead peer until the connection ends.
	c.pings.Add(1)
	go func() {
		defer c.pings.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 2*interval)
		defer cancel()
		_ = c.ws.Ping(ctx) // the pong's bytes are what counts, see socket.heard
	}()
}
