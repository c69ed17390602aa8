//go:build linux

package proctree

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How a tree is killed
//
// A Walker belongs to a child subreaper (an init, the runner, or trouped when
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

// Walker finds and signals the descendants of a subreaper.
type Walker struct {
	fs       *Procfs
	self     int
	skip     func(*Stat) bool // children of self to leave alone, with all below them; nil: none
	children bool             // the kernel lists children

	found []Stat      // of the last snapshot, parents before children
	index map[int]int // pid → place in found
}

func NewWalker(self int, skip func(*Stat) bool) *Walker {
	fs := NewProcfs()
	return &Walker{fs: fs, self: self, skip: skip, children: fs.hasChildren(self), index: make(map[int]int)}
}

// Snapshot finds the descendants, parents before children. direct, if not nil,
// is called for each child of self as soon as it is read.
func (w *Walker) Snapshot(direct func(*Stat)) []Stat {
	w.found = w.found[:0]
	clear(w.index)
	if w.children {
		w.descend(direct)
	} else {
		w.scan(direct)
	}
	return w.found
}

func (w *Walker) add(s Stat, direct func(*Stat)) {
	if s.PPID == w.self {
		if w.skip != nil && w.skip(&s) {
			return
		}
		if direct != nil {
			direct(&s)
		}
	}
	w.index[s.PID] = len(w.found)
	w.found = append(w.found, s)
}

// descend follows the kernel's lists of children.
func (w *Walker) descend(direct func(*Stat)) {
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
			if s, ok := w.fs.Stat(pid); ok && s.PPID == parent {
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
func (w *Walker) scan(direct func(*Stat)) {
	var others []Stat
	for _, pid := range w.fs.All() {
		if pid == w.self {
			continue
		}
		s, ok := w.fs.Stat(pid)
		switch {
		case !ok:
		case s.PPID == w.self:
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
			if _, ours := w.index[s.PPID]; ours {
				w.add(s, nil)
				grown = true
			} else {
				rest = append(rest, s)
			}
		}
		others = rest
	}
}

// Send signals one process of the last snapshot and reports whether it was
// still there and ours. Parents must be sent to before their children are
// verified against them, which is the order of the snapshot.
func (w *Walker) Send(s *Stat, sig unix.Signal) bool {
	if s.PPID == w.self {
		return unix.Kill(s.PID, sig) == nil
	}
	parent, ok := w.index[s.PPID]
	if !ok {
		return false
	}
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err == unix.ESRCH {
		return false
	}
	if err == nil {
		defer unix.Close(fd)
	}
	now, alive := w.fs.Stat(s.PID)
	if !alive || now.Start != s.Start {
		return false
	}
	// Either its parent is still the process that we know, or it died and the
	// child has become ours directly.
	if now.PPID != w.self {
		up, alive := w.fs.Stat(s.PPID)
		if now.PPID != s.PPID || !alive || up.Start != w.found[parent].Start {
			return false
		}
	}
	if err != nil { // a kernel or a sandbox without pidfds: the check above is all there is
		return unix.Kill(s.PID, sig) == nil
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// ProcID names one process over time.
type ProcID struct {
	PID   int
	Start uint64
}

func (s *Stat) ID() ProcID { return ProcID{s.PID, s.Start} }

// killPass sends SIGKILL to every living descendant once, and reports how many
// there were and how many of them were not in seen yet.
func (w *Walker) killPass(seen map[ProcID]string) (alive, fresh int) {
	note := func(s *Stat) {
		alive++
		if _, known := seen[s.ID()]; !known {
			fresh++
			seen[s.ID()] = s.Comm()
		}
	}
	w.Snapshot(func(s *Stat) {
		if !s.Zombie() {
			w.Send(s, unix.SIGKILL)
			note(s)
		}
	})
	for i := range w.found {
		s := &w.found[i]
		if s.PPID != w.self && !s.Zombie() && w.Send(s, unix.SIGKILL) {
			note(s)
		}
	}
	return alive, fresh
}

// StopPass sends SIGSTOP to every descendant that runs, parents first so that
// no shell sees its child stop, and reports how many there were. sent remembers
// who got one: such a process in an uninterruptible wait stops before it runs
// another instruction, and is counted as stopped. A shell that waits in vfork for
// a child that was stopped before its execve would otherwise never be.
func (w *Walker) StopPass(sent map[ProcID]bool) (running int) {
	w.Snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.Zombie() || s.State == 'Z' || s.Stopped() || s.State == 'D' && sent[s.ID()] {
			continue
		}
		if w.Send(s, unix.SIGSTOP) {
			sent[s.ID()] = true
			running++
		}
	}
	return running
}

// ContinuePass sends SIGCONT to every descendant, children first for the same
// reason.
func (w *Walker) ContinuePass() {
	w.Snapshot(nil)
	for i := len(w.found) - 1; i >= 0; i-- {
		w.Send(&w.found[i], unix.SIGCONT)
	}
}

// TermPass sends SIGTERM to every descendant that is not in done and was
// started at or before the given tick: what a command starts in order to clean
// up after SIGTERM is left to do so. It reports how many it sent.
func (w *Walker) TermPass(done map[ProcID]bool, until uint64) (sent int) {
	w.Snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.Zombie() || done[s.ID()] || s.Start > until {
			continue
		}
		if w.Send(s, unix.SIGTERM) {
			done[s.ID()] = true
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

// KillAll runs kill passes until wait reports that none is left. lock is held
// during a pass and released while waiting; done is asked under it. seen
// collects every process that was killed, with its name.
func (w *Walker) KillAll(lock, unlock func(), done func() bool, wait func(time.Duration), seen map[ProcID]string) {
	pause := minPause
	for pass := 1; ; pass++ {
		lock()
		if done() {
			unlock()
			return
		}
		if pass%(passesBeforeStop+1) == 0 {
			sent := make(map[ProcID]bool)
			for range maxStopPasses {
				if w.StopPass(sent) == 0 {
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

// BootTicks is the present in the unit of stat.start. The kernel counts in
// USER_HZ, which is 100 on every architecture that Linux runs Go on.
func BootTicks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return ^uint64(0)
	}
	return uint64(ts.Sec)*100 + uint64(ts.Nsec)/10_000_000
}
