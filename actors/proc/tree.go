//go:build linux

package proc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// Spec is one command.
type Spec struct {
	Argv      []string // Argv[0] without a slash is looked up in the PATH of Env
	Script    bool     // the last of Argv is a shell script, which other sessions must not see
	Env       []string // the command's whole environment
	Dir       string   // working directory; "": the workspace's home, or the runner's directory without one
	Stdin     bool     // give it a pipe; otherwise /dev/null
	Terminal  *Size    // give it a terminal of this size instead of pipes; nil: none
	MaxMemory int64    // of the whole tree, in bytes; 0: no limit
	Workspace string   // name of the session's workspace, see frame.WorkspaceName; "": none
}

// treeState is the state of a tree. It only ever advances.
type treeState uint8

const (
	stateNew      treeState = iota // registered
	stateQueued                    // Start was called, no init has it yet
	stateAttached                  // an init has it
	stateDead
)

// Tree is one command and everything it starts.
type Tree struct {
	r         *Runner
	owner, id string
	dead      chan struct{}
	waiting   *time.Timer // runs while queued; under Runner.mu

	eventMu sync.Mutex // held while an event is delivered

	// Set by Start.
	events  func(Event) // nil after the last event
	request []byte      // the start frame, until it is sent
	remote  []int       // the command's ends of its pipes, until they are sent

	workspace string // of its session; "": none
	domain    uint64 // of the clone that it waits for; under Runner.mu
	full      bool   // it was started without the right to write to files
	apart     bool   // no clone could be had: it runs in a domain of its own; under Runner.mu

	memory atomic.Int64 // that it held when it was last measured

	mu      sync.Mutex
	state   treeState
	killed  bool
	pending [][]byte    // requests made while queued, to be sent after the start
	init    *initConn   // while attached
	force   *time.Timer // the backstop, from Kill until the tree is dead, while attached
}

// Memory returns how many bytes the tree held when it was last measured. 0: it is not, because it has no bound of
// memory that the runner keeps.
func (t *Tree) Memory() int64 { return t.memory.Load() }

// Start starts the command without blocking. It may be called once; a second call fails with
// [ErrStarted] and changes nothing. Any other error means that nothing was started, that the tree
// is dead and that events will not be called. events is called from one goroutine at a time, in
// order, and must not block.
func (t *Tree) Start(spec Spec, events func(Event)) (*Stdio, error) {
	stdio, err := t.enqueue(&spec, events)
	if err != nil {
		return nil, err
	}
	t.r.dispatch(t)
	return stdio, nil
}

func (t *Tree) enqueue(spec *Spec, events func(Event)) (*Stdio, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case stateNew:
	case stateDead:
		return nil, ErrKilled
	default:
		return nil, ErrStarted
	}
	stdio, err := t.prepare(spec)
	if err != nil {
		t.state = stateDead
		t.r.unregister(t)
		return nil, err
	}
	t.events = events
	t.state = stateQueued
	return stdio, nil
}

// prepare encodes the request and makes the pipes.
func (t *Tree) prepare(spec *Spec) (*Stdio, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("no command given")
	}
	for _, list := range [][]string{spec.Argv, spec.Env, {spec.Dir}} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.IndexByte(s, 0) >= 0 }) {
			return nil, &StartError{Message: "NUL byte in the command, its environment or its directory", Errno: syscall.EINVAL}
		}
	}
	if spec.Workspace != "" && !frame.WorkspaceName(spec.Workspace) {
		return nil, fmt.Errorf("the name of a workspace must be 26 lower-case letters and digits, got %q", spec.Workspace)
	}
	t.workspace = spec.Workspace
	t.full = t.r.ledger.full(t.workspace)
	start := frame.Start{
		Argv: spec.Argv, Script: spec.Script, Env: spec.Env, Dir: spec.Dir, Workspace: spec.Workspace, Full: t.full,
		Stdin: spec.Stdin, Terminal: spec.Terminal != nil, MaxMemory: spec.MaxMemory, Session: t.r.cfg.Session.frame(),
	}
	if t.request = start.Encode(); len(t.request) > frame.MaxSize {
		t.request = nil
		return nil, &StartError{Message: spec.Argv[0] + ": Argument list too long", Errno: syscall.E2BIG}
	}
	var stdio *Stdio
	var err error
	if spec.Terminal != nil {
		stdio, t.remote, err = openTerminal(*spec.Terminal)
	} else {
		stdio, t.remote, err = stdioPipes(spec.Stdin)
	}
	return stdio, err
}

