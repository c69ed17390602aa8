//go:build linux

package proc

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How a tree is killed
//
// A walker belongs to a child subreaper (an init, the runner, or trouped when
// its runner died). Whatever descends from the subreaper stays below it until
// it is reaped: a process whose parent dies becomes the subreaper's own child.
// So there is no hiding, only running: a process may fork while it is looked
// for. The hunt is therefore a loop of passes, each of which finds the
// descendants in /proc and signals them, until wait says that there is no
// child left (ECHILD). That answer, and nothing else, is the proof of death.
//
// A pass must not hit a stranger who got a recycled pid:
//   - A direct child keeps its pid until the subreaper reaps it, and passes
//     and reaping exclude each other (the caller's lock). kill(2) is safe.
//   - Deeper down another process may reap. There a pidfd is opened first,
//     then it is verified that the pid is still a child of a process already
//     known to be ours, and the signal goes through the pidfd. See send.
//
// Three things win against processes that fork faster than they are found:
// the command's own process group is killed in one system call, which the
// kernel makes atomic against fork (requests.go); passes go from the highest pid
// down and shoot direct children as they are read, so that in a chain of
// processes that fork and exit the living end is hit first; and when passes
// keep finding new processes, everything is stopped before it is killed, so
// that no death makes room for a birth at a limit on processes. A process that
// has been sent SIGKILL or SIGSTOP cannot complete a fork.

// walker finds and signals the descendants of a subreaper.
type walker struct {
	fs       *procfs
	self     int
	skip     func(*stat) bool // children of self to leave alone, with all below them; nil: none
	children bool             // the kernel lists children

	found []stat      // of the last snapshot, parents before children
	index map[int]int // pid → place in found
}

func newWalker(self int, skip func(*stat) bool) *walker {
	fs := newProcfs()
	return &walker{fs: fs, self: self, skip: skip, children: fs.hasChildren(self), index: make(map[int]int)}
}

// snapshot finds the descendants, parents before children. direct, if not nil,
// is called for each child of self as soon as it is read.
func (w *walker) snapshot(direct func(*stat)) []stat {
	w.found = w.found[:0]
	clear(w.index)
	if w.children {
		w.descend(direct)
	} else {
		w.scan(direct)
	}
	return w.found
}

func (w *walker) add(s stat, direct func(*stat)) {
	if s.ppid == w.self {
		if w.skip != nil && w.skip(&s) {
			return
		}
		if direct != nil {
			direct(&s)
		}
	}
	w.index[s.pid] = len(w.found)
	w.found = append(w.found, s)
}

// descend follows the kernel's lists of children.
func (w *walker) descend(direct func(*stat)) {
	queue := []int{w.self}
	for len(queue) > 0 {
		kids := w.fs.children(queue[0], nil)
		parent := queue[0]
		queue = queue[1:]
		slices.Sort(kids)
		slices.Reverse(kids)
		for _, pid := range kids {
			if _, seen := w.index[pid]; seen {
				continue
			}
			if s, ok := w.fs.stat(pid); ok && s.ppid == parent {
				before := len(w.found)
				w.add(s, direct)
				if len(w.found) > before {
					queue = append(queue, pid)
				}
			}
		}
	}
}

// scan reads every process there is, for kernels without such lists.
func (w *walker) scan(direct func(*stat)) {
	var others []stat
	for _, pid := range w.fs.all() {
		if pid == w.self {
			continue
		}
		s, ok := w.fs.stat(pid)
		switch {
		case !ok:
		case s.ppid == w.self:
			w.add(s, direct)
		default:
			others = append(others, s)
		}
	}
	// Each round attaches what hangs below the processes found so far.
	for grown := true; grown && len(others) > 0; {
		grown = false
		rest := others[:0]
		for _, s := range others {
			if _, ours := w.index[s.ppid]; ours {
				w.add(s, nil)
				grown = true
			} else {
				rest = append(rest, s)
			}
		}
		others = rest
	}
}

