package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// resumeRoom is how long a client that comes back may wait for a place among those that have yet to
// send resume.
const resumeRoom = 5 * time.Second

// resumes are the sockets that hold no session until their client sends resume: at most a quarter of
// all sockets. A client that comes back does so at once, so the one that has waited longest gives
// way to the next.
type resumes struct {
	permits *permits

	mu      sync.Mutex // may be taken with a socket's
	awaited []*socket  // the oldest first
}

// enter waits for a place. Its caller passes the socket to add or gives the place back with leave.
func (r *resumes) enter(ctx context.Context, g *Gateway, subject string) error {
	if r.permits.tryAcquire(subject) {
		return nil
	}
	r.closeLongest(g)
	ctx, cancel := context.WithTimeout(ctx, resumeRoom)
	defer cancel()
	if !r.permits.acquire(subject, ctx.Done()) {
		return errTooManyResumes
	}
	return nil
}

func (r *resumes) leave(subject string) { r.permits.release(subject) }

// closeLongest closes the socket that has waited longest. Its place is free once it has ended.
func (r *resumes) closeLongest(g *Gateway) {
	r.mu.Lock()
	var longest *socket
	if len(r.awaited) > 0 {
		longest, r.awaited = r.awaited[0], r.awaited[1:]
	}
	r.mu.Unlock()
	if longest != nil {
		g.metrics.refused.WithLabelValues(refusedUnresumed).Inc()
		longest.Disconnect(wire.CauseReadTimeout)
	}
}

// add counts a socket that has a place.
func (r *resumes) add(s *socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.resumePlace = true
	r.awaited = append(r.awaited, s)
}

// remove gives a socket's place back, when it has resumed a session or has ended.
func (r *resumes) remove(s *socket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.resumePlace {
		return
	}
	s.resumePlace = false
	if i := slices.Index(r.awaited, s); i >= 0 {
		r.awaited = slices.Delete(r.awaited, i, i+1)
	}
	r.leave(s.subject)
}