// attach gives the tree to an init.
func (t *Tree) attach(c *initConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.killed {
		t.r.wg.Go(func() { t.r.giveBack(c) })
		t.r.wg.Go(func() { t.fail(ErrKilled) })
		return
	}
	if err := c.conn.send(t.request, t.remote...); err != nil {
		// This init was killed while it was idle. Nothing has run, so try another one.
		t.r.doom(c)
		c.conn.close()
		t.r.wg.Go(func() { t.r.dispatch(t) })
		return
	}
	t.request, t.remote = nil, nil
	for _, f := range t.pending {
		_ = c.conn.send(f)
	}
	t.pending = nil
	t.state, t.init = stateAttached, c
	c.used++
	t.r.wg.Go(func() { t.run(c) })
}

// fail ends a tree that no init has taken.
func (t *Tree) fail(err error) {
	t.mu.Lock()
	t.state = stateDead
	frame.CloseAll(t.remote)
	t.request, t.remote = nil, nil
	t.mu.Unlock()
	t.emit(StartFailed{Err: err})
	t.finish(Dead{})
}

// finish delivers the last event. The caller of Start may keep a dead tree, which then holds nothing
// of the receiver of events.
func (t *Tree) finish(last Dead) {
	t.emit(last)
	t.eventMu.Lock()
	t.events = nil
	t.eventMu.Unlock()
	t.r.unregister(t)
}

// emit delivers an event, one at a time. None follows the last.
func (t *Tree) emit(e Event) {
	t.eventMu.Lock()
	defer t.eventMu.Unlock()
	if t.events != nil {
		t.events(e)
	}
}

// run reports the init's frames as events until the tree is dead.
func (t *Tree) run(c *initConn) {
	started, exited := false, false
	for {
		k, body, err := c.in.Next()
		if err != nil {
			break
		}
		switch k {
		case frame.KindStarted:
			started = true
			t.r.ledger.add(t)
			t.r.measureDisk(t)
			t.emit(Started{PID: int(frame.NewDecoder(body).Uint())})
		case frame.KindStartFailed:
			started = true
			refused := StartError(frame.DecodeStartFailed(body))
			t.emit(StartFailed{Err: &refused})
		case frame.KindPaused:
			t.emit(Paused{})
		case frame.KindResumed:
			t.emit(Resumed{})
		case frame.KindExited:
			exited = true
			x := frame.DecodeExited(body)
			e := exitedEvent(&x)
			e.OutOfMemory = t.r.claimOOMKill(c.runner, x.OOMKills)
			t.emit(e)
		case frame.KindSample:
			s := frame.DecodeSample(body)
			t.memory.Store(s.Memory)
			t.r.ledger.sample(t, s.Processes, s.Memory)
		case frame.KindDead:
			t.detach()
			dead := frame.DecodeDead(body)
			if dead.Retired {
				c.used = maxUses
			}
			t.r.giveBack(c)
			exceeded := t.r.ledger.remove(t)
			t.r.measureDisk(t) // what a short command has written counts for the next one
			t.finish(deadEvent(&dead, exceeded))
			return
		}
	}
	// The init is gone, or about to be. The runner kills what it leaves behind and then reports it.
	t.r.doom(c)
	c.conn.close()
	<-c.swept
	exceeded := t.r.ledger.remove(t)
	t.r.measureDisk(t)
	t.detach()
	if !started {
		t.emit(StartFailed{Err: ErrLost})
	}
	t.finish(Dead{Lost: !exited, RunnerLost: !exited && c.runnerLost, Exceeded: exceeded})
}

