package actors

import "time"

// stopwatch measures running time: it stops while an execution is paused.
type stopwatch struct {
	begun   time.Time // zero: not started
	stopped time.Time // zero: running
	paused  time.Duration
}

func (s *stopwatch) start(now time.Time) { s.begun = now }

func (s *stopwatch) pause(now time.Time) {
	if s.stopped.IsZero() {
		s.stopped = now
	}
}

func (s *stopwatch) resume(now time.Time) {
	if !s.stopped.IsZero() {
		s.paused += now.Sub(s.stopped)
		s.stopped = time.Time{}
	}
}

// elapsed returns the running time until now.
func (s *stopwatch) elapsed(now time.Time) time.Duration {
	if s.begun.IsZero() {
		return 0
	}
	if !s.stopped.IsZero() {
		now = s.stopped
	}
	return now.Sub(s.begun) - s.paused
}
