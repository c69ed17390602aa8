package actors

import (
	"errors"
	"fmt"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Limits are every bound the engine enforces. A client may ask for less than
// these, never for more. Zero values are refused by Validate unless the field
// says what zero means.
type Limits struct {
	MaxSessions   int           // sessions per pod, running, detached or stopping
	MaxExecutions int           // executions at a time in one session, kept survivors included
	MaxLine       int           // bytes of a line, its newline excluded
	MaxOutput     int64         // bytes of one execution's transcript
	StreamTimeout time.Duration // running time without a byte of output
	MaxDuration   time.Duration // running time of an execution; 0: none
	MaxMemory     int64         // bytes of an execution's tree; 0: none
	CancelGrace   time.Duration // from SIGTERM to SIGKILL
	SurvivorGrace time.Duration // from the command's exit to the kill of survivors that hold its output
	ResumeWindow  time.Duration // a detached session is kept for this long
	IdleTimeout   time.Duration // a session with nothing running is kept for this long
	MaxMessage    int64         // bytes of an inbound message; also the input waiting for one command
	KeepFinished  int           // finished executions a session remembers, with their transcripts
	DrainTimeout  time.Duration // running executions may finish for this long when the server stops

	// Of all executions of one session together. 0: none.
	SessionMemory    int64 // bytes
	SessionProcesses int   // processes and threads
	SessionDisk      int64 // bytes in the session's workspace, and of a single file

	// Of one subject, on this pod. 0: what the limits of all leave it.
	MaxSessionsPerSubject   int // see also Reserved
	MaxExecutionsPerSubject int // executions at a time in all sessions of the subject
}

// DefaultLimits returns the documented defaults.
func DefaultLimits() Limits {
	return Limits{
		MaxSessions:   100,
		MaxExecutions: 8,
		MaxLine:       8192,
		MaxOutput:     10 << 20,
		StreamTimeout: 300 * time.Second,
		CancelGrace:   10 * time.Second,
		SurvivorGrace: 2 * time.Second,
		ResumeWindow:  300 * time.Second,
		IdleTimeout:   time.Hour,
		MaxMessage:    1 << 20,
		KeepFinished:  32,
		DrainTimeout:  300 * time.Second,
	}
}

// Validate reports every field that cannot work, with the flag that sets it.
func (l Limits) Validate() error {
	var errs []error
	positive := func(flag string, ok bool, got any) {
		if !ok {
			errs = append(errs, fmt.Errorf("--%s must be positive, got %v", flag, got))
		}
	}
	positive("max-sessions", l.MaxSessions > 0, l.MaxSessions)
	positive("max-executions", l.MaxExecutions > 0, l.MaxExecutions)
	positive("max-output", l.MaxOutput > 0, l.MaxOutput)
	positive("stream-timeout", l.StreamTimeout > 0, l.StreamTimeout)
	positive("cancel-grace", l.CancelGrace > 0, l.CancelGrace)
	positive("resume-window", l.ResumeWindow > 0, l.ResumeWindow)
	positive("idle-timeout", l.IdleTimeout > 0, l.IdleTimeout)
	positive("max-message", l.MaxMessage > 0, l.MaxMessage)
	positive("keep-finished", l.KeepFinished > 0, l.KeepFinished)
	positive("drain-timeout", l.DrainTimeout > 0, l.DrainTimeout)
	notNegative := func(flag string, got int64) {
		if got < 0 {
			errs = append(errs, fmt.Errorf("--%s must not be negative (0 means none), got %d", flag, got))
		}
	}
	notNegative("max-sessions-per-subject", int64(l.MaxSessionsPerSubject))
	notNegative("max-executions-per-subject", int64(l.MaxExecutionsPerSubject))
	if l.SurvivorGrace <= 0 {
		errs = append(errs, fmt.Errorf("the survivor grace must be positive, got %v", l.SurvivorGrace))
	}
	if l.MaxLine < 64 || l.MaxLine > 1<<20 {
		errs = append(errs, fmt.Errorf("--max-line must be from 64 to 1048576 bytes, got %d", l.MaxLine))
	}
	if l.MaxDuration < 0 {
		errs = append(errs, fmt.Errorf("--max-duration must not be negative (0 means none), got %v", l.MaxDuration))
	}
	if l.MaxMemory < 0 {
		errs = append(errs, fmt.Errorf("--max-memory must not be negative (0 means none), got %d", l.MaxMemory))
	}
	notNegative("session-memory", l.SessionMemory)
	notNegative("session-processes", int64(l.SessionProcesses))
	notNegative("session-disk", l.SessionDisk)
	return errors.Join(errs...)
}

// MaxResumeWindow is the longest resume window that a client may ask for.
func (l Limits) MaxResumeWindow() time.Duration { return max(l.IdleTimeout, l.ResumeWindow) }

// resumeWindow returns the resume window of a session whose client asked for one; 0: it did not.
func (l Limits) resumeWindow(asked time.Duration) time.Duration {
	if asked <= 0 {
		return l.ResumeWindow
	}
	return min(asked, l.MaxResumeWindow())
}

// Wire returns the limits as clients see them.
func (l Limits) Wire() wire.Limits {
	return wire.Limits{
		MaxSessions:   l.MaxSessions,
		MaxExecutions: l.MaxExecutions,
		MaxLine:       l.MaxLine,
		MaxOutput:     l.MaxOutput,
		StreamTimeout: l.StreamTimeout.Seconds(),
		MaxDuration:   l.MaxDuration.Seconds(),
		MaxMemory:     l.MaxMemory,
		CancelGrace:   l.CancelGrace.Seconds(),
		ResumeWindow:  l.ResumeWindow.Seconds(),
		IdleTimeout:   l.IdleTimeout.Seconds(),
		MaxMessage:    l.MaxMessage,
	}
}
