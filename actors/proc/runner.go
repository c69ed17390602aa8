//go:build linux

package proc

import (
	"errors"
	"log/slog"
)

// Config says where the runner is.
type Config struct {
	Binary    string            // embedded mode: path of troupe-runner, started as a child
	Socket    string            // socket mode: path to listen on for a runner that dials in. Exactly one of the two is set
	WarmInits int               // inits kept waiting for a command; 0: 8
	Cgroup    string            // embedded mode: "auto" (also ""), "off" or a cgroup directory to work in
	Logger    *slog.Logger      // nil: slog.Default()
	OnEvent   func(RunnerEvent) // nil: nobody is told. Must not block
}

// RunnerEvent is a fact about the runner itself.
type RunnerEvent struct {
	Kind  RunnerEventKind
	Count int // processes killed, for RunnerEscaped
}

// RunnerEventKind is what happened to the runner.
type RunnerEventKind string

// The events of a runner's life.
const (
	RunnerUp        RunnerEventKind = "up"        // the first runner is there
	RunnerLost      RunnerEventKind = "lost"      // it died or its connection closed; every tree is dead
	RunnerRestarted RunnerEventKind = "restarted" // another runner took its place
	RunnerEscaped   RunnerEventKind = "escaped"   // processes whose init was killed were killed by the runner
)

// Status is a snapshot of the runner.
type Status struct {
	Up          bool
	Restarts    int    // runners after the first
	Containment string // "cgroup+tree" or "tree"
	Escaped     int    // processes killed after their init was killed, in total
	PID         int    // of the runner, in its own PID namespace; 0 when down
}

// Runner is trouped's handle on the runner process.
type Runner struct{}

// Open starts the runner and waits for its hello (embedded mode), or listens
// for one and returns (socket mode).
func Open(cfg Config) (*Runner, error) { return nil, errors.New("not implemented") }

// Status returns a snapshot.
func (r *Runner) Status() Status { return Status{} }

// NewTree registers a tree before anything of it runs.
func (r *Runner) NewTree(owner, id string) *Tree { return nil }

// OwnerDone is closed once no tree of owner is registered and not dead.
func (r *Runner) OwnerDone(owner string) <-chan struct{} { return nil }

// Close kills every tree, waits until all are dead and stops the runner.
func (r *Runner) Close() error { return nil }
