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

// fakeProc is a /proc with the given children, with their lists or without.
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
			os.WriteFile(filepath.Join(root, fmt.Sprint(pid), "task", fmt.Sprint(pid), "children"), []byte(strings.Join(kids[pid], " ")+" "), 0o644)
		}
	}
	return &Procfs{root: root, buf: make([]byte, 8192)}
}

// Both ways to find descendants find the same, parents first, and leave out
// what is to be skipped with all below it.
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

// A pid that has become another process's is not signalled.
func TestRecycledPidIsSpared(t *testing.T) {
	victim := exec.Command("/bin/sleep", "1000")
	victim.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { victim.Process.Kill(); victim.Wait() }()
	pid := victim.Process.Pid
	now, _ := NewProcfs().Stat(pid)
	// As if seen below 4711, a descendant of ours, at another time.
	for _, s := range []Stat{
		{PID: pid, PPID: 4711, Start: now.Start - 1},
		{PID: pid, PPID: 4711, Start: now.Start},
		{PID: pid, PPID: os.Getpid(), Start: now.Start},
	} {
		w := NewWalker(1<<30, nil)
		w.add(Stat{PID: 4711, PPID: w.self, Start: 1}, nil)
		w.add(s, nil)
		if w.Send(&s, unix.SIGKILL) {
			t.Errorf("%+v was signalled", s)
		}
	}
	if s, ok := NewProcfs().Stat(pid); !ok || s.Zombie() {
		t.Error("the stranger is dead")
	}
}
