//go:build linux

package shim

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
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

	sent     frame.Sample // what trouped knows
	resident int64        // when the page tables were read last, or are being read
	pages    chan pages   // what reading them gave
	reading  bool         // one reading is under way
	again    time.Time    // when they may be read again
}

// pages is what the page tables say that a tree holds, in bytes, and what it took to read them.
type pages struct {
	bytes int64
	spent time.Duration
}

// newWatch returns nil if there is nothing to watch.
func newWatch(start *frame.Start, kernelLimitsMemory bool) *watch {
	w := &watch{maxMemory: start.MaxMemory, session: start.Session, pages: make(chan pages, 1)}
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
		var over bool
		select {
		case <-x.dead:
			return
		case read := <-x.watch.pages:
			over = p.locked(x, func() bool { return p.weigh(x, read) })
		case <-t.C:
			spent := spend(func() { over = p.locked(x, func() bool { return p.measure(x) }) })
			t.Reset(max(samplePeriod, walkShare*spent))
		}
		if over {
			p.kill(x)
			return
		}
	}
}

// locked calls f with mu held unless the tree is dead, and returns its result.
func (p *initProcess) locked(x *execution, f func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !x.isDead() && f()
}

// measure counts the tree, has its page tables read if that is due, tells trouped, and reports whether
// the tree must die. mu is held.
func (p *initProcess) measure(x *execution) (over bool) {
	w := x.watch
	now := frame.Sample{Processes: p.walk.Tasks(w.session.Processes), Memory: w.sent.Memory}
	if limit := w.session.Processes; limit > 0 && now.Processes > limit {
		x.exceeded = frame.BoundProcesses
		return true
	}
	if w.leastMemory > 0 && !w.reading {
		if resident := p.walk.Resident(); w.due(resident) {
			w.read(p.walk.Members(), resident)
		}
	}
	if differ(int64(now.Processes), int64(w.sent.Processes), int64(w.session.Processes)) {
		p.tell(w, now)
	}
	return false
}

// weigh takes what the page tables say, tells trouped, and reports whether the tree must die. mu is
// held.
func (p *initProcess) weigh(x *execution, read pages) (over bool) {
	w := x.watch
	w.reading, w.again = false, time.Now().Add(max(samplePeriod, pageShare*read.spent))
	switch {
	case w.maxMemory > 0 && read.bytes > w.maxMemory:
		x.oom = true
		return true
	case w.session.Memory > 0 && read.bytes > w.session.Memory:
		x.exceeded = frame.BoundMemory
		return true
	}
	p.tell(w, frame.Sample{Processes: w.sent.Processes, Memory: read.bytes})
	return false
}

// tell tells trouped what the tree holds. mu is held.
func (p *initProcess) tell(w *watch, now frame.Sample) {
	w.sent = now
	p.send(now.Encode())
}

// due reports whether the page tables must be read. A page that several processes share must count
// once, but only the page tables tell. They are read when the tree has grown or shrunk, and now and
// then if pages are shared, since a process that writes to one gets its own.
func (w *watch) due(resident int64) bool {
	grown := differ(resident, w.resident, w.leastMemory)
	shared := differ(w.resident, w.sent.Memory, w.leastMemory)
	return grown || shared && time.Now().After(w.again)
}

// read reads the page tables of a tree, whose resident memory is known, beside everything else: see
// proctree.Proportional for how long that may take.
func (w *watch) read(tree []proctree.ProcID, resident int64) {
	w.reading, w.resident = true, resident
	go func() {
		var read pages
		read.spent = spend(func() { read.bytes = proctree.Proportional(tree) })
		w.pages <- read
	}()
}

// spend returns the CPU time that f uses.
func spend(f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime()
	f()
	return threadTime() - began
}

func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // fails only for a clock that does not exist
	return time.Duration(t.Nano())
}

// differ reports whether two numbers differ by a noticeable part of a bound; 0: there is none.
func differ(a, b, bound int64) bool {
	return bound > 0 && max(a, b)-min(a, b) >= max(1, bound/grain)
}
