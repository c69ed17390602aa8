//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	tail := " S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 4242 1 2"
	for _, name := range []string{"bash", "a b", ") S 1 (", "x)", "(", "line\nbreak", "", "fifteen-letters"} {
		s, ok := parseStat([]byte("12 (" + name + ")" + tail))
		want := stat{pid: 12, ppid: 7, pgrp: 8, session: 9, threads: 3, start: 4242, state: 'S'}
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
	self, ok := newProcfs().stat(os.Getpid())
	if !ok || self.ppid != os.Getppid() || self.threads < 2 {
		t.Errorf("%+v", self)
	}
}

// fakeProc is a /proc with the given children, with their lists or without.
func fakeProc(t *testing.T, parents map[int]int, lists bool) *procfs {
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
	return &procfs{root: root, buf: make([]byte, 8192)}
}

// Both ways to find descendants find the same, parents first, and leave out
// what is to be skipped with all below it.
func TestSnapshot(t *testing.T) {
	parents := map[int]int{1: 0, 50: 1, 10: 50, 90: 50, 5: 90, 6: 5, 70: 10, 60: 1, 61: 60, 30: 50, 31: 30}
	for _, lists := range []bool{false, true} {
		w := newWalker(50, func(s *stat) bool { return s.pid == 30 })
		w.fs = fakeProc(t, parents, lists)
		if w.children = w.fs.hasChildren(50); w.children != lists {
			t.Fatal("wrong way")
		}
		var direct []int
		var all []int
		for _, s := range w.snapshot(func(s *stat) { direct = append(direct, s.pid) }) {
			if s.ppid != 50 && !slices.Contains(all, s.ppid) {
				t.Errorf("%d before its parent %d", s.pid, s.ppid)
			}
			all = append(all, s.pid)
		}
		slices.Sort(all)
		if fmt.Sprint(direct) != "[90 10]" || fmt.Sprint(all) != "[5 6 10 70 90]" {
			t.Errorf("lists %v: direct %v, all %v", lists, direct, all)
		}
	}
}

// A pid that has become another process's is not signalled.
func TestRecycledPidIsSpared(t *testing.T) {
	victim := helper("sleep", nil)
	victim.Path, victim.Args = "/bin/sleep", []string{"sleep", "1000"}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { victim.Process.Kill(); victim.Wait() }()
	pid := victim.Process.Pid
	now, _ := newProcfs().stat(pid)
	// As if seen below 4711, a descendant of ours, at another time.
	for _, s := range []stat{
		{pid: pid, ppid: 4711, start: now.start - 1},
		{pid: pid, ppid: 4711, start: now.start},
		{pid: pid, ppid: os.Getpid(), start: now.start},
	} {
		w := newWalker(1<<30, nil)
		w.add(stat{pid: 4711, ppid: w.self, start: 1}, nil)
		w.add(s, nil)
		if w.send(&s, unix.SIGKILL) {
			t.Errorf("%+v was signalled", s)
		}
	}
	if s, ok := newProcfs().stat(pid); !ok || s.zombie() {
		t.Error("the stranger is dead")
	}
}

func TestWireRoundTrip(t *testing.T) {
	spec := Spec{Argv: []string{"a", "", "\xff\xfe"}, Env: []string{"A=b"}, Dir: "/x", Stdin: true, MaxMemory: -1}
	var stream []byte
	stream = append(stream, encodeStart(&spec)...)
	stream = append(stream, frame(kindKill).done()...)
	stream = append(stream, frame(kindExited).uint(2).uint(64).uint(7).bool(false).uint(3).strings([]string{"a", "b"}).done()...)
	for size := 1; size <= len(stream); size++ {
		rest := stream
		in := newReceiver(func(p, oob []byte) (int, int, error) {
			if len(rest) == 0 {
				return 0, 0, errHangup
			}
			n := copy(p[:min(size, len(p))], rest)
			rest = rest[n:]
			return n, 0, nil
		})
		k, body, err := in.next()
		req, decodeErr := decodeStart(body)
		if err != nil || decodeErr != nil || k != kindStart || !slices.Equal(req.argv, spec.Argv) ||
			!slices.Equal(req.env, spec.Env) || req.dir != "/x" || !req.stdin || req.maxMemory != -1 {
			t.Fatalf("%v %v %v %+v", k, err, decodeErr, req)
		}
		if k, body, err := in.next(); err != nil || k != kindKill || len(body) != 0 {
			t.Fatal(k, body, err)
		}
		_, body, _ = in.next()
		if e, kills := decodeExited(&decoder{b: body}); kills != 7 || e.Code != -64 || e.Signal != 64 || e.Alone || e.SurvivorCount != 3 || !slices.Equal(e.Survivors, []string{"a", "b"}) {
			t.Fatalf("%+v", e)
		}
		if _, _, err := in.next(); err != errHangup {
			t.Fatal(err)
		}
	}
}

// No bytes from the other side make a receiver or a decoder panic or take
// more memory than a frame may have.
func FuzzReceiver(f *testing.F) {
	f.Add(encodeStart(&Spec{Argv: []string{"x"}}))
	f.Add(frame(kindDead).int(1).int(2).int(3).bool(true).uint(1).strings([]string{"a"}).bool(false).done())
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newReceiver(func(p, oob []byte) (int, int, error) {
			if len(b) == 0 {
				return 0, 0, errHangup
			}
			n := copy(p, b)
			b = b[n:]
			return n, 0, nil
		})
		for {
			_, body, err := in.next()
			if err != nil {
				return
			}
			body = bytes.Clone(body)
			decodeStart(body)
			decodeDead(&decoder{b: body})
			decodeExited(&decoder{b: body})
		}
	})
}
