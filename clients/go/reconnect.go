package troupe

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// stableAfter is how long a connection must last to reset the backoff. Without it, a client whose
// connections end immediately would reconnect at full rate.
const stableAfter = 5 * time.Second

// run serves one socket after another until the session ends.
func (c *Client) run(s *socket) {
	defer close(c.stopped)
	attempt := 0
	for {
		begun := time.Now()
		err := s.serve()
		c.socketLost(websocket.CloseStatus(err) == websocket.StatusMessageTooBig)
		if c.ctx.Err() != nil {
			c.finish(context.Cause(c.ctx))
			return
		}
		if end := endOfSocket(err); end != nil {
			c.finish(end)
			return
		}
		if c.drained(err) {
			c.log.Info("server has drained the session", "session", c.ID())
			c.finish(&sessionEnd{ErrSessionEnded, errDrained})
			return
		}
		if time.Since(begun) >= stableAfter {
			attempt = 0
		}
		c.log.Info("connection lost", "session", c.ID(), "err", err)
		c.opt.OnNotice(Notice{Kind: NoticeLost, Err: err})
		if s, attempt, err = c.reconnect(attempt, err); err != nil {
			c.finish(err)
			return
		}
	}
}

// drained reports whether err closes a drained session whose executions have all been received, so
// that there is nothing to resume.
func (c *Client) drained(err error) bool {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	if !draining || websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		return false
	}
	for _, e := range c.followed() {
		if !e.received() {
			return false
		}
	}
	return true
}

// reconnect resumes the session, trying until the resume window has passed.
// attempt is the number of attempts since the connection was last stable; it returns
// the new number.
func (c *Client) reconnect(attempt int, lost error) (*socket, int, error) {
	began, window := time.Now(), c.resumeWindow()
	// The first attempt follows within Backoff.Initial: usually only the connection was lost.
	delay := c.opt.Backoff.delay(attempt)
	for {
		left := window - time.Since(began)
		if left <= 0 {
			return nil, 0, &sessionEnd{ErrUnreachable, lost}
		}
		if err := sleep(c.ctx, min(delay, left)); err != nil {
			return nil, 0, context.Cause(c.ctx)
		}
		attempt++
		s, err := c.connect(c.ctx, c.resumeRequest())
		if err == nil {
			gone := time.Since(began)
			c.log.Info("session resumed", "session", c.ID(), "attempt", attempt, "after", gone)
			c.opt.OnNotice(Notice{Kind: NoticeResumed, Attempt: attempt, Delay: gone})
			return s, attempt, nil
		}
		if c.ctx.Err() != nil {
			return nil, 0, context.Cause(c.ctx)
		}
		if end := endOfSession(err); end != nil {
			return nil, 0, fmt.Errorf("resuming session %s: %w", c.ID(), end)
		}
		lost, delay = err, max(c.opt.Backoff.delay(attempt), retryAfter(err))
		c.log.Info("cannot resume yet", "session", c.ID(), "attempt", attempt, "err", err)
		c.opt.OnNotice(Notice{Kind: NoticeRetry, Err: err, Attempt: attempt, Delay: delay})
	}
}

func (c *Client) resumeWindow() time.Duration {
	if c.opt.ResumeWindow > 0 {
		return c.opt.ResumeWindow
	}
	if w := c.Limits().ResumeWindow; w > 0 {
		return time.Duration(w * float64(time.Second))
	}
	return DefaultResumeWindow
}

// resumeRequest names every execution that the server knows and whose end was not taken, at the
// position up to which it was taken: resuming acknowledges that position. What is queued arrives
// again and is dropped. Executes that were not answered are sent again instead.
func (c *Client) resumeRequest() *resumeRequest {
	r := &resumeRequest{token: c.Connected().ResumeToken, offsets: make(map[string]int64)}
	for id, e := range c.followed() {
		if offset, follow := e.position(); follow {
			r.offsets[id] = offset
		}
	}
	return r
}

// answered handles the answer to execute, before any output that follows it.
func (e *Execution) answered(r reply) {
	if r.err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.phase = e.phase.after(stepAnswered)
	if err := json.Unmarshal(r.result, &e.result); err != nil {
		e.result = wire.ExecuteResult{Status: "started", ExecutionID: e.id}
	}
}

// follow registers e, so that the server's messages about it are routed to it.
func (c *Client) follow(e *Execution) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return c.end
	}
	if c.execs[e.id] != nil {
		return fmt.Errorf("%w: %s", ErrFollowed, e.id)
	}
	c.execs[e.id] = e
	return nil
}

func (c *Client) lookup(id string) *Execution {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.execs[id]
}

func (c *Client) forget(e *Execution) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[e.id] == e {
		delete(c.execs, e.id)
	}
}

// finish ends everything: requests, executions, the Client.
func (c *Client) finish(end error) {
	c.mu.Lock()
	if c.end != nil {
		c.mu.Unlock()
		return
	}
	c.end = end
	calls := c.removeLocked(func(*call) bool { return true })
	c.mu.Unlock()
	resolve(calls, reply{err: end})
	for _, e := range c.followed() {
		e.fail(end)
	}
	c.hangUp(end)
	close(c.done)
}
