package proc

import (
	"syscall"
	"time"
)

// Event is a fact about one tree. The order is: Started or StartFailed, any number of Paused and
// Resumed, at most one Exited, and Dead, which comes last and exactly once for every tree whose
// Start returned nil.
type Event interface{ event() }

// Started reports that the command's program runs (execve succeeded).
type Started struct {
	PID int // also its process group and session, in the runner's PID namespace
}

// StartFailed reports that no command runs. Dead follows. Err is a *StartError if the system
// refused the command itself.
type StartFailed struct{ Err error }

// Paused reports that every process of the tree is stopped.
type Paused struct{}

// Resumed reports that every process of the tree was continued.
type Resumed struct{}

// Exited reports that the command itself has ended. Processes that it started may live on.
type Exited struct {
	Code   int            // exit code; -Signal when a signal ended it
	Signal syscall.Signal // 0 unless a signal ended it
	Core   bool           // it dumped core

	OutOfMemory bool // the kernel killed it because the container or the machine had no memory left

	NoSurvivors bool // no other process of the tree lives; Dead follows at once

	// Survivors are the names of at most 32 of the processes that live on. SurvivorCount counts
	// all.
	Survivors     []string
	SurvivorCount int
}

// Dead reports that every process of the tree is dead and reaped.
type Dead struct {
	// Survivors are the names of at most 32 of the processes that outlived the command and were
	// killed by Sweep or Kill. SurvivorCount counts all.
	Survivors     []string
	SurvivorCount int
	Usage         Usage
	OutOfMemory   bool  // the tree passed Spec.MaxMemory and was killed for it
	Exceeded      Bound // its session exceeded this bound, and the tree was killed for it; "": none
	Lost          bool  // the init or the runner died under the tree, so its exit status is unknown
	RunnerLost    bool  // Lost, and it was the runner
}

// Usage is what the command and every descendant that was waited for consumed, as in getrusage(2).
type Usage struct {
	User, System time.Duration
	MaxRSS       int64 // bytes, of the largest process
}

// NearBound reports that the session of the tree holds nine tenths of what it may, once for each bound.
type NearBound struct {
	Bound       Bound
	Used, Limit int64
}

func (NearBound) event()   {}
func (Started) event()     {}
func (StartFailed) event() {}
func (Paused) event()      {}
func (Resumed) event()     {}
func (Exited) event()      {}
func (Dead) event()        {}
