//go:build linux

package proc

import (
	"fmt"
	"time"
)

const (
	// failuresInARow is how many inits in a row must fail to start before commands are said to be
	// impossible. One may fail because its memory or its process was needed for a moment.
	failuresInARow = 3
	// retryStart is the pause before another init is asked for when none could be started. Without
	// it a pod that is not ready, and so gets no commands, would never learn that it could be.
	retryStart = time.Second
	// A runner that starts nothing for this long is replaced, which ends what still runs. Most likely
	// it never will start anything, but that is worth a wait for as long as commands run.
	replaceIdle = 10 * time.Second
	replaceBusy = time.Minute
)

// starts follows whether a runner can start inits. Runner.mu guards it.
type starts struct {
	failures int       // since the last success
	since    time.Time // of the first of them
	why      string    // of the last one
	progress time.Time // when the runner last answered, or was asked for the first of the pending inits
	retry    *time.Timer
}

// asked notes that inits are asked for while so many others are pending.
func (s *starts) asked(pending int) {
	if pending == 0 {
		s.progress = time.Now()
	}
}

func (s *starts) succeeded() { s.failures, s.why, s.progress = 0, "", time.Now() }

func (s *starts) stop() {
	if s.retry != nil {
		s.retry.Stop()
	}
}

// startFailed notes a failure, tries again later if that was the last init that was pending, and
// gives up a runner that has not been able to start one for long. mu is held.
func (r *Runner) startFailed(rc *runnerConn, why string) {
	s := &rc.starts
	if s.failures == 0 {
		s.since = time.Now()
	}
	s.failures++
	s.why, s.progress = why, time.Now()
	r.status.StartFailures++
	if len(rc.idle)+rc.pending > 0 || r.closed || r.conn != rc {
		return
	}
	patience := replaceIdle
	if len(r.trees) > len(r.queue) {
		patience = replaceBusy
	}
	if s.failures >= failuresInARow && time.Since(s.since) > patience {
		r.log.Error("the runner has started no init for long; it is replaced", "failures", s.failures, "err", why)
		r.wg.Go(rc.conn.close) // it exits
		return
	}
	s.stop()
	s.retry = time.AfterFunc(retryStart, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.closed && r.conn == rc {
			r.refill(rc)
		}
	})
}

// cannotStart says why no command could be started now, or "". mu is held.
func (r *Runner) cannotStart() string {
	rc := r.conn
	switch {
	case rc == nil:
		return "no runner is connected"
	case len(rc.idle) > 0:
		return ""
	case rc.starts.failures >= failuresInARow:
		return fmt.Sprintf("the runner could not start any of the last %d inits: %s", rc.starts.failures, rc.starts.why)
	case rc.pending > 0 && time.Since(rc.starts.progress) > startTimeout:
		return fmt.Sprintf("the runner has not started an init for more than %v", startTimeout)
	}
	return ""
}
