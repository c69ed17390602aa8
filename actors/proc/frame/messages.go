package frame

import (
	"syscall"
	"time"
)

// The frames with more than one value. Encoder and decoder stand together, so that they cannot
// differ.

// Hello is the first frame of a runner.
type Hello struct {
	Version     string
	PID         int
	Containment string
	Cgroup      string // the directory it makes cgroups in; "": none
	OOMKills    uint64 // processes of its container that the kernel has killed for memory
	HasPidfd    bool   // a pidfd of the runner travels with this frame. Only from runners that dial

	Isolation    string // IsolationNone or IsolationSession
	IsolationABI int    // version of Landlock of the runner's kernel; 0: none
	IsolationWhy string // why Isolation is IsolationNone; "" if the runner was told so
}

// Encode returns the frame.
func (h *Hello) Encode() []byte {
	return New(KindHello).Str(h.Version).Uint(uint64(h.PID)).Str(h.Containment).Str(h.Cgroup).
		Uint(h.OOMKills).Bool(h.HasPidfd).Str(h.Isolation).Uint(uint64(h.IsolationABI)).Str(h.IsolationWhy).Done()
}

// DecodeHello reads the body of a hello.
func DecodeHello(body []byte) (Hello, error) {
	d := NewDecoder(body)
	h := Hello{
		Version: d.Str(), PID: int(d.Uint()), Containment: d.Str(), Cgroup: d.Str(),
		OOMKills: d.Uint(), HasPidfd: d.Bool(),
		Isolation: d.Str(), IsolationABI: int(d.Uint()), IsolationWhy: d.Str(),
	}
	return h, d.Err()
}

// Settings tell an init how sessions are separated.
type Settings struct {
	ID         uint64 // of this init
	Isolation  string // IsolationNone or IsolationSession
	Seed       string // what a new home begins with; "": nothing
	Workspaces string // what the paths of the sessions' workspaces begin with; "": there are none
	Bound      string // workspace of the session in whose domain the init was started; "": in none
	Files      string // path of the program that moves sessions' files; "": there is none

	Read, Write                  []string // see confine.Rules
	HideProc, SharedTmp, SysVIPC bool
}

// Encode returns the frame.
func (s *Settings) Encode() []byte {
	return New(KindSettings).Uint(s.ID).Str(s.Isolation).Str(s.Seed).Str(s.Workspaces).Str(s.Bound).Str(s.Files).
		Strs(s.Read).Strs(s.Write).
		Bool(s.HideProc).Bool(s.SharedTmp).Bool(s.SysVIPC).Done()
}

// DecodeSettings reads the body of the settings.
func DecodeSettings(body []byte) (Settings, error) {
	d := NewDecoder(body)
	s := Settings{
		ID: d.Uint(), Isolation: d.Str(), Seed: d.Str(), Workspaces: d.Str(), Bound: d.Str(), Files: d.Str(),
		Read: d.Strs(), Write: d.Strs(),
		HideProc: d.Bool(), SharedTmp: d.Bool(), SysVIPC: d.Bool(),
	}
	return s, d.Err()
}

// Clone asks for another init in the domain of a session. From trouped, Request is returned with the
// answer and Init is the init to clone; from the runner, Request numbers what it has asked the init
// for, and descriptors travel with it: the clone's sockets and, if it has one, its cgroup.
type Clone struct {
	Request   uint64
	Init      uint64
	Workspace string
	Session   Bounds // of all executions of the session; only from trouped

	Descriptors int // that travel with it, only from the runner: in the order of an init's descriptors
}

// Encode returns the frame.
func (c *Clone) Encode() []byte {
	return New(KindClone).Uint(c.Request).Uint(c.Init).Str(c.Workspace).bounds(c.Session).
		Uint(uint64(c.Descriptors)).Done()
}

// DecodeClone reads the body of a clone.
func DecodeClone(body []byte) (Clone, error) {
	d := NewDecoder(body)
	c := Clone{
		Request: d.Uint(), Init: d.Uint(), Workspace: d.Str(), Session: d.bounds(), Descriptors: int(d.Uint()),
	}
	if d.Err() != nil || !WorkspaceName(c.Workspace) || c.Descriptors < 0 || c.Descriptors > maxPassed {
		return c, ErrMalformed
	}
	return c, nil
}

// Start asks an init to run a command.
type Start struct {
	Argv, Env []string
	Script    bool // Argv ends with a shell script, which only its session may see
	Dir       string
	Stdin     bool
	MaxMemory int64
	Session   Bounds // of all executions of the session
	Workspace string // name of the session's directory in the runner's workspace; "": none
	Terminal  bool   // one descriptor travels with the frame: a terminal, for all three streams
	Full      bool   // the workspace holds too much: the command may remove files, but write to none
}

