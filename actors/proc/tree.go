//go:build linux

package proc

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Spec is one command.
type Spec struct {
	Argv      []string // Argv[0] without a slash is looked up in the PATH of Env
	Env       []string // the command's whole environment
	Dir       string   // working directory; "": the runner's
	Stdin     bool     // give it a pipe; otherwise /dev/null
	MaxMemory int64    // bytes of the whole tree; 0: no limit
}

// treeState is where a tree is in its life.
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

	// Set by Start.
	events  func(Event)
	request []byte // the start frame, until it is sent
	remote  []int  // the command's ends of its pipes, until they are sent

	mu     sync.Mutex
	state  treeState
	killed bool
	early  [][]byte    // requests made while queued, sent after the start
	init   *initConn   // while attached
	force  *time.Timer // runs from Kill to the end, while attached
}

// Start starts the command without blocking. It may be called once. An error
// means that nothing was started, that the tree is dead and that events will
// not be called (but after ErrStarted, when it is the first Start's). events is
// called from one goroutine at a time, in order, and must not block.
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
		t.r.forget(t)
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
	t.request = encodeStart(spec)
	if len(t.request) > maxFrame {
		return nil, &StartError{Message: spec.Argv[0] + ": Argument list too long", Errno: syscall.E2BIG}
	}
	stdio, remote, err := stdioPipes(spec.Stdin)
	t.remote = remote
	return stdio, err
}

// attach gives the tree to an init.
func (t *Tree) attach(c *initConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.killed {
		t.r.wg.Go(func() { t.r.put(c) })
		t.r.wg.Go(func() { t.fail(ErrKilled) })
		return
	}
	if err := c.conn.send(t.request, t.remote...); err != nil {
		// This init was killed while it was idle. Nothing has run: another one.
		c.conn.close()
		t.r.wg.Go(func() { t.r.dispatch(t) })
		return
	}
	t.request, t.remote = nil, nil
	for _, f := range t.early {
		_ = c.conn.send(f)
	}
	t.early = nil
	t.state, t.init = stateAttached, c
	c.used++
	t.r.wg.Go(func() { t.run(c) })
}

// fail ends a tree that no init has.
func (t *Tree) fail(err error) {
	t.mu.Lock()
	t.state = stateDead
	closeAll(t.remote)
	t.request, t.remote = nil, nil
	t.mu.Unlock()
	t.events(StartFailed{Err: err})
	t.events(Dead{})
	t.r.forget(t)
}

// run passes on what the init says, until the tree is dead.
func (t *Tree) run(c *initConn) {
	started, exited := false, false
	for {
		k, body, err := c.in.next()
		if err != nil {
			break
		}
		d := decoder{b: body}
		switch k {
		case kindStarted:
			started = true
			t.events(Started{PID: int(d.uint())})
		case kindStartFailed:
			started = true
			t.events(StartFailed{Err: &StartError{Message: d.string(), Errno: syscall.Errno(d.uint())}})
		case kindPaused:
			t.events(Paused{})
		case kindResumed:
			t.events(Resumed{})
		case kindExited:
			exited = true
			e, kills := decodeExited(&d)
			e.OutOfMemory = t.r.claimKill(c.link, kills)
			t.events(e)
		case kindDead:
			t.detach()
			dead, retired := decodeDead(&d)
			if retired {
				c.used = maxUses
			}
			t.r.put(c)
			t.events(dead)
			t.r.forget(t)
			return
		}
	}
	// The init is gone, or going. The runner kills what it leaves behind and
	// then says so.
	c.conn.close()
	<-c.gone
	t.detach()
	if !started {
		t.events(StartFailed{Err: ErrLost})
	}
	t.events(Dead{Lost: !exited, RunnerLost: !exited && c.runnerLost})
	t.r.forget(t)
}

func (t *Tree) detach() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.init = stateDead, nil
	if t.force != nil {
		t.force.Stop()
	}
}

// decodeExited also returns the count that says whether it was for memory, see
// claimKill.
func decodeExited(d *decoder) (e Exited, kills uint64) {
	code, status := d.uint(), int(d.uint())
	kills = d.uint()
	e = Exited{Code: status, Alone: d.bool()}
	if code != cldExited {
		e.Code, e.Signal, e.Core = -status, syscall.Signal(status), code == cldDumped
	}
	if !e.Alone {
		e.SurvivorCount = int(d.uint())
		e.Survivors = d.strings()
	}
	return e, kills
}

// decodeDead also says whether the init must not be used again.
func decodeDead(d *decoder) (dead Dead, retired bool) {
	dead = Dead{Usage: Usage{User: time.Duration(d.int()), System: time.Duration(d.int()), MaxRSS: d.int()}}
	dead.OutOfMemory = d.bool()
	dead.SurvivorCount = int(d.uint())
	dead.Survivors = d.strings()
	return dead, d.bool()
}

// control sends a request to the init, or keeps it for when there is one. For
// a tree that is not started, or dead, there is nothing to do.
func (t *Tree) control(f []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.state {
	case stateQueued:
		if len(t.early) < maxQueued {
			t.early = append(t.early, f)
		}
	case stateAttached:
		_ = t.init.conn.send(f) // an error: the init is gone, and run knows
	}
}

// Signal sends sig to the process group of the command.
func (t *Tree) Signal(sig syscall.Signal) {
	if sig > 0 && sig <= 64 {
		t.control(frame(kindSignal).uint(uint64(sig)).done())
	}
}

// Terminate sends SIGTERM to every process of the tree, once to each. Stopped
// processes act on it when they are resumed.
func (t *Tree) Terminate() { t.control(frame(kindTerminate).done()) }

// Pause stops every process of the tree. Paused follows.
func (t *Tree) Pause() { t.control(frame(kindPause).done()) }

// Resume continues every process of the tree. Resumed follows.
func (t *Tree) Resume() { t.control(frame(kindResume).done()) }

// Sweep kills what outlived the command, after Exited. Dead follows and names
// it. Before Exited it does nothing.
func (t *Tree) Sweep() { t.control(frame(kindSweep).done()) }

// forceAfter is how long an init gets to answer Kill with Dead before the
// runner kills it too. Killing a tree takes milliseconds; a tree of hundreds
// that keep forking, on a busy machine, a second.
const forceAfter = 10 * time.Second

// Kill kills the whole tree with SIGKILL. It is idempotent and valid in any
// state; before Start it makes the tree dead and Start fail.
func (t *Tree) Kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.killed
	t.killed = true
	switch t.state {
	case stateNew:
		t.state = stateDead
		t.r.forget(t)
	case stateQueued:
		t.r.giveUp(t, ErrKilled) // or attach is under way and will see killed
	case stateAttached:
		if !first {
			return
		}
		c := t.init
		_ = c.conn.send(frame(kindKill).done())
		t.force = time.AfterFunc(forceAfter, func() { t.r.forceInit(t, c) })
	}
}

func (t *Tree) isKilled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.killed
}

// Dead is closed when nothing of the tree lives and everything is reaped, and
// after the last event was delivered.
func (t *Tree) Dead() <-chan struct{} { return t.dead }
