package gateway

import (
	"strconv"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is actors.Sink: what the engine wants sent. Nothing here blocks.

var _ actors.Sink = (*conn)(nil)

// Reply implements actors.Sink.
func (c *conn) Reply(id wire.ID, result any, err *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(id) == 0 {
		c.enqueue(item{answer: true, id: wire.NullID, err: err, result: result})
		return
	}
	// The engine knows a request by a number of ours (see admit).
	n, perr := strconv.ParseUint(string(id), 10, 64)
	r, known := c.requests[n]
	if perr != nil || !known {
		c.log.Error("answer to no request", "session", c.session, "id", id.String())
		return
	}
	delete(c.requests, n)
	if len(c.requests) == 0 {
		c.requests = nil // a map keeps the size it once had
	}
	c.g.metrics.answered(r.method, err)
	if len(r.id) == 0 {
		c.leaveFlight(r.size)
		return
	}
	if resumed, ok := result.(*wire.ResumeResult); ok && err == nil {
		c.session = resumed.SessionID
	}
	c.enqueue(item{answer: true, id: r.id, result: result, err: err, size: r.size})
}

// Notify implements actors.Sink.
func (c *conn) Notify(method string, params any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if connected, ok := params.(*wire.Connected); ok {
		c.session = connected.SessionID
	}
	c.enqueue(item{method: method, result: params})
}

// Follow implements actors.Sink.
func (c *conn) Follow(feed actors.Feed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enqueue(item{feed: &feed})
}

// Disconnect implements actors.Sink. What the engine sends afterwards is dropped.
func (c *conn) Disconnect(cause wire.Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != "" {
		return
	}
	c.ending = cause
	c.flush = time.Now().Add(c.g.cfg.WriteTimeout)
	c.room.Broadcast()
	c.signal()
}

// enqueue leaves something for the writer, unless the connection is ending. Called with mu held.
func (c *conn) enqueue(it item) bool {
	if c.ending != "" {
		return false
	}
	if !it.answer || it.size == 0 {
		// Not the answer to a request that was admitted, so nothing else bounds it.
		if c.notices++; c.notices > maxNotices {
			c.endLocked(wire.CauseSlowConsumer)
			return false
		}
	}
	c.queue = append(c.queue, it)
	c.signal()
	return true
}

// take returns what is queued, in order, and leaves nothing.
func (c *conn) take() []item {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := c.queue
	c.queue, c.notices = nil, 0
	return items
}

// putBack returns items that were not sent: finish looks for feeds among them.
func (c *conn) putBack(items []item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(items, c.queue...)
}
