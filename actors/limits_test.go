package actors

import (
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestLimitsThatCannotWorkAreRefused: each field by itself, with the flag that sets it.
func TestLimitsThatCannotWorkAreRefused(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, c := range []struct {
		flag  string
		set   func(l *Limits, to int64)
		least int64 // that is taken; one less is refused
	}{
		{"max-sessions", func(l *Limits, to int64) { l.MaxSessions = int(to) }, 1},
		{"max-executions", func(l *Limits, to int64) { l.MaxExecutions = int(to) }, 1},
		{"max-line", func(l *Limits, to int64) { l.MaxLine = int(to) }, 64},
		{"max-output", func(l *Limits, to int64) { l.MaxOutput = to }, 1},
		{"stream-timeout", func(l *Limits, to int64) { l.StreamTimeout = time.Duration(to) }, 1},
		{"max-duration", func(l *Limits, to int64) { l.MaxDuration = time.Duration(to) }, 0},
		{"max-memory", func(l *Limits, to int64) { l.MaxMemory = to }, 0},
		{"cancel-grace", func(l *Limits, to int64) { l.CancelGrace = time.Duration(to) }, 1},
		{"resume-window", func(l *Limits, to int64) { l.ResumeWindow = time.Duration(to) }, 1},
		{"idle-timeout", func(l *Limits, to int64) { l.IdleTimeout = time.Duration(to) }, 1},
		{"max-message", func(l *Limits, to int64) { l.MaxMessage = to }, 1},
		{"max-sessions-per-subject", func(l *Limits, to int64) { l.MaxSessionsPerSubject = int(to) }, 0},
		{"max-executions-per-subject", func(l *Limits, to int64) { l.MaxExecutionsPerSubject = int(to) }, 0},
		{"session-memory", func(l *Limits, to int64) { l.SessionMemory = to }, 0},
		{"session-processes", func(l *Limits, to int64) { l.SessionProcesses = int(to) }, 0},
		{"session-disk", func(l *Limits, to int64) { l.SessionDisk = to }, 0},
		{"drain-timeout", func(l *Limits, to int64) { l.DrainTimeout = time.Duration(to) }, 1},
	} {
		l := DefaultLimits()
		c.set(&l, c.least)
		if err := l.Validate(); err != nil {
			t.Errorf("--%s %d is refused: %v", c.flag, c.least, err)
		}
		c.set(&l, c.least-1)
		err := l.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), "--"+c.flag+" ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("--%s %d: %v", c.flag, c.least-1, err)
		}
	}
	l := DefaultLimits()
	for line, ok := range map[int]bool{1 << 20: true, 1<<20 + 1: false} {
		l.MaxLine = line
		if err := l.Validate(); (err == nil) != ok {
			t.Errorf("--max-line %d: %v", line, err)
		}
	}
}

// TestClientsSeeTheLimits: each as it is, none in the place of another.
func TestClientsSeeTheLimits(t *testing.T) {
	got := Limits{
		MaxSessions: 1, MaxExecutions: 2, MaxLine: 3, MaxOutput: 4,
		StreamTimeout: 5 * time.Second, MaxDuration: 6 * time.Second, MaxMemory: 7,
		CancelGrace: 8 * time.Second, ResumeWindow: 9 * time.Second, IdleTimeout: 10 * time.Second, MaxMessage: 11,
	}.Wire()
	want := wire.Limits{
		MaxSessions: 1, MaxExecutions: 2, MaxLine: 3, MaxOutput: 4, StreamTimeout: 5, MaxDuration: 6,
		MaxMemory: 7, CancelGrace: 8, ResumeWindow: 9, IdleTimeout: 10, MaxMessage: 11,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
