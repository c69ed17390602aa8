package proc

import (
	"errors"
	"syscall"
)

var (
	// ErrKilled is why a tree that was killed before it started did not start.
	ErrKilled = errors.New("killed before it started")
	// ErrClosed is returned once the Runner is closed.
	ErrClosed = errors.New("runner is closed")
	// ErrStarted is returned by a second Start of one tree.
	ErrStarted = errors.New("tree was started before")
	// ErrNoRunner is why a command did not start: no runner could take it in time.
	ErrNoRunner = errors.New("no runner is available")
	// ErrLost is why a command did not start: its init died under it.
	ErrLost = errors.New("runner lost before the command started")
)

// StartError says why the system refused a command, in a shell's words.
type StartError struct {
	Message string        // such as "foo: command not found"
	Errno   syscall.Errno // ENOENT, EACCES, ENOTDIR, E2BIG, ENOEXEC, ...
}

func (e *StartError) Error() string { return "troupe: " + e.Message }

// Unwrap lets errors.Is(err, fs.ErrNotExist) and the like work.
func (e *StartError) Unwrap() error { return e.Errno }

// ExitCode is what a shell would exit with: 127 for a command that is not
// there, 126 for one that cannot be run.
func (e *StartError) ExitCode() int {
	if e.Errno == syscall.ENOENT {
		return 127
	}
	return 126
}
