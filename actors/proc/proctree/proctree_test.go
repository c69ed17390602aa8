//go:build linux

package proctree

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	tail := " S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 4242 1 2"
	for _, name := range []string{"bash", "a b", ") S 1 (", "x)", "(", "line\nbreak", "", "fifteen-letters"} {
		s, ok := parseStat([]byte("12 (" + name + ")" + tail))
		want := Stat{PID: 12, PPID: 7, Pgrp: 8, Session: 9, Threads: 3, Start: 4242, State: 'S'}
		want.nameLen = uint8(copy(want.name[:], name))
		if !ok || s != want {
			t.Errorf("%q: %+v %v", name, s, ok)
		}
	}
	for _, bad := range []string{"", "12", "12 (x)", "12 (x) S", "12 (x) S 1 2 3", "(x) S 1"} {
		if _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q is taken", bad)
		}
	}
	self, ok := NewProcfs().Stat(os.Getpid())
	if !ok || self.PPID != os.Getppid() || self.Threads < 2 {
		t.Errorf("%+v", self)
	}
}

// fakeProc is a /proc with the given processes, with lists of children or without.
func fakeProc(t *testing.T, parents map[int]int, lists bool) *Procfs {
	t.Helper()
	root := t.TempDir()
	kids := make(map[int][]string)
	for pid, ppid := range parents {
		kids[ppid] = append(kids[ppid], fmt.Sprint(pid))
		dir := filepath.Join(root, fmt.Sprint(pid), "task", fmt.Sprint(pid))
		os.MkdirAll(dir, 0o755)
		line := fmt.Sprintf("%d (x) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 1", pid, ppid)
		os.WriteFile(filepath.Join(root, fmt.Sprint(pid), "stat"), []byte(line), 0o644)
	}
	for pid := range parents {
		if lists {
			file := filepath.Join(root, fmt.Sprint(pid), "task", fmt.Sprint(pid), "children")
			os.WriteFile(file, []byte(strings.Join(kids[pid], " ")+" "), 0o644)
		}
	}
	return &Procfs{root: root, buf: make([]byte, 8192)}
}

// Both ways to find descendants find the same ones, parents first, and leave out skipped children
// with everything below them.
func TestSnapshot(t *testing.T) {
	parents := map[int]int{1: 0, 50: 1, 10: 50, 90: 50, 5: 90, 6: 5, 70: 10, 60: 1, 61: 60, 30: 50, 31: 30}
	for _, lists := range []bool{false, true} {
		w := NewWalker(50, func(s *Stat) bool { return s.PID == 30 })
		w.fs = fakeProc(t, parents, lists)
		if w.children = w.fs.hasChildren(50); w.children != lists {
			t.Fatal("wrong way")
		}
		var direct []int
		var all []int
		for _, s := range w.Snapshot(func(s *Stat) { direct = append(direct, s.PID) }) {
			if s.PPID != 50 && !slices.Contains(all, s.PPID) {
				t.Errorf("%d before its parent %d", s.PID, s.PPID)
			}
			all = append(all, s.PID)
		}
		slices.Sort(all)
		if fmt.Sprint(direct) != "[90 10]" || fmt.Sprint(all) != "[5 6 10 70 90]" {
			t.Errorf("lists %v: direct %v, all %v", lists, direct, all)
		}
	}
}

// A pid that another process has taken over is not signalled: not when the parent is a stranger,
// and not when only the start time differs.
func TestRecycledPidIsSpared(t *testing.T) {
	victim := exec.Command("/bin/sleep", "1000")
	victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { victim.Process.Kill(); victim.Wait() }()
	fs := NewProcfs()
	now, _ := fs.Stat(victim.Process.Pid)
	me, _ := fs.Stat(os.Getpid())
	strangerBelow := func(parent Stat, start uint64) (*Walker, Stat) {
		w := NewWalker(1<<30, nil)
		parent.PPID = w.self
		w.add(parent, nil)
		s := Stat{PID: now.PID, PPID: parent.PID, Start: start}
		w.add(s, nil)
		return w, s
	}
	absent := Stat{PID: 4711, Start: 1}
	recycled := me
	recycled.Start--
	other, _ := fs.Stat(os.Getppid()) // alive, but not the parent
	for name, tc := range map[string]struct {
		parent Stat
		start  uint64
	}{
		"another start time, below an absent process": {absent, now.Start - 1},
		"below an absent process":                     {absent, now.Start},
		"below a recycled parent":                     {recycled, now.Start},
		"below another living process":                {other, now.Start},
		"another start time, below its real parent":   {me, now.Start - 1},
	} {
		w, s := strangerBelow(tc.parent, tc.start)
		if w.Signal(&s, unix.SIGKILL) {
			t.Errorf("%s: signalled", name)
		}
	}
	w := NewWalker(1<<30, nil)
	s := Stat{PID: now.PID, PPID: os.Getpid(), Start: now.Start}
	w.add(s, nil)
	if w.Signal(&s, unix.SIGKILL) {
		t.Error("signalled although its parent is not in the snapshot")
	}
	if s, ok := fs.Stat(now.PID); !ok || s.Zombie() {
		t.Error("the stranger is dead")
	}
	w, s = strangerBelow(me, now.Start)
	if !w.Signal(&s, unix.SIGCONT) {
		t.Error("a process that is still the same was not signalled")
	}
}

