package gateway

import (
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// closeWait is how long the closing handshake may take: the client must read what
	// was sent before, and answer. Until then the socket stays, and nothing else waits for it.
	closeWait = 5 * time.Second
	// deadCloseWait is the same for a client that did not answer pings.
	deadCloseWait = 100 * time.Millisecond
)

// closeReasons are sent with the close codes. At most 123 bytes (RFC 6455 section 5.5).
var closeReasons = map[wire.Cause]string{
	wire.CauseClientDone:   "bye",
	wire.CauseClientGone:   "the connection broke",
	wire.CausePingTimeout:  "no pong for two ping intervals",
	wire.CauseWriteTimeout: "a write took longer than the write timeout",
	wire.CauseSlowConsumer: "too many notifications were left unread",
	wire.CauseTooBig:       "the message is larger than max-message",
	wire.CauseSessionLimit: "no session is free, try again later",
	wire.CauseSessionEnded: "the session has ended",
	wire.CauseNoSession:    "no such session, or the wrong token",
	wire.CauseSessionLost:  "the pod that owned the session is gone",
	wire.CauseDraining:     "the server is stopping, connect again",
	wire.CauseInternal:     "internal error",
}

// end ends the connection without sending what is queued. The first cause counts,
// that of a Disconnect that is being flushed included.
func (c *conn) end(cause wire.Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(cause)
}

func (c *conn) endLocked(cause wire.Cause) {
	if c.ending == "" {
		c.ending = cause
	}
	select {
	case <-c.dead:
	default:
		close(c.dead)
	}
	c.room.Broadcast()
}

// abort cuts the connection off, wherever its goroutines are.
func (c *conn) abort() {
	c.end(wire.CauseDraining)
	c.sock.abort()
}

// finish is the last act of the writer: it tells the engine, closes the socket
// and waits for the other goroutines.
func (c *conn) finish() {
	c.end(wire.CauseInternal) // none, if a cause is set; the reader must see the end
	delivered := c.unfollow()
	c.release()
	c.mu.Lock()
	cause, session := c.ending, c.session
	c.queue, c.requests = nil, nil
	c.mu.Unlock()

	c.g.metrics.closed.WithLabelValues(string(cause)).Inc()
	c.log.Info("connection closed", "session", session, "subject", c.subject, "remote", c.remote,
		"cause", string(cause), "seconds", time.Since(c.opened).Seconds())
	// The engine before the socket: closing it may take seconds when the client is not there.
	c.engineMu.Lock()
	c.closed = true
	c.engineMu.Unlock()
	c.engine.Closed(cause, delivered)

	c.closeSocket(cause)
	<-c.readerDone
	c.pings.Wait()
	c.g.remove(c)
}

// closeSocket sends the close frame, if one can be sent, and closes.
func (c *conn) closeSocket(cause wire.Cause) {
	wait := closeWait
	switch cause {
	case wire.CauseWriteTimeout:
		wait = 0 // a message was cut in the middle: a close frame would be part of it
	case wire.CausePingTimeout:
		wait = deadCloseWait
	}
	if wait > 0 {
		cut := time.AfterFunc(wait, c.sock.abort)
		_ = c.ws.Close(websocket.StatusCode(cause.Code()), closeReasons[cause]) // the peer may be gone
		cut.Stop()
	}
	_ = c.ws.CloseNow() // whatever state it was left in
	c.sock.abort()
}

// unfollow closes the cursors, and returns for each execution whose completion
// was not written the offset up to which its output was.
func (c *conn) unfollow() map[string]int64 {
	delivered := make(map[string]int64)
	for _, f := range c.following {
		if !f.completed {
			delivered[f.id] = f.sent
		}
		f.close()
	}
	c.following = nil
	// Feeds that never had their turn: where they would have begun.
	for _, it := range c.take() {
		if it.feed == nil {
			continue
		}
		cursor, err := it.feed.Open(func() {})
		if err != nil {
			continue
		}
		delivered[it.feed.ExecutionID] = cursor.Offset()
		cursor.Close()
	}
	return delivered
}
