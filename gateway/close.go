package gateway

import (
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// sentPoll is how often awaitSent looks.
	sentPoll = 20 * time.Millisecond
	// closeTimeout bounds the closing handshake: the client must read everything sent before it and
	// answer. Only the socket's own goroutines wait for it.
	closeTimeout = 5 * time.Second
	// deadCloseTimeout bounds the closing handshake with a client that did not answer pings,
	// or did not send what it had begun.
	deadCloseTimeout = 100 * time.Millisecond
)

// closeReasons are sent with the close codes. A reason has at most 123 bytes: a control frame holds
// 125, two of them for the code (https://www.rfc-editor.org/rfc/rfc6455#section-5.5).
var closeReasons = map[wire.Cause]string{
	wire.CauseClientDone:   "bye",
	wire.CauseClientGone:   "the connection broke",
	wire.CausePingTimeout:  "no pong for two ping intervals",
	wire.CauseWriteTimeout: "the client took nothing for the write timeout",
	wire.CauseReadTimeout:  "a message, or resume, did not arrive in time",
	wire.CauseSlowConsumer: "too many notifications were left unread",
	wire.CauseTooBig:       "the message is larger than max-message",
	wire.CauseSessionLimit: "no session is free for this client, try again later",
	wire.CauseSessionEnded: "the session has ended",
	wire.CauseNoSession:    "no such session, or the wrong token",
	wire.CauseSessionLost:  "the pod that owned the session is gone",
	wire.CauseDraining:     "the server is stopping, connect again",
	wire.CauseInternal:     "internal error",
}

// end ends the connection without sending what is queued. The first cause counts, also when it came
// from a Disconnect whose queue is still being flushed.
func (s *socket) end(cause wire.Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(cause)
}

func (s *socket) endLocked(cause wire.Cause) {
	if s.ending == "" {
		s.ending = cause
	}
	select {
	case <-s.dead:
	default:
		close(s.dead)
	}
	s.capacity.Broadcast()
}

// abort closes the connection at once, which unblocks its goroutines.
func (s *socket) abort() {
	s.end(wire.CauseDraining)
	s.conn.abort()
}

// finish runs as the writer returns. It tells the engine, closes the socket and waits for the other
// goroutines.
func (s *socket) finish() {
	s.end(wire.CauseInternal) // has no effect if a cause is set, but the reader must see the end
	delivered := s.unfollow()
	s.release()
	s.mu.Lock()
	cause, session := s.ending, s.session
	s.queue, s.requests = nil, nil
	s.mu.Unlock()

	s.g.metrics.closed.WithLabelValues(string(cause)).Inc()
	s.log.Info("connection closed", "session", session, "subject", s.subject, "remote", s.remote,
		"cause", string(cause), "seconds", time.Since(s.opened).Seconds())
	// Tell the engine first: closing the socket may take seconds if the client is gone.
	s.engineMu.Lock()
	s.closed = true
	s.engineMu.Unlock()
	s.engine.Closed(cause, delivered)

	s.closeSocket(cause)
	<-s.readerDone
	s.g.remove(s)
}

// closeSocket sends the close frame, if one can be sent, and closes.
func (s *socket) closeSocket(cause wire.Cause) {
	wait := closeTimeout
	switch cause {
	case wire.CauseWriteTimeout:
		wait = 0 // the write stopped inside a message: a close frame would become part of it
	case wire.CausePingTimeout, wire.CauseReadTimeout:
		wait = deadCloseTimeout
	}
	if wait == closeTimeout {
		s.awaitSent()
	}
	if wait > 0 {
		timeout := time.AfterFunc(wait, s.conn.abort)
		_ = s.ws.Close(websocket.StatusCode(cause.Code()), closeReasons[cause]) // the client may be gone
		timeout.Stop()
	}
	_ = s.ws.CloseNow() // it may be closed already
	s.conn.abort()
	s.conn.turn.GiveBack() // the closing handshake reads, too
}

// awaitSent waits until the client has what was written to it, as long as it takes some of that
// within each write timeout. Its reader may be slower than the closing handshake allows, and what is
// under way would be lost with the server.
func (s *socket) awaitSent() {
	left, deadline := s.conn.unsent(), time.Now().Add(s.g.cfg.WriteTimeout)
	for left > 0 && time.Now().Before(deadline) {
		select {
		case <-s.readerDone: // it has closed, or Close of the gateway aborts the connection
			return
		case <-time.After(sentPoll):
		}
		if now := s.conn.unsent(); now < left {
			left, deadline = now, time.Now().Add(s.g.cfg.WriteTimeout)
		}
	}
}

// unfollow closes the cursors. It maps each execution that the client has not followed to its end
// to the offset up to which it has the output: what it acknowledged or, if it sends no acks, what
// was written.
func (s *socket) unfollow() map[string]int64 {
	delivered := make(map[string]int64)
	for _, f := range s.following {
		if f.credit.window == 0 && !f.completed {
			delivered[f.id] = f.sent
		}
		f.close()
	}
	s.following = nil
	s.mu.Lock()
	for id, c := range s.credits {
		if from, unread := c.unread(); unread && c.window > 0 {
			delivered[id] = from
		}
	}
	s.credits = nil
	s.mu.Unlock()
	// Feeds that are still queued: the offset at which they would have begun.
	for _, it := range s.take() {
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