// A process in an uninterruptible wait counts as stopped once it was sent SIGSTOP, and not before:
// it will not run another instruction. A shell that waits in vfork looks like that.
func TestSignalledWaiterCountsAsStopped(t *testing.T) {
	child := exec.Command("/bin/sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	self, pid := os.Getpid(), child.Process.Pid
	for state, again := range map[string]int{"D": 0, "R": 1, "S": 1} {
		w := NewWalker(self, nil)
		w.fs, w.children = fakeProc(t, map[int]int{self: 1, pid: self}, false), false
		file := filepath.Join(w.fs.root, fmt.Sprint(pid), "stat")
		line, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(file, []byte(strings.Replace(string(line), ") S ", ") "+state+" ", 1)), 0o644)
		sent := make(map[ProcID]bool)
		if n := w.StopPass(sent); n != 1 {
			t.Errorf("state %s: %d processes run before the first signal", state, n)
		}
		if n := w.StopPass(sent); n != again {
			t.Errorf("state %s: %d processes run after it, want %d", state, n, again)
		}
	}
}

// A process whose first thread has ended shows as a zombie, but is alive if it has other threads.
func TestZombie(t *testing.T) {
	for _, tc := range []struct {
		state   byte
		threads int
		zombie  bool
	}{{'Z', 1, true}, {'Z', 0, true}, {'X', 1, true}, {'Z', 2, false}, {'S', 1, false}, {'T', 1, false}} {
		s := Stat{State: tc.state, Threads: tc.threads}
		if s.Zombie() != tc.zombie {
			t.Errorf("state %c with %d threads: %v", tc.state, tc.threads, !tc.zombie)
		}
	}
}

// SIGTERM goes to processes that were started in time, and once to each.
func TestSignalPass(t *testing.T) {
	child := exec.Command("/bin/sh", "-c", `trap "" TERM; echo ready; sleep 1000`)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Kill(-child.Process.Pid, unix.SIGKILL); child.Wait() }()
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	shell, _ := NewProcfs().Stat(child.Process.Pid)
	w := NewWalker(os.Getpid(), func(s *Stat) bool { return s.PID != shell.PID })
	done := make(map[ProcID]bool)
	if n := w.SignalPass(unix.SIGTERM, done, shell.Start-1); n != 0 {
		t.Errorf("%d signals to processes that were started later", n)
	}
	if n := w.SignalPass(unix.SIGTERM, done, BootTicks()); n == 0 || !done[shell.ID()] {
		t.Errorf("%d signals, %v", n, done)
	}
	again := map[ProcID]bool{}
	w.Snapshot(nil)
	for i := range w.found {
		again[w.found[i].ID()] = true
	}
	if n := w.SignalPass(unix.SIGTERM, again, BootTicks()); n != 0 {
		t.Errorf("%d signals to processes that had one", n)
	}
}

// Nothing ends the passes but done: not an empty snapshot, and not a number of passes.
func TestKillAllEndsWithDoneOnly(t *testing.T) {
	w := NewWalker(50, nil)
	w.fs, w.children = fakeProc(t, map[int]int{50: 1}, true), true
	const last = 99
	asked, held := 0, false
	done := func() bool {
		if !held {
			t.Error("asked without the lock")
		}
		asked++
		return asked == last
	}
	wait := func(time.Duration) {
		if held {
			t.Error("waits with the lock")
		}
	}
	w.KillAll(func() { held = true }, func() { held = false }, done, wait, make(map[ProcID]string))
	if asked != last || held {
		t.Errorf("asked %d times, lock held: %v", asked, held)
	}
}

// A runner's sweep kills an orphan of a process that it leaves alone, such as one of "kubectl exec",
// and not that process, whose group the orphan is in. An init kills by group.
func TestSweepSparesTheGroupOfAnOrphan(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	for _, spare := range []bool{true, false} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "(sleep 60 >/dev/null & echo $!); exec sleep 60")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		stdout, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		orphan := 0
		if _, err := fmt.Fscan(stdout, &orphan); err != nil {
			t.Fatal(err)
		}
		var skip func(*Stat) bool
		if spare {
			skip = func(s *Stat) bool { return s.PID == cmd.Process.Pid }
		}
		w := NewWalker(os.Getpid(), skip)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if s, ok := NewProcfs().Stat(orphan); ok && s.PPID == os.Getpid() {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the orphan has not come")
			}
		}
		w.killPass(make(map[ProcID]string), true)
		dead := make(chan error, 1)
		go func() { dead <- cmd.Wait() }()
		select {
		case <-dead:
			if spare {
				t.Error("the process that was to be left alone is dead")
			}
		case <-time.After(200 * time.Millisecond):
			if !spare {
				t.Error("an init's child lives")
			}
			_ = cmd.Process.Kill()
			<-dead
		}
		_, _ = unix.Wait4(orphan, nil, 0, nil)
	}
}
