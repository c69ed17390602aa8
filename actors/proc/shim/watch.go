//go:build linux

package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// samplePeriod is how often a tree is measured that has a limit which the kernel does not keep. What
// it takes in between is not seen in time.
const samplePeriod = 50 * time.Millisecond

// The greatest shares of one CPU that measuring takes: a walk takes as long as the tree is large, and
// a look at its page tables as long as its memory is. CPU time is what counts: beside a fork bomb a
// walk waits for its turn most of the time, and must not pause for longer because of that.
const (
	walkShare = 4  // a quarter, at most
	pageShare = 20 // a twentieth, at most, unless the tree grows
)

// grain is the share of a bound by which a tree must grow or shrink before trouped is told.
const grain = 128

// watch measures a tree.
type watch struct {
	maxMemory int64        // of this tree; 0: none
	session   frame.Bounds // of this tree and the others of its session

	leastMemory int64 // the lower of the two bounds of memory; 0: there is none

	sent       frame.Sample // what trouped knows
	resident   int64        // when sent was measured
	pagesAgain time.Time    // when the page tables may be read again
}

// newWatch returns nil if there is nothing to watch.
func newWatch(start *frame.Start, kernelLimitsMemory bool) *watch {
	w := &watch{maxMemory: start.MaxMemory, session: start.Session}
	if kernelLimitsMemory {
		w.maxMemory = 0
	}
	w.leastMemory = w.maxMemory
	if m := w.session.Memory; m > 0 && (m < w.leastMemory || w.leastMemory <= 0) {
		w.leastMemory = m
	}
	if w.leastMemory <= 0 && w.session.Processes <= 0 {
		return nil
	}
	return w
}

// watchTree measures the tree of x until it is dead, and kills it when it alone exceeds a bound.
// When several trees of a session do so together, trouped kills one. Whoever calls it has handed
// over to the reaper, because it may kill.
func (p *initProcess) watchTree(x *execution) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-x.dead:
			return
		case <-t.C:
		}
		spent := cpuTime()
		p.mu.Lock()
		over := !x.isDead() && p.measure(x)
		p.mu.Unlock()
		if over {
			p.kill(x)
			return
		}
		t.Reset(max(samplePeriod, walkShare*(cpuTime()-spent)))
	}
}

// measure measures the tree, tells trouped, and reports whether the tree must die. mu is held.
func (p *initProcess) measure(x *execution) (over bool) {
	w := x.watch
	now := frame.Sample{Processes: p.walk.Tasks(w.session.Processes)}
	if limit := w.session.Processes; limit > 0 && now.Processes > limit {
		x.exceeded = frame.BoundProcesses
		return true
	}
	resident, changed := int64(0), false
	if w.leastMemory > 0 {
		resident = p.walk.Resident()
		now.Memory, changed = w.memory(resident, p.walk.Proportional)
	}
	switch {
	case w.maxMemory > 0 && now.Memory > w.maxMemory:
		x.oom = true
		return true
	case w.session.Memory > 0 && now.Memory > w.session.Memory:
		x.exceeded = frame.BoundMemory
		return true
	}
	if changed {
		w.resident = resident
	}
	if changed || differ(int64(now.Processes), int64(w.sent.Processes), int64(w.session.Processes)) {
		w.sent = now
		if w.session.Memory > 0 || w.session.Processes > 0 {
			p.send(now.Encode())
		}
	}
	return false
}

// memory returns what the tree holds, and whether that is news. A page that several processes share
// must count once, but only the page tables tell. They are read when the tree has grown or shrunk,
// and now and then if pages are shared, since a process that writes to one gets its own.
func (w *watch) memory(resident int64, proportional func() int64) (bytes int64, changed bool) {
	grown := differ(resident, w.resident, w.leastMemory)
	shared := differ(w.resident, w.sent.Memory, w.leastMemory)
	if !grown && !(shared && time.Now().After(w.pagesAgain)) {
		return w.sent.Memory, false
	}
	spent := cpuTime()
	bytes = proportional()
	w.pagesAgain = time.Now().Add(max(samplePeriod, pageShare*(cpuTime()-spent)))
	return bytes, true
}

// cpuTime is what this process has used, which idles beside its measuring.
func cpuTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // fails only for a clock that does not exist
	return time.Duration(t.Nano())
}

// differ reports whether two numbers differ by a noticeable part of a bound; 0: there is none.
func differ(a, b, bound int64) bool {
	return bound > 0 && max(a, b)-min(a, b) >= max(1, bound/grain)
}
