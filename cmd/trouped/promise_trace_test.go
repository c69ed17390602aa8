package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// trace marks the processes of one command, so that they are found among all of
// the machine: by their arguments while they live and, since a zombie has none, by
// their name.
type trace struct {
	t    *testing.T
	name string // at most 15 bytes: what the kernel keeps of a name
	// Programs that run under the name.
	bash, sleep, perl string
}

var traces atomic.Int64

func newTrace(t *testing.T) *trace {
	t.Helper()
	m := &trace{t: t, name: fmt.Sprintf("tp%x-%d", os.Getpid(), traces.Add(1))}
	if len(m.name) > 15 {
		t.Fatal("the name is too long: ", m.name)
	}
	dir, err := os.MkdirTemp("", "troupe-trace-") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for program, link := range map[string]*string{"/bin/bash": &m.bash, "/bin/sleep": &m.sleep, "/usr/bin/perl": &m.perl} {
		*link = filepath.Join(dir, filepath.Base(program), m.name)
		if err := os.Mkdir(filepath.Dir(*link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, *link); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// argv runs a script, in which BASH, SLEEP and PERL are programs that are found again.
func (m *trace) argv(script string) []string {
	return []string{m.bash, "-c", strings.NewReplacer("BASH", m.bash, "SLEEP", m.sleep, "PERL", m.perl).Replace(script)}
}

// found lists the processes, zombies included.
func (m *trace) found() []string {
	m.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		m.t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline") // it may be gone
		stat, _ := os.ReadFile(dir + "/stat")
		if bytes.Contains(line, []byte(m.name)) || bytes.Contains(stat, []byte("("+m.name+")")) {
			stat = stat[:min(len(stat), bytes.LastIndexByte(stat, ')')+3)] // pid (name) state
			found = append(found, fmt.Sprintf("%s %q", stat, line))
		}
	}
	return found
}

// await waits until there are n of them.
func (m *trace) await(n int) {
	m.t.Helper()
	eventually(m.t, func() error {
		if found := m.found(); len(found) < n {
			return fmt.Errorf("%d processes, want %d: %s", len(found), n, found[:min(len(found), 10)])
		}
		return nil
	})
}

// awaitSome waits for as many as usual, in goroutines that may not end the test.
func (m *trace) awaitSome() {
	for deadline := time.Now().Add(10 * time.Second); len(m.found()) < 4 && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond) // a poll, bounded by the deadline
	}
}

// none says that nothing is left, at this very moment.
func (m *trace) none() {
	m.t.Helper()
	if found := m.found(); len(found) > 0 {
		m.t.Errorf("%d left: %s", len(found), found[:min(len(found), 10)])
	}
}

// gone waits until nothing is left, where no event announces it.
func (m *trace) gone() {
	m.t.Helper()
	eventually(m.t, func() error {
		if found := m.found(); len(found) > 0 {
			return fmt.Errorf("%d left: %s", len(found), found[:min(len(found), 10)])
		}
		return nil
	})
}

// eventually polls until ok returns nil. The bound is for a machine that is very busy.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); ; {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // a poll, bounded by the deadline
	}
}

// bounded returns the context of a wait that must not last forever.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// soak returns normal, or long when TROUPE_SOAK is set.
func soak(normal, long int) int {
	if soaking {
		return long
	}
	return normal
}

// Read before TestMain clears the variables of its developer's trouped.
var soaking = os.Getenv("TROUPE_SOAK") != ""

// stateOf returns the letter of /proc/PID/stat, or 0 when there is no such process.
func stateOf(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	at := bytes.LastIndex(stat, []byte(") "))
	if at < 0 || at+2 >= len(stat) {
		return 0
	}
	return stat[at+2]
}

// children returns the processes whose parent is pid.
func children(t *testing.T, pid int) []int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, dir := range dirs {
		var child int
		if _, err := fmt.Sscanf(dir, "/proc/%d", &child); err != nil {
			continue
		}
		if parent, _ := parentOf(child); parent == pid {
			found = append(found, child)
		}
	}
	return found
}

// runnerPID finds the runner of an instance, which is its only child.
func (s *instance) runnerPID() int {
	s.t.Helper()
	pid := 0
	eventually(s.t, func() error {
		found := children(s.t, s.cmd.Process.Pid)
		if len(found) != 1 {
			return fmt.Errorf("trouped has %d children", len(found))
		}
		pid = found[0]
		return nil
	})
	return pid
}
