//go:build linux

package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// The requests that an init carries out on its tree.

// signal signals the command's process group. While the command is not reaped
// its group cannot be another's. Afterwards the number might be recycled, so
// the members are looked for in the tree.
func (p *initProcess) signal(x *execution, sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.isDead() {
		return
	}
	x.shot = x.shot || sig == unix.SIGKILL
	if !x.exited {
		unix.Kill(-x.leader, sig)
		return
	}
	found := p.walk.Snapshot(nil)
	for i := range found {
		if s := &found[i]; s.Pgrp == x.leader && !s.Zombie() {
			p.walk.Signal(s, sig)
		}
	}
}

// maxTermPasses bounds how long SIGTERM chases a tree that keeps forking.
const maxTermPasses = 10

// terminate sends SIGTERM to the whole tree, once to each process: a second
// one makes some programs give up their clean end.
func (p *initProcess) terminate(x *execution) {
	until := proctree.BootTicks()
	done := make(map[proctree.ProcID]bool)
	for range maxTermPasses {
		p.mu.Lock()
		sent := 0
		if !x.isDead() {
			sent = p.walk.TermPass(done, until)
		}
		p.mu.Unlock()
		if sent == 0 {
			return
		}
	}
}

// pauseFor bounds the wait for processes to stop. One in an uninterruptible
// wait stops when that ends; until then it uses no CPU either.
const pauseFor = 500 * time.Millisecond

// pause stops the tree: passes until one finds nothing that runs, then the
// freezer, where there is one. The freezer comes second because a frozen
// process does not show that it is stopped.
func (p *initProcess) pause(x *execution) {
	deadline := time.Now().Add(pauseFor)
	wait := 100 * time.Microsecond
	sent := make(map[proctree.ProcID]bool)
	for {
		p.mu.Lock()
		running := 0
		if !x.isDead() {
			if !x.exited {
				unix.Kill(-x.leader, unix.SIGSTOP) // atomic against fork, as in kill
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
		p.leaf.freeze(true)
		p.tell(frame.New(frame.KindPaused).Done())
	}
}

// resume continues the tree.
func (p *initProcess) resume(x *execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.isDead() {
		return // Dead is the last thing that is said of a tree
	}
	p.leaf.freeze(false)
	p.walk.ContinuePass()
	p.tell(frame.New(frame.KindResumed).Done())
}

// sweep kills what outlived the command. Before the command has exited there
// is nothing to sweep, and a sweep that came too early must not kill it.
func (p *initProcess) sweep(x *execution) {
	p.mu.Lock()
	exited := x.exited
	p.mu.Unlock()
	if exited {
		p.kill(x)
	}
}

// quickDeath is how long the command's own process group gets to be the whole
// tree, before the first scan of /proc.
const quickDeath = time.Millisecond

// kill kills the whole tree and returns when it is reaped.
func (p *initProcess) kill(x *execution) {
	seen := make(map[proctree.ProcID]string)
	p.mu.Lock()
	x.shot = true
	outlived := x.exited && !x.isDead()
	if outlived {
		x.killed = seen // only written and read under mu
		// Before the cgroup's kill, which leaves nobody to name.
		for _, s := range p.walk.Snapshot(nil) {
			if !s.Zombie() {
				seen[s.ID()] = s.Comm()
			}
		}
	}
	if !x.isDead() {
		p.leaf.kill()
		if !x.exited {
			// One call for the whole group, which no fork gets around.
			unix.Kill(-x.leader, unix.SIGKILL)
		}
	}
	p.mu.Unlock()
	if !outlived {
		x.waitDead(quickDeath)
	}
	p.walk.KillAll(p.mu.Lock, p.mu.Unlock, x.isDead, func(d time.Duration) {
		p.leaf.kill()
		x.waitDead(d)
	}, seen)
}
