package k8s

import (
	"context"
	"sync/atomic"

	"k8s.io/client-go/util/flowcontrol"
)

// The bounds of a limiter. A hundred clients that connect at once get in without delay, and a
// client that sends random tokens cannot overload the API server, which serves the whole cluster.
const (
	maxReviews   = 16  // running
	maxPending   = 256 // running or waiting; beyond it clients fail at once and may retry
	reviewRate   = 100 // started per second, each of at most two requests
	reviewsBurst = 200
)

// limiter bounds reviews: how many run, how many wait, and how many start per second.
type limiter struct {
	pending atomic.Int64 // running or waiting
	slots   chan struct{}
	rate    flowcontrol.RateLimiter
}

func newLimiter() *limiter {
	return &limiter{
		slots: make(chan struct{}, maxReviews),
		rate:  flowcontrol.NewTokenBucketRateLimiter(reviewRate, reviewsBurst),
	}
}

// acquire waits until a review may start. It returns errBusy at once if too many wait already.
// After a nil error the caller must release.
func (l *limiter) acquire(ctx context.Context) error {
	if l.pending.Add(1) > maxPending {
		l.pending.Add(-1)
		return errBusy
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		l.pending.Add(-1)
		return ctx.Err()
	}
	if err := l.rate.Wait(ctx); err != nil {
		l.release()
		return err
	}
	return nil
}

func (l *limiter) release() {
	<-l.slots
	l.pending.Add(-1)
}
