package gateway

import (
	"math"
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// maxGaps bounds the gaps within a window that are told from bytes. Output behind more of them
	// waits until the client has acknowledged that it knows of some.
	maxGaps = 64
	// maxCredits bounds what the socket remembers of executions whose end the client has not
	// acknowledged. A session remembers fewer finished executions.
	maxCredits = 512
)

// credit is how far the client was sent an execution's output, how far it says that it has
// processed it, and how far it may be sent on. The writer and the reader share it.
type credit struct {
	window int64 // bytes that may be sent beyond acked; 0: no bound

	mu        sync.Mutex
	sent      int64 // transcript position up to which output was handed to the connection
	acked     int64
	gaps      []gap // between acked and sent
	completed bool  // process.completed was handed to the connection
	ackedEnd  bool  // and acknowledged
	ended     bool  // the follower is gone
}

// gap is missing output: size bytes up to the position end.
type gap struct{ end, size int64 }

// room returns how many bytes may be sent.
func (c *credit) room() int64 {
	if c.window == 0 {
		return math.MaxInt64
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	under := c.sent - c.acked
	for _, g := range c.gaps {
		under -= min(g.size, g.end-c.acked)
	}
	return max(c.window-under, 0)
}

// send records that output up to offset is about to be written, the last missing bytes of which
// are a gap. It comes before the write, because the client may answer before the write returns.
func (c *credit) send(offset, missing int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.gaps) - 1
	switch {
	case missing == 0 || c.window == 0:
	case last >= 0 && c.gaps[last].end == c.sent:
		c.gaps[last] = gap{end: c.sent + missing, size: c.gaps[last].size + missing}
	case len(c.gaps) < maxGaps:
		c.gaps = append(c.gaps, gap{end: c.sent + missing, size: missing})
	}
	c.sent = offset
}

// complete records that process.completed is about to be written.
func (c *credit) complete() {
	c.mu.Lock()
	c.completed = true
	c.mu.Unlock()
}

// end records that nothing more will be sent.
func (c *credit) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
}

// ack takes a client's word. It reports whether that was news. What the client cannot have
// processed changes nothing and is an error.
func (c *credit) ack(p *wire.AckParams) (news bool, err *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case p.Offset > c.sent:
		return false, wire.Errorf(wire.CodeInvalidParams,
			"offset %d is beyond %d, up to which this connection was sent the output of execution %s",
			p.Offset, c.sent, p.ExecutionID)
	case p.Completed && !c.completed:
		return false, wire.Errorf(wire.CodeInvalidParams,
			"completed must be false: this connection was not sent process.completed of execution %s", p.ExecutionID)
	}
	if p.Offset <= c.acked && (c.ackedEnd || !p.Completed) {
		return false, nil
	}
	c.acked = max(c.acked, p.Offset)
	c.ackedEnd = c.ackedEnd || p.Completed
	kept := c.gaps[:0]
	for _, g := range c.gaps {
		if g.end > c.acked {
			kept = append(kept, g)
		}
	}
	c.gaps = kept
	return true, nil
}

// forgettable reports whether nothing about the execution's output is open: nothing more is sent,
// and no ack is awaited.
func (c *credit) forgettable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended && (c.window == 0 || c.ackedEnd)
}

// unread returns the position from which the client still has to process the output. With ok false
// it has acknowledged the end.
func (c *credit) unread() (from int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked, !c.ackedEnd
}

// setCredit makes c the credit of an execution.
func (s *socket) setCredit(execution string, c *credit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credits == nil {
		s.credits = make(map[string]*credit)
	}
	for id, old := range s.credits {
		if len(s.credits) < maxCredits {
			break
		}
		if old.isEnded() {
			delete(s.credits, id)
		}
	}
	s.credits[execution] = c
}

func (c *credit) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// endCredit is called when an execution's follower is gone.
func (s *socket) endCredit(execution string, c *credit) {
	c.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetCredit(execution, c)
}

// forgetCredit drops c if nothing about it is open. Called with mu held.
func (s *socket) forgetCredit(execution string, c *credit) {
	if s.credits[execution] != c || !c.forgettable() {
		return
	}
	if delete(s.credits, execution); len(s.credits) == 0 {
		s.credits = nil // a Go map does not shrink: https://go.dev/issue/20135
	}
}

// acknowledge takes an ack of the client, and lets the writer go on at once. It reports whether the
// engine must know. The engine checks acks for executions that this connection does not follow.
func (s *socket) acknowledge(p *wire.AckParams) (pass bool, err *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.credits[p.ExecutionID]
	if c == nil {
		return true, nil
	}
	if pass, err = c.ack(p); pass {
		s.forgetCredit(p.ExecutionID, c)
		s.signal()
	}
	return pass, err
}