// send signals one process of the last snapshot and reports whether it was
// still there and ours. Parents must be sent to before their children are
// verified against them, which is the order of the snapshot.
func (w *walker) send(s *stat, sig unix.Signal) bool {
	if s.ppid == w.self {
		return unix.Kill(s.pid, sig) == nil
	}
	parent, ok := w.index[s.ppid]
	if !ok {
		return false
	}
	fd, err := unix.PidfdOpen(s.pid, 0)
	if err == unix.ESRCH {
		return false
	}
	if err == nil {
		defer unix.Close(fd)
	}
	now, alive := w.fs.stat(s.pid)
	if !alive || now.start != s.start {
		return false
	}
	// Either its parent is still the process that we know, or it died and the
	// child has become ours directly.
	if now.ppid != w.self {
		up, alive := w.fs.stat(s.ppid)
		if now.ppid != s.ppid || !alive || up.start != w.found[parent].start {
			return false
		}
	}
	if err != nil { // a kernel or a sandbox without pidfds: the check above is all there is
		return unix.Kill(s.pid, sig) == nil
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// who names one process over time.
type who struct {
	pid   int
	start uint64
}

func (s *stat) who() who { return who{s.pid, s.start} }

// killPass sends SIGKILL to every living descendant once, and reports how many
// there were and how many of them were not in seen yet.
func (w *walker) killPass(seen map[who]string) (alive, fresh int) {
	note := func(s *stat) {
		alive++
		if _, known := seen[s.who()]; !known {
			fresh++
			seen[s.who()] = s.comm()
		}
	}
	w.snapshot(func(s *stat) {
		if !s.zombie() {
			w.send(s, unix.SIGKILL)
			note(s)
		}
	})
	for i := range w.found {
		s := &w.found[i]
		if s.ppid != w.self && !s.zombie() && w.send(s, unix.SIGKILL) {
			note(s)
		}
	}
	return alive, fresh
}

// stopPass sends SIGSTOP to every descendant that runs, parents first so that
// no shell sees its child stop, and reports how many there were. sent remembers
// who got one: such a process in an uninterruptible wait stops before it runs
// another instruction, and is counted as stopped. A shell that waits in vfork for
// a child that was stopped before its execve would otherwise never be.
func (w *walker) stopPass(sent map[who]bool) (running int) {
	w.snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.zombie() || s.state == 'Z' || s.stopped() || s.state == 'D' && sent[s.who()] {
			continue
		}
		if w.send(s, unix.SIGSTOP) {
			sent[s.who()] = true
			running++
		}
	}
	return running
}

// continuePass sends SIGCONT to every descendant, children first for the same
// reason.
func (w *walker) continuePass() {
	w.snapshot(nil)
	for i := len(w.found) - 1; i >= 0; i-- {
		w.send(&w.found[i], unix.SIGCONT)
	}
}

// termPass sends SIGTERM to every descendant that is not in done and was
// started at or before the given tick: what a command starts in order to clean
// up after SIGTERM is left to do so. It reports how many it sent.
func (w *walker) termPass(done map[who]bool, until uint64) (sent int) {
	w.snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.zombie() || done[s.who()] || s.start > until {
			continue
		}
		if w.send(s, unix.SIGTERM) {
			done[s.who()] = true
			sent++
		}
	}
	return sent
}

// Bounds of the hunt.
const (
	// Passes before everything is stopped first. A tree that does not fork
	// needs one; one that forks now and then two or three.
	passesBeforeStop = 3
	// Stop passes before killing goes on regardless.
	maxStopPasses = 20
	// Between passes that find nothing new: processes that are dying, or that
	// sit in an uninterruptible wait, for which there is only waiting.
	minPause = 500 * time.Microsecond
	maxPause = 100 * time.Millisecond
)

// hunt runs kill passes until wait reports that none is left. lock is held
// during a pass and released while waiting; done is asked under it. seen
// collects every process that was killed, with its name.
func (w *walker) hunt(lock, unlock func(), done func() bool, wait func(time.Duration), seen map[who]string) {
	pause := minPause
	for pass := 1; ; pass++ {
		lock()
		if done() {
			unlock()
			return
		}
		if pass%(passesBeforeStop+1) == 0 {
			sent := make(map[who]bool)
			for range maxStopPasses {
				if w.stopPass(sent) == 0 {
					break
				}
			}
		}
		_, fresh := w.killPass(seen)
		ended := done()
		unlock()
		if ended {
			return
		}
		if fresh > 0 {
			pause = minPause
			wait(minPause / 5)
			continue
		}
		wait(pause)
		pause = min(2*pause, maxPause)
	}
}

// bootTicks is the present in the unit of stat.start. The kernel counts in
// USER_HZ, which is 100 on every architecture that Linux runs Go on.
func bootTicks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return ^uint64(0)
	}
	return uint64(ts.Sec)*100 + uint64(ts.Nsec)/10_000_000
}
