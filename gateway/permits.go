package gateway

import (
	"context"
	"sync"
)

// permits are a number of shares of the server's memory. Those who wait get them in the order in
// which they came, except that one subject may have no more than half while there are several
// subjects, so that it cannot hold up all others.
type permits struct {
	each int // most of one subject

	mu      sync.Mutex
	free    int
	held    map[string]int
	waiting []*permitWaiter
}

type permitWaiter struct {
	subject string
	granted chan struct{} // closed with the permit given
}

// newPermits returns n permits. Without several subjects, one may have all.
func newPermits(n int, several bool) *permits {
	each := n
	if several {
		each = max(n/2, 1)
	}
	return &permits{free: n, each: each, held: make(map[string]int)}
}

// acquire waits for a permit. It returns false if quit was closed first.
func (p *permits) acquire(subject string, quit <-chan struct{}) bool {
	p.mu.Lock()
	w := &permitWaiter{subject, make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.grant()
	p.mu.Unlock()
	select {
	case <-w.granted:
		return true
	case <-quit:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.granted:
		p.giveBack(subject)
	default:
		p.forget(w)
	}
	return false
}

// tryAcquire takes a permit if one is free.
func (p *permits) tryAcquire(subject string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 || p.held[subject] >= p.each {
		return false
	}
	p.free--
	p.held[subject]++
	return true
}

func (p *permits) release(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveBack(subject)
}

// giveBack is release with mu held.
func (p *permits) giveBack(subject string) {
	p.free++
	if p.held[subject]--; p.held[subject] == 0 {
		delete(p.held, subject)
	}
	p.grant()
}

// grant gives the free permits to those who wait and may have one. Called with mu held.
func (p *permits) grant() {
	kept := p.waiting[:0]
	for _, w := range p.waiting {
		if p.free > 0 && p.held[w.subject] < p.each {
			p.free--
			p.held[w.subject]++
			close(w.granted)
			continue
		}
		kept = append(kept, w)
	}
	clear(p.waiting[len(kept):])
	p.waiting = kept
}

// forget removes a waiter. Called with mu held.
func (p *permits) forget(gone *permitWaiter) {
	for i, w := range p.waiting {
		if w == gone {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
}

// used returns how many are held.
func (p *permits) used() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.held {
		n += held
	}
	return n
}

// awaited returns how many wait for one.
func (p *permits) awaited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// Permits bound how many requests of something are served at a time. One subject may have half of
// them while there are several subjects.
type Permits struct{ permits *permits }

// NewPermits returns n of them.
func (g *Gateway) NewPermits(n int) *Permits { return &Permits{newPermits(n, g.tokens)} }

// Enter waits for a permit. It returns false if ctx ended first. Its caller gives the permit back with
// Leave.
func (p *Permits) Enter(ctx context.Context, subject string) bool {
	return p.permits.acquire(subject, ctx.Done())
}

// TryEnter takes a permit if there is one.
func (p *Permits) TryEnter(subject string) bool { return p.permits.tryAcquire(subject) }

// Leave gives a permit back.
func (p *Permits) Leave(subject string) { p.permits.release(subject) }
