package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// outBuffers hold a message being encoded.
var outBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, wire.MaxOutputMessage)
	return &b
}}

// write is the writer goroutine: it alone sends messages, and it ends the connection.
func (c *conn) write() {
	defer c.finish()
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("panic in the writer", "session", c.sessionID(), "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.end(wire.CauseInternal)
		}
	}()
	ticks := time.NewTimer(c.g.cfg.PingInterval)
	defer ticks.Stop()
	for !c.over() {
		// Asked before the round: then that sees everything that came before Disconnect.
		leaving := c.leaving()
		worked, err := c.round()
		if err != nil {
			c.end(c.writeCause())
			return
		}
		if worked {
			select {
			case <-ticks.C:
				c.tick(ticks)
			default:
			}
			continue
		}
		if leaving {
			return
		}
		c.release()
		select {
		case <-c.wake:
		case <-c.dead:
		case <-ticks.C:
			c.tick(ticks)
		}
	}
}

// over reports whether nothing more is to be sent.
func (c *conn) over() bool {
	select {
	case <-c.dead:
		return true
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.flush.IsZero() && time.Now().After(c.flush)
}

// leaving reports whether Disconnect was called: the connection ends once there is nothing to send.
func (c *conn) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.flush.IsZero()
}

// round sends what is queued and then one message of output, the executions
// taking turns. All of it goes into as few packets as it fits. It returns false if there was nothing to send.
func (c *conn) round() (worked bool, err error) {
	items := c.take()
	var f *follower
	if len(items) == 0 {
		if f = c.nextFollower(); f == nil {
			return false, nil
		}
	}
	c.sock.cork()
	defer func() {
		if flushErr := c.sock.uncork(); err == nil {
			err = flushErr
		}
		if err == nil {
			c.settle(items, f)
		}
	}()
	for i := range items {
		if err := c.send(&items[i]); err != nil {
			c.putBack(items[i:])
			return true, err
		}
	}
	if f == nil {
		f = c.nextFollower() // the items may have brought one
	}
	if f != nil {
		return true, c.step(f)
	}
	return true, nil
}

// settle accounts for a round that was written. Of one that failed nothing is claimed, though part of it may have arrived.
func (c *conn) settle(items []item, f *follower) {
	if f != nil {
		f.settle()
		c.unfollowEnded()
	}
	if len(items) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range items {
		if items[i].answer && items[i].size > 0 {
			c.leaveFlight(items[i].size)
		}
	}
}

// send writes one item.
func (c *conn) send(it *item) error {
	var err error
	out := c.buffer()
	switch {
	case it.feed != nil:
		return c.follow(*it.feed)
	case it.answer:
		out, err = wire.AppendResponse(out, it.id, it.result, it.err)
	default:
		out, err = wire.AppendNotification(out, it.method, it.result)
	}
	if err != nil {
		// Something in the engine's value is not JSON. The client must hear of its request.
		c.log.Error("message not encoded", "session", c.sessionID(), "method", it.method, "err", err)
		if !it.answer {
			return nil
		}
		out, err = wire.AppendResponse(c.buffer(), it.id, nil, wire.Errorf(wire.CodeInternal, "the answer could not be encoded"))
		if err != nil {
			return err
		}
	}
	return c.writeMessage(out)
}

// writeMessage writes one text message. The socket bounds it, so it needs no context.
func (c *conn) writeMessage(b []byte) error {
	c.sent++
	c.g.metrics.messagesSent.Inc()
	return c.ws.Write(context.Background(), websocket.MessageText, b)
}

// buffer returns the empty buffer for encoding.
func (c *conn) buffer() []byte {
	if c.out == nil {
		if b, ok := outBuffers.Get().(*[]byte); ok {
			c.out = *b
		}
	}
	return c.out[:0]
}

// release gives back what only a busy writer needs.
func (c *conn) release() {
	if c.out != nil {
		b := c.out[:0]
		outBuffers.Put(&b)
		c.out = nil
	}
	c.sock.idle()
}

// writeCause says why writing failed.
func (c *conn) writeCause() wire.Cause {
	if c.sock.stalled.Load() {
		return wire.CauseWriteTimeout
	}
	// What the client said last decides between done and gone, and the reader knows it: a write fails as well when
	// the client has closed in order.
	wait := time.NewTimer(readerVerdict)
	defer wait.Stop()
	select {
	case <-c.readerDone:
	case <-wait.C:
	}
	if c.sock.cut.Load() {
		return wire.CauseWriteTimeout
	}
	return wire.CauseClientGone
}

// readerVerdict is how long a failed writer waits for the reader to find the same broken connection. It is at once,
// unless the reader waits for room.
const readerVerdict = time.Second
