//go:build linux

package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// The end of an execution, as its init learns and tells it: Exited when the
// command itself has died, Dead when nothing of its tree is left.

// reap waits for children, one execution after the other.
func (p *initProcess) reap() {
	for range p.wake {
		for {
			pid, err := proctree.WaitAny(unix.WEXITED | unix.WNOWAIT)
			if err == unix.EINTR {
				continue
			}
			p.mu.Lock()
			more := p.reaped(pid, err)
			p.mu.Unlock()
			if !more {
				break
			}
		}
	}
}

// reaped handles one dead child, or err ECHILD: none is left. It reports
// whether there is more to wait for. It is called under mu.
//
// When the command itself dies, its children have already become ours, so one
// look for other children tells whether it was alone: no scan of /proc, and
// nothing that could be missed.
func (p *initProcess) reaped(pid int, err error) bool {
	x := p.run
	if err != nil {
		p.finish(x, nil)
		return false
	}
	var info proctree.Siginfo
	var usage unix.Rusage
	if proctree.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG, &usage) != nil || info.PID == 0 {
		return true // 0: dead, by its pidfd, but a debugger must learn it first
	}
	x.add(&usage)
	if pid != x.leader {
		return true
	}
	x.exited = true
	exited := frame.Exited{Code: int(info.Code), Status: int(info.Status), NoSurvivors: x.reapOthers()}
	exited.OOMKills = p.kills(x, &info)
	if exited.NoSurvivors {
		p.finish(x, exited.Encode())
		return false
	}
	exited.Survivors, exited.SurvivorCount = p.survivors()
	p.tell(exited.Encode())
	return true
}

// maxDead bounds reapOthers, which a tree that keeps forking could feed for ever.
const maxDead = 4096

// reapOthers reaps what is dead besides the command, and reports whether that
// was all. What died before the command and nobody waited for is no survivor.
func (x *execution) reapOthers() (all bool) {
	for range maxDead {
		var info proctree.Siginfo
		var usage unix.Rusage
		err := proctree.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG, &usage)
		if err != nil {
			return err == unix.ECHILD
		}
		if info.PID == 0 {
			return false
		}
		x.add(&usage)
	}
	return false
}

// survivors names what lives besides the command that has just been reaped.
func (p *initProcess) survivors() (names []string, count int) {
	for _, s := range p.walk.Snapshot(nil) {
		if s.Zombie() {
			continue
		}
		count++
		if len(names) < maxNames {
			names = append(names, s.Comm())
		}
	}
	return names, count
}

// finish reports the end of the tree, in one write with the exit if that is
// its cause.
func (p *initProcess) finish(x *execution, exited []byte) {
	if p.leaf != nil {
		x.oom = p.leaf.end() || x.oom
	}
	p.run = nil
	if exited != nil {
		p.tell(exited, p.deadFrame(x))
	} else {
		p.tell(p.deadFrame(x))
	}
	close(x.dead)
}

// add counts a child that was reaped. Its usage includes that of its own
// children that it waited for.
func (x *execution) add(u *unix.Rusage) {
	addTime(&x.usage.Utime, u.Utime)
	addTime(&x.usage.Stime, u.Stime)
	x.usage.Maxrss = max(x.usage.Maxrss, u.Maxrss)
}

func addTime(to *unix.Timeval, t unix.Timeval) {
	*to = unix.NsecToTimeval(to.Nano() + t.Nano())
}

// maxNames bounds the survivors that are named.
const maxNames = 32

func (p *initProcess) deadFrame(x *execution) []byte {
	names := make([]string, 0, min(len(x.killed), maxNames))
	for _, name := range x.killed {
		if len(names) == maxNames {
			break
		}
		names = append(names, name)
	}
	dead := frame.Dead{
		User: time.Duration(x.usage.Utime.Nano()), System: time.Duration(x.usage.Stime.Nano()), MaxRSS: x.usage.Maxrss * 1024,
		OutOfMemory: x.oom, SurvivorCount: len(x.killed), Survivors: names, Retired: p.leaf.retires(),
	}
	return dead.Encode()
}

// isDead is asked under mu.
func (x *execution) isDead() bool {
	select {
	case <-x.dead:
		return true
	default:
		return false
	}
}

// waitDead waits for the end of the tree, but not for long.
func (x *execution) waitDead(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-x.dead:
	case <-t.C:
	}
}
