package gateway

import "context"

// Turns bound how many requests of something are served at a time. One subject may have half of them while there are
// several subjects.
type Turns struct{ permits *permits }

// NewTurns returns n of them.
func (g *Gateway) NewTurns(n int) *Turns { return &Turns{newPermits(n, g.tokens)} }

// Enter waits for a turn. It returns false if ctx ended first. Its caller gives the turn back with Leave.
func (t *Turns) Enter(ctx context.Context, subject string) bool {
	return t.permits.acquire(subject, ctx.Done())
}

// Leave gives a turn back.
func (t *Turns) Leave(subject string) { t.permits.release(subject) }
