//go:build linux

package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// The requests that an init carries out on its tree.

// signal signals the command's process group. The number of the group cannot be recycled before the
// command is reaped. Afterwards it can, so the members are looked up in the tree.
func (p *initProcess) signal(x *execution, sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.isDead() {
		return
	}
	x.killedByUs = x.killedByUs || sig == unix.SIGKILL
	if !x.exited {
		unix.Kill(-x.pid, sig)
		return
	}
	found := p.walk.Snapshot(nil)
	for i := range found {
		if s := &found[i]; s.Pgrp == x.pid && !s.Zombie() {
			p.walk.Signal(s, sig)
		}
	}
}

// maxTermPasses bounds how long terminate follows a tree that keeps forking.
const maxTermPasses = 10

// terminate sends SIGTERM to the whole tree, once to each process: a second one makes some programs
// abandon their clean shutdown. Then it continues the tree, because a stopped process acts on SIGTERM
// only once it runs again (signal(7)), whether a PAUSE stopped it or it stopped itself.
//
// A tree with a terminal is first told that the terminal is gone: interactive shells ignore SIGTERM,
// and end at SIGHUP.
func (p *initProcess) terminate(x *execution) {
	until := proctree.BootTicks()
	if x.terminal {
		p.signalAll(x, unix.SIGHUP, until)
	}
	p.signalAll(x, unix.SIGTERM, until)
}

// signalAll signals each process of the tree that was started by the given tick once, and continues
// all of them.
func (p *initProcess) signalAll(x *execution, sig unix.Signal, until uint64) {
	done := make(map[proctree.ProcID]bool)
	for range maxTermPasses {
		p.mu.Lock()
		sent := 0
		if !x.isDead() {
			sent = p.walk.SignalPass(sig, done, until)
		}
		p.mu.Unlock()
		if sent == 0 {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proceed(x)
}

// pauseTimeout bounds the wait for processes to stop. A process in an uninterruptible wait stops
// when that ends, and uses no CPU until then.
const pauseTimeout = 500 * time.Millisecond

// pause stops the tree: it repeats passes until one finds no running process, and then freezes the
// cgroup, if there is one. Freezing comes second, because a frozen process does not show as
// stopped.
func (p *initProcess) pause(x *execution) {
	deadline := time.Now().Add(pauseTimeout)
	wait := 100 * time.Microsecond
	sent := make(map[proctree.ProcID]bool)
	for {
		p.mu.Lock()
		running := 0
		if !x.isDead() {
			if !x.exited {
				unix.Kill(-x.pid, unix.SIGSTOP) // atomic against fork, as in kill
			}
			running = p.walk.StopPass(sent)
		}
		p.mu.Unlock()
		if running == 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(wait)
		wait = min(2*wait, 10*time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !x.isDead() {
		p.cgroup.freeze(true)
		p.send(frame.New(frame.KindPaused).Done())
	}
}

// resume continues the tree.
func (p *initProcess) resume(x *execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proceed(x) { // otherwise Dead was the last event of the tree
		p.send(frame.New(frame.KindResumed).Done())
	}
}

// proceed lets every process of the tree run, and reports whether it lives. Called with mu held.
func (p *initProcess) proceed(x *execution) bool {
	if x.isDead() {
		return false
	}
	p.cgroup.freeze(false)
	p.walk.ContinuePass()
	return true
}

// sweep kills the survivors of the command. A request that arrives before the command has exited
// must not kill the command, and does nothing.
func (p *initProcess) sweep(x *execution) {
	p.mu.Lock()
	exited := x.exited
	p.mu.Unlock()
	if exited {
		p.kill(x)
	}
}

// groupKillWait is how long kill waits after it has killed the command's process group, which is
// often the whole tree, before it first scans /proc.
const groupKillWait = time.Millisecond

// kill kills the whole tree and returns when it is reaped.
func (p *initProcess) kill(x *execution) {
	seen := make(map[proctree.ProcID]string)
	p.mu.Lock()
	x.killedByUs = true
	outlived := x.exited && !x.isDead()
	if outlived {
		x.survivorsKilled = seen // written and read only under mu
		// Before cgroup.kill, after which no process is left to name.
		for _, s := range p.walk.Snapshot(nil) {
			if !s.Zombie() {
				seen[s.ID()] = s.Comm()
			}
		}
	}
	if !x.isDead() {
		p.cgroup.kill()
		if !x.exited {
			// One call for the whole group, which no fork can escape, see package proctree.
			unix.Kill(-x.pid, unix.SIGKILL)
		}
	}
	p.mu.Unlock()
	if !outlived {
		x.waitDead(groupKillWait)
	}
	p.walk.KillAll(p.mu.Lock, p.mu.Unlock, x.isDead, func(d time.Duration) {
		p.cgroup.kill()
		x.waitDead(d)
	}, seen)
}
