package proc

import (
	"errors"
	"syscall"
)

var (
	// ErrKilled means that the tree was killed before it started.
	ErrKilled = errors.New("killed before it started")
	// ErrClosed is returned once the Runner is closed.
	ErrClosed = errors.New("runner is closed")
	// ErrStarted is returned by a second Start of one tree.
	ErrStarted = errors.New("tree was started before")
	// ErrNoRunner means that no runner took the command in time.
	ErrNoRunner = errors.New("no runner is available")
	// ErrLost means that the init died before the command started.
	ErrLost = errors.New("runner lost before the command started")
)

// StartError says why the system refused a command, in the words of a shell.
type StartError struct {
	Message string        // such as "foo: command not found"
	Errno   syscall.Errno // ENOENT, EACCES, ENOTDIR, E2BIG, ENOEXEC, ...
}

func (e *StartError) Error() string { return "troupe: " + e.Message }

// Unwrap lets errors.Is(err, fs.ErrNotExist) and the like work.
func (e *StartError) Unwrap() error { return e.Errno }

// ExitCode returns what a shell would exit with: 127 for a command that does not exist, 126 for one
// that cannot be executed.
func (e *StartError) ExitCode() int {
	if e.Errno == syscall.ENOENT {
		return 127
	}
	return 126
}
