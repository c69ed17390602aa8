package k8s

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimiterGivesBack: whatever way a review ends, or fails to start, its place is free again.
func TestLimiterGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		empty := func(when string) {
			t.Helper()
			if n := l.pending.Load(); n != 0 || len(l.slots) != 0 {
				t.Fatalf("%s: %d pending, %d slots are taken", when, n, len(l.slots))
			}
		}
		for range maxReviews {
			if err := l.acquire(background()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(background(), time.Second)
		defer cancel()
		if err := l.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a slot: %v", err)
		}
		for range maxReviews {
			l.release()
		}
		empty("after the slots were full")

		for l.rate.TryAccept() { // the burst is used up
		}
		ctx, cancel = context.WithTimeout(background(), time.Millisecond)
		defer cancel()
		if err := l.acquire(ctx); err == nil {
			t.Error("a review started without a token of the rate")
		}
		empty("after the rate was used up")
	})
}

// TestLimiterTurnsAway: a request above the bound fails at once and takes no place.
func TestLimiterTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		ctx, cancel := context.WithCancel(background())
		results := make(chan error, maxPending)
		for range maxPending {
			go func() { results <- l.acquire(ctx) }()
		}
		synctest.Wait()
		for range 10 {
			began := time.Now()
			if err := l.acquire(ctx); !errors.Is(err, errBusy) || time.Since(began) > 0 {
				t.Errorf("above the bound: %v after %v", err, time.Since(began))
			}
		}
		if n := l.pending.Load(); n != maxPending {
			t.Errorf("%d pending, want %d", n, maxPending)
		}
		cancel()
		started := 0
		for range maxPending {
			if <-results == nil {
				started++
			}
		}
		if started != maxReviews {
			t.Errorf("%d reviews ran at once, want %d", started, maxReviews)
		}
	})
}