// Encode returns the frame, which must be sent with as many descriptors as Descriptors says.
func (s *Start) Encode() []byte {
	return New(
		KindStart,
	).Bool(
		s.Script,
	).Bool(
		s.Stdin,
	).Int(
		s.MaxMemory,
	).bounds(
		s.Session,
	).Str(
		s.Dir,
	).Str(
		s.Workspace,
	).Bool(
		s.Terminal,
	).Bool(
		s.Full,
	).
		Strs(
			s.Argv,
		).Strs(
		s.Env,
	).Done()
}

// DecodeStart reads the body of a start.
func DecodeStart(body []byte) (*Start, error) {
	d := NewDecoder(body)
	s := &Start{
		Script:    d.Bool(),
		Stdin:     d.Bool(),
		MaxMemory: d.Int(),
		Session:   d.bounds(),
		Dir:       d.Str(),
		Workspace: d.Str(),
		Terminal:  d.Bool(),
		Full:      d.Bool(),
		Argv:      d.Strs(),
		Env:       d.Strs(),
	}
	if d.Err() != nil || len(s.Argv) == 0 {
		return nil, ErrMalformed
	}
	return s, nil
}

// Descriptors returns how many travel with the frame: a terminal, or stdin if asked for, stdout and stderr.
func (s *Start) Descriptors() int {
	if s.Terminal {
		return 1
	}
	if s.Stdin {
		return 3
	}
	return 2
}

// StartFailed says why the system refused a command, in the words of a shell.
type StartFailed struct {
	Message string
	Errno   syscall.Errno
}

// Encode returns the frame.
func (f *StartFailed) Encode() []byte {
	return New(KindStartFailed).Str(f.Message).Uint(uint64(f.Errno)).Done()
}

// DecodeStartFailed reads the body of a failure to start.
func DecodeStartFailed(body []byte) StartFailed {
	d := NewDecoder(body)
	return StartFailed{Message: d.Str(), Errno: syscall.Errno(d.Uint())}
}

// Exited reports how the command itself ended.
type Exited struct {
	Code     int    // si_code of waitid(2), such as CLD_EXITED
	Status   int    // exit code or signal
	OOMKills uint64 // the container's counter if the kernel may have killed the command; else 0

	NoSurvivors   bool
	Survivors     []string // names of some of the processes that live on
	SurvivorCount int      // of all
}

// Encode returns the frame.
func (x *Exited) Encode() []byte {
	e := New(KindExited).Uint(uint64(x.Code)).Uint(uint64(x.Status)).Uint(x.OOMKills).Bool(x.NoSurvivors)
	if !x.NoSurvivors {
		e = e.Uint(uint64(x.SurvivorCount)).Strs(x.Survivors)
	}
	return e.Done()
}

// DecodeExited reads the body of an exit.
func DecodeExited(body []byte) Exited {
	d := NewDecoder(body)
	x := Exited{Code: int(d.Uint()), Status: int(d.Uint()), OOMKills: d.Uint(), NoSurvivors: d.Bool()}
	if !x.NoSurvivors {
		x.SurvivorCount = int(d.Uint())
		x.Survivors = d.Strs()
	}
	return x
}

// Dead reports that nothing of the tree is left.
type Dead struct {
	User, System  time.Duration
	MaxRSS        int64 // bytes
	OutOfMemory   bool
	Exceeded      Bound    // the tree alone exceeded this bound of its session, and was killed for it
	SurvivorCount int      // processes that outlived the command and were killed
	Survivors     []string // names of some of them
	Retired       bool     // the init must not be used again
}

// Encode returns the frame.
func (x *Dead) Encode() []byte {
	return New(KindDead).Int(int64(x.User)).Int(int64(x.System)).Int(x.MaxRSS).Bool(x.OutOfMemory).
		Uint(uint64(x.Exceeded)).Uint(uint64(x.SurvivorCount)).Strs(x.Survivors).Bool(x.Retired).Done()
}

// DecodeDead reads the body of a death.
func DecodeDead(body []byte) Dead {
	d := NewDecoder(body)
	return Dead{
		User: time.Duration(d.Int()), System: time.Duration(d.Int()), MaxRSS: d.Int(), OutOfMemory: d.Bool(),
		Exceeded:      Bound(d.Uint()),
		SurvivorCount: int(d.Uint()), Survivors: d.Strs(), Retired: d.Bool(),
	}
}
