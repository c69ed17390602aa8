package actors

import (
	"io"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
)

// Runner starts process trees. *proc.Runner is the real one; see ProcRunner.
type Runner interface {
	// NewTree registers a tree for owner, a session's id, before anything of it runs.
	NewTree(owner, id string) Tree
	// OwnerDone returns a channel that is closed once no tree of owner is alive.
	OwnerDone(owner string) <-chan struct{}
	// RemoveWorkspace removes the directories of a session that has no living tree, in the background.
	RemoveWorkspace(name string)
	// CannotStart says why no command can be started now; "": commands can be.
	CannotStart() string
	// Containment says how trees are held: "cgroup+tree" or "tree".
	Containment() string
	// Isolation says what separates sessions, "session" or "none" (empty: no runner has come yet), and
	// the version of Landlock.
	Isolation() (level string, abi int)
}

// Tree is one execution's processes. No method blocks. See proc.Tree, which
// documents the order of events.
type Tree interface {
	Start(proc.Spec, func(proc.Event)) (*Stdio, error)
	Signal(syscall.Signal)
	Terminate()
	Pause()
	Resume()
	Sweep()
	Kill()
	Dead() <-chan struct{}
	// Memory returns what the tree held when it was last measured, in bytes; 0: it is not measured.
	Memory() int64
}

// Stdio holds troupe's ends of a command's pipes. Its holder closes them.
type Stdio struct {
	Stdin          io.WriteCloser // nil unless the Spec asked for it, or for a terminal
	Stdout, Stderr Pipe           // of a terminal, Stdout has all output and Stderr is nil
}

// Pipe is the reading end of a command's output.
type Pipe interface {
	io.ReadCloser
	// ReadNow is a Read that returns proc.ErrPipeEmpty instead of waiting.
	ReadNow([]byte) (int, error)
	// Grow asks for room for so many bytes between the command and Read.
	Grow(int)
	SetReadDeadline(time.Time) error
	// Pending returns the number of bytes that a Read would return without waiting.
	Pending() (int, error)
	// Resize gives a terminal another size.
	Resize(proc.Size) error
}

// ProcRunner adapts a *proc.Runner. The caller keeps r and closes it after the Engine.
func ProcRunner(r *proc.Runner) Runner { return procRunner{r} }

type procRunner struct{ r *proc.Runner }

func (p procRunner) NewTree(owner, id string) Tree          { return procTree{p.r.NewTree(owner, id)} }
func (p procRunner) OwnerDone(owner string) <-chan struct{} { return p.r.OwnerDone(owner) }
func (p procRunner) RemoveWorkspace(name string)            { p.r.RemoveWorkspace(name) }
func (p procRunner) CannotStart() string                    { return p.r.Status().CannotStart }
func (p procRunner) Containment() string                    { return p.r.Status().Containment }

func (p procRunner) Isolation() (level string, abi int) {
	s := p.r.Status()
	return s.Isolation, s.IsolationABI
}

type procTree struct{ *proc.Tree }

func (t procTree) Start(spec proc.Spec, events func(proc.Event)) (*Stdio, error) {
	std, err := t.Tree.Start(spec, events)
	if err != nil {
		return nil, err
	}
	out := &Stdio{Stdout: std.Stdout}
	if std.Stderr != nil {
		out.Stderr = std.Stderr
	}
	if std.Stdin != nil {
		out.Stdin = std.Stdin
	}
	return out, nil
}
