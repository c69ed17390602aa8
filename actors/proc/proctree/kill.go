//go:build linux

package proctree

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How a tree is killed
//
// A Walker belongs to a child subreaper: an init, the runner, or trouped after its runner died. A
// process whose parent dies becomes a child of the nearest subreaper above it, so every descendant
// stays below the subreaper until it is reaped. It cannot hide, but it can fork while it is being
// looked for. KillAll therefore repeats: each pass finds the descendants in /proc and signals them,
// until wait reports that no child is left (ECHILD, waitid(2)). That answer, and nothing else, is
// the proof of death.
//
// A pass must not hit a stranger that was given a recycled pid:
//   - A direct child keeps its pid until the subreaper reaps it, and the caller's lock keeps passes
//     and reaping apart. kill(2) is safe.
//   - Deeper down, another process may reap. Signal first opens a pidfd, then verifies that the pid
//     still belongs to a child of a process already known to be ours, and signals through the pidfd
//     (pidfd_send_signal(2), Linux 5.1).
//
// Four measures win against processes that fork faster than they are found:
//   - The caller kills the command's own process group in one system call. The kernel makes that
//     atomic against fork: copy_process() in kernel/fork.c takes tasklist_lock and fails when a
//     signal is pending. A process with a pending SIGKILL or SIGSTOP cannot complete a fork.
//   - Passes go from the highest pid down and signal direct children as they are read. In a chain
//     of processes that fork and exit, this hits the living end first.
//   - When the first pass was not enough, an init kills the groups of its children in the same way. A
//     child that is not reaped holds the number of its group.
//   - When passes keep finding new processes, everything is stopped before it is killed, so that no
//     death makes room for a fork under a limit on processes.
//
// https://man7.org/linux/man-pages/man2/waitid.2.html
// https://github.com/torvalds/linux/blob/v6.12/kernel/fork.c (copy_process)

// Walker finds and signals the descendants of a subreaper.
type Walker struct {
	fs       *Procfs
	self     int
	skip     func(*Stat) bool // children of self to leave alone, with everything below them; nil: none
	children bool             // the kernel lists the children of a process

	maxTasks int // Snapshot ends beyond that many processes and threads; 0: it finds all
	tasks    int // of the last snapshot

	found []Stat      // of the last snapshot, parents before children
	index map[int]int // pid → place in found
}

// NewWalker returns a Walker for the process self, normally the calling one.
func NewWalker(self int, skip func(*Stat) bool) *Walker {
	fs := NewProcfs()
	return &Walker{fs: fs, self: self, skip: skip, children: fs.hasChildren(self), index: make(map[int]int)}
}

// Snapshot finds the descendants, parents before children. If direct is not nil, it is called for
// each child of self as soon as that is read. The result is valid until the next Snapshot or pass.
func (w *Walker) Snapshot(direct func(*Stat)) []Stat {
	w.found = w.found[:0]
	clear(w.index)
	w.tasks = 0
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
	w.tasks += max(1, s.Threads)
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
				if w.maxTasks > 0 && w.tasks > w.maxTasks {
					return
				}
				before := len(w.found)
				w.add(s, direct)
				if len(w.found) > before {
					queue = append(queue, pid)
				}
			}
		}
	}
}

// scan reads every process in /proc, for kernels that do not list children.
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
	// Each round adds the children of the processes found so far.
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

