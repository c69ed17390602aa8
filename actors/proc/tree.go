//go:build linux

package proc

import "syscall"

// Spec is one command.
type Spec struct {
	Argv      []string // Argv[0] without a slash is looked up in the PATH of Env
	Env       []string // the command's whole environment
	Dir       string   // working directory; "": the runner's
	Stdin     bool     // give it a pipe; otherwise /dev/null
	MaxMemory int64    // bytes of the whole tree; 0: no limit
}

// Tree is one command and everything it starts.
type Tree struct{}

// Start starts the command without blocking. It may be called once.
func (t *Tree) Start(spec Spec, events func(Event)) (*Stdio, error) { return nil, nil }

// Signal sends sig to the process group of the command.
func (t *Tree) Signal(sig syscall.Signal) {}

// Terminate sends SIGTERM to every process of the tree.
func (t *Tree) Terminate() {}

// Pause stops every process of the tree.
func (t *Tree) Pause() {}

// Resume continues every process of the tree.
func (t *Tree) Resume() {}

// Sweep kills what survived the command.
func (t *Tree) Sweep() {}

// Kill kills the whole tree.
func (t *Tree) Kill() {}

// Dead is closed when nothing of the tree lives.
func (t *Tree) Dead() <-chan struct{} { return nil }