func (t *Tree) detach() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.init = stateDead, nil
	if t.force != nil {
		t.force.Stop()
	}
}

// exitedEvent leaves OutOfMemory to claimOOMKill.
func exitedEvent(x *frame.Exited) Exited {
	e := Exited{Code: x.Status, NoSurvivors: x.NoSurvivors, Survivors: x.Survivors, SurvivorCount: x.SurvivorCount}
	if x.Code != proctree.CLDExited {
		e.Code, e.Signal, e.Core = -x.Status, syscall.Signal(x.Status), x.Code == proctree.CLDDumped
	}
	return e
}

// deadEvent reports the bound for which trouped killed the tree, or else the one for which its init
// did.
func deadEvent(d *frame.Dead, exceeded Bound) Dead {
	if exceeded == "" {
		exceeded = boundOf(d.Exceeded)
	}
	return Dead{
		Exceeded:  exceeded,
		Survivors: d.Survivors, SurvivorCount: d.SurvivorCount, OutOfMemory: d.OutOfMemory,
		Usage: Usage{User: d.User, System: d.System, MaxRSS: d.MaxRSS},
	}
}

// control sends a request to the init, or keeps it until the tree has an init. It drops the request
// if the tree is not started or is dead.
func (t *Tree) control(f []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case stateQueued:
		if len(t.pending) < maxQueued {
			t.pending = append(t.pending, f)
		}
	case stateAttached:
		_ = t.init.conn.send(f) // on an error the init is gone, and run notices
	}
}

// Signal sends sig to the process group of the command.
func (t *Tree) Signal(sig syscall.Signal) {
	if sig > 0 && sig <= 64 {
		t.control(frame.New(frame.KindSignal).Uint(uint64(sig)).Done())
	}
}

// Terminate sends SIGTERM once to every process of the tree and then continues those that are
// stopped, so that they act on it. A tree with a terminal gets SIGHUP first.
func (t *Tree) Terminate() { t.control(frame.New(frame.KindTerminate).Done()) }

// Pause stops every process of the tree. Paused follows.
func (t *Tree) Pause() { t.control(frame.New(frame.KindPause).Done()) }

// Resume continues every process of the tree. Resumed follows.
func (t *Tree) Resume() { t.control(frame.New(frame.KindResume).Done()) }

// Sweep kills the survivors of the command. Dead follows and names them. Before Exited it does
// nothing.
func (t *Tree) Sweep() { t.control(frame.New(frame.KindSweep).Done()) }

// forceKillAfter is how long an init may take to answer Kill with Dead before the runner kills the
// init too. Killing a tree takes milliseconds, or about a second for hundreds of processes that
// keep forking on a busy machine.
const forceKillAfter = 10 * time.Second

// Kill kills the whole tree with SIGKILL. It is idempotent and valid in any state. Before Start it
// makes the tree dead, and Start fails.
func (t *Tree) Kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.killed
	t.killed = true
	switch t.state {
	case stateNew:
		t.state = stateDead
		t.r.unregister(t)
	case stateQueued:
		t.r.failQueued(t, ErrKilled) // if it is not queued, attach is under way and will see killed
	case stateAttached:
		if !first {
			return
		}
		c := t.init
		t.r.doom(c)
		_ = c.conn.send(frame.New(frame.KindKill).Done())
		t.force = time.AfterFunc(t.r.forceKillAfter, func() { t.r.forceKillInit(t, c) })
	}
}

func (t *Tree) isKilled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.killed
}

// Dead returns a channel that is closed when everything of the tree is dead and reaped, and the
// last event was delivered.
func (t *Tree) Dead() <-chan struct{} { return t.dead }