// Signal signals one process of the last snapshot. It reports whether the process was still there
// and still below self. Callers signal in the order of the snapshot: a parent comes before the
// children that are verified against it.
func (w *Walker) Signal(s *Stat, sig unix.Signal) bool {
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
	// Either its parent is still the process in the snapshot, or that has died and the child was
	// reparented to self.
	if now.PPID != w.self {
		up, alive := w.fs.Stat(s.PPID)
		if now.PPID != s.PPID || !alive || up.Start != w.found[parent].Start {
			return false
		}
	}
	if err != nil { // a kernel before 5.3 or a sandbox without pidfds: rely on the check above
		return unix.Kill(s.PID, sig) == nil
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// ProcID identifies one process, even after its pid was recycled.
type ProcID struct {
	PID   int
	Start uint64
}

// ID returns the identity of the process.
func (s *Stat) ID() ProcID { return ProcID{s.PID, s.Start} }

// killPass sends SIGKILL once to every living descendant and adds it to seen. It returns how many
// were new there.
func (w *Walker) killPass(seen map[ProcID]string, groups bool) (fresh int) {
	own, err := unix.Getsid(w.self)
	groups = groups && w.skip == nil && err == nil
	killed := 0 // the group that was killed last
	note := func(s *Stat) {
		if _, known := seen[s.ID()]; !known {
			fresh++
			seen[s.ID()] = s.Comm()
		}
	}
	w.Snapshot(func(s *Stat) {
		// Below an init, a group of another session than its own has only processes of its tree: no
		// others can join it. The group of an orphan that a runner finds may be that of a "kubectl
		// exec" which goes on.
		if groups && s.Session != own && s.Pgrp > 1 && s.Pgrp != killed {
			killed = s.Pgrp
			unix.Kill(-s.Pgrp, unix.SIGKILL)
		}
		if !s.Zombie() {
			w.Signal(s, unix.SIGKILL)
			note(s)
		}
	})
	for i := range w.found {
		s := &w.found[i]
		if s.PPID != w.self && !s.Zombie() && w.Signal(s, unix.SIGKILL) {
			note(s)
		}
	}
	return fresh
}

// StopPass sends SIGSTOP to every running descendant and returns how many there were. Parents come
// first, so that no shell sees its child stop. sent records which processes were signalled: one of
// those in an uninterruptible wait stops before it executes another instruction, and counts as
// stopped. Otherwise a shell that waits in vfork(2) for a child that was stopped before its execve
// would never count.
func (w *Walker) StopPass(sent map[ProcID]bool) (running int) {
	w.Snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.Zombie() || s.State == 'Z' || s.Stopped() || s.State == 'D' && sent[s.ID()] {
			continue
		}
		if w.Signal(s, unix.SIGSTOP) {
			sent[s.ID()] = true
			running++
		}
	}
	return running
}

// ContinuePass sends SIGCONT to every descendant. Children come first, for the same reason.
func (w *Walker) ContinuePass() {
	w.Snapshot(nil)
	for i := len(w.found) - 1; i >= 0; i-- {
		w.Signal(&w.found[i], unix.SIGCONT)
	}
}

// SignalPass sends sig to every descendant that is not in done and was started at or before the given
// tick, and returns how many it signalled. Processes that a command starts to clean up after SIGTERM
// are younger, and are left alone.
func (w *Walker) SignalPass(sig unix.Signal, done map[ProcID]bool, until uint64) (sent int) {
	w.Snapshot(nil)
	for i := range w.found {
		s := &w.found[i]
		if s.Zombie() || done[s.ID()] || s.Start > until {
			continue
		}
		if w.Signal(s, sig) {
			done[s.ID()] = true
			sent++
		}
	}
	return sent
}

// Bounds of KillAll.
const (
	// Passes before everything is stopped first. A tree that does not fork needs one pass, a tree
	// that forks now and then two or three.
	passesBeforeStop = 3
	// Stop passes before killing continues regardless.
	maxStopPasses = 20
	// Pauses between passes that find nothing new. The remaining processes are dying or are in an
	// uninterruptible wait.
	minPause = 500 * time.Microsecond
	maxPause = 100 * time.Millisecond
)

// KillAll runs kill passes until done reports that nothing is left. It holds lock during a pass and
// while it calls done, and releases it during wait. seen collects every killed process with its
// name.
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
		fresh := w.killPass(seen, pass > 1)
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

// BootTicks returns the current time in the unit of Stat.Start. The kernel counts in USER_HZ, which
// is 100 on every architecture that Go supports on Linux (proc_pid_stat(5)).
func BootTicks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return ^uint64(0)
	}
	return uint64(ts.Sec)*100 + uint64(ts.Nsec)/10_000_000
}
