//go:build linux

package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// The end of an execution, as its init learns and reports it: Exited when the command itself has
// died, Dead when nothing of its tree is left.

// reap waits for the children of one execution after the other.
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

// reaped handles one dead child, or the error ECHILD, which means that none is left. It reports
// whether there is more to wait for. mu is held.
//
// When the command itself has died, its children have already become ours. One more wait therefore
// tells whether there are survivors, without a scan of /proc and without a race.
func (p *initProcess) reaped(pid int, err error) bool {
	x := p.current
	if err != nil {
		p.treeDead(x, nil)
		return false
	}
	var info proctree.Siginfo
	var usage unix.Rusage
	if proctree.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG, &usage) != nil || info.PID == 0 {
		return true // 0: its pidfd says dead, but a debugger must be notified first
	}
	x.add(&usage)
	if pid != x.pid {
		return true
	}
	x.exited = true
	if x.filesBounded && info.Code != proctree.CLDExited && unix.Signal(info.Status) == unix.SIGXFSZ {
		x.exceeded = frame.BoundDisk // see limitFiles
	}
	exited := frame.Exited{Code: int(info.Code), Status: int(info.Status), NoSurvivors: x.reapOthers()}
	exited.OOMKills = p.oomKillCount(x, &info)
	if exited.NoSurvivors {
		p.treeDead(x, exited.Encode())
		return false
	}
	exited.Survivors, exited.SurvivorCount = p.survivors()
	p.send(exited.Encode())
	return true
}

// maxReapedOthers bounds reapOthers, which a tree that keeps forking could feed forever.
const maxReapedOthers = 4096

// reapOthers reaps the other children that are dead, and reports whether that leaves none. A child
// that died before the command is not a survivor, even if no process had waited for it.
func (x *execution) reapOthers() (all bool) {
	for range maxReapedOthers {
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

// survivors names the processes that outlive the command, which has just been reaped.
func (p *initProcess) survivors() (names []string, count int) {
	for _, s := range p.walk.Snapshot(nil) {
		if s.Zombie() {
			continue
		}
		count++
		if len(names) < maxSurvivorNames {
			names = append(names, s.Comm())
		}
	}
	return names, count
}

// treeDead reports that nothing of the tree is left. exited, if not nil, is sent in the same write.
func (p *initProcess) treeDead(x *execution, exited []byte) {
	if p.cgroup != nil {
		oom, exceeded := p.cgroup.complete()
		x.oom = x.oom || oom
		x.exceeded = max(x.exceeded, exceeded)
	}
	p.current = nil
	if exited != nil {
		p.send(exited, p.deadFrame(x))
	} else {
		p.send(p.deadFrame(x))
	}
	close(x.dead)
	p.refurnish()
}

// add adds the usage of a child that was reaped. It includes the children that the child waited
// for.
func (x *execution) add(u *unix.Rusage) {
	addTime(&x.usage.Utime, u.Utime)
	addTime(&x.usage.Stime, u.Stime)
	x.usage.Maxrss = max(x.usage.Maxrss, u.Maxrss)
}

func addTime(to *unix.Timeval, t unix.Timeval) {
	*to = unix.NsecToTimeval(to.Nano() + t.Nano())
}

// maxSurvivorNames bounds how many survivors are named.
const maxSurvivorNames = 32

func (p *initProcess) deadFrame(x *execution) []byte {
	names := make([]string, 0, min(len(x.survivorsKilled), maxSurvivorNames))
	for _, name := range x.survivorsKilled {
		if len(names) == maxSurvivorNames {
			break
		}
		names = append(names, name)
	}
	dead := frame.Dead{
		User: time.Duration(x.usage.Utime.Nano()), System: time.Duration(x.usage.Stime.Nano()), MaxRSS: x.usage.Maxrss * 1024,
		OutOfMemory: x.oom, Exceeded: x.exceeded, SurvivorCount: len(x.survivorsKilled), Survivors: names,
		Retired: p.cgroup.mustRetire() || p.room.broken,
	}
	return dead.Encode()
}

// isDead must be called with mu held.
func (x *execution) isDead() bool {
	select {
	case <-x.dead:
		return true
	default:
		return false
	}
}

// waitDead waits until the tree is dead, but at most for d.
func (x *execution) waitDead(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-x.dead:
	case <-t.C:
	}
}
