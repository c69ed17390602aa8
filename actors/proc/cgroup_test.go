//go:build linux

package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/confine"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// sessionCgroups opens a Runner with cgroups and returns the directory in which its sessions have
// theirs, or skips.
func sessionCgroups(t *testing.T, change func(*Config)) (r *Runner, base string) {
	t.Helper()
	root := t.TempDir()
	r = open(t, func(c *Config) { c.Cgroup, c.Isolation.Workspace = "auto", root }, change)
	if r.Status().Containment != ContainmentCgroup {
		t.Skip("no cgroup v2 can be written here")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r, r.conn.hello.Cgroup
}

// controlled makes a cgroup in which the runner may use a controller, or skips: only root makes one,
// and where a controller is attached to cgroup v1, no cgroup v2 has it.
func controlled(t *testing.T, controller string) (dir string) {
	t.Helper()
	own, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	_, top, err := proctree.CgroupDir(string(own), string(mounts), "")
	if err != nil {
		t.Skip("no cgroup v2 here: ", err)
	}
	if err := os.WriteFile(filepath.Join(top, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
		t.Skipf("no cgroup v2 with the controller %s here: %v", controller, err)
	}
	dir = filepath.Join(top, newMarker())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() { eventually(t, "removal of the cgroup", func() bool { return os.Remove(dir) == nil }) })
	return dir
}

// runOf starts a shell script of a session, in its workspace.
func runOf(t *testing.T, r *Runner, n int, script string) *command {
	t.Helper()
	marker := newMarker()
	return runOwned(t, r, workspace(n), marker, Spec{
		Argv: []string{"/bin/bash", "-c", strings.ReplaceAll(script, "MARK", marker), marker}, Env: environ(),
		Workspace: workspace(n),
	})
}

// cgroupOf is the directory, below base, of the cgroup that a running command prints.
func cgroupOf(c *command) string {
	c.t.Helper()
	c.waitOutput("ready")
	_, path, _ := strings.Cut(c.stdout(), "/troupe.")
	_, path, _ = strings.Cut(strings.TrimSpace(path), "/")
	path, _, _ = strings.Cut(path, "\n")
	return path
}

const printCgroup = "grep ^0:: /proc/self/cgroup; echo ready; exec -a MARK sleep 1000"

// levels are those of isolation that the kernel has.
func levels(t *testing.T, f func(t *testing.T, level func(*Config))) {
	for _, level := range []string{IsolationNone, IsolationSession} {
		t.Run(level, func(t *testing.T) {
			if err := confine.Available(); level == IsolationSession && err != nil {
				t.Skip(err)
			}
			f(t, func(c *Config) { c.Isolation.Level = level })
		})
	}
}

// Executions of a session are in leaves of one cgroup, also those in clones, and nothing of it
// outlives the session.
func TestSessionHasACgroup(t *testing.T) {
	levels(t, func(t *testing.T, level func(*Config)) {
		r, base := sessionCgroups(t, level)
		first, second, other := runOf(t, r, 1, printCgroup), runOf(t, r, 1, printCgroup), runOf(t, r, 2, printCgroup)
		a, b, c := cgroupOf(first), cgroupOf(second), cgroupOf(other)
		if filepath.Dir(a) != workspace(1) || filepath.Dir(b) != workspace(1) || a == b || filepath.Dir(c) != workspace(2) {
			t.Errorf("cgroups %q, %q and %q", a, b, c)
		}
		for _, c := range []*command{first, second, other} {
			c.tree.Kill()
			c.waitDead()
		}
		again := runOf(t, r, 1, printCgroup)
		if d := cgroupOf(again); filepath.Dir(d) != workspace(1) {
			t.Errorf("cgroup %q", d)
		}
		again.tree.Signal(15)
		again.waitDead()
		r.RemoveWorkspace(workspace(1))
		r.RemoveWorkspace(workspace(2))
		eventually(t, "removal of the sessions' cgroups", func() bool {
			left, _ := filepath.Glob(filepath.Join(base, strings.Repeat("?", 26)))
			return len(left) == 0
		})
	})
}

// An init that serves one session after the other moves, and leaves nothing behind.
func TestInitMovesBetweenCgroups(t *testing.T) {
	r, base := sessionCgroups(t, func(c *Config) { c.WarmInits = 1 })
	for n := range 5 {
		c := runOf(t, r, n, "grep ^0:: /proc/self/cgroup; echo ready")
		if at := cgroupOf(c); filepath.Dir(at) != workspace(n) {
			t.Errorf("cgroup %q of session %d", at, n)
		}
		c.waitDead()
	}
	eventually(t, "removal of cgroups that were left", func() bool {
		left, _ := filepath.Glob(filepath.Join(base, strings.Repeat("?", 26)))
		return len(left) <= 2 // of idle inits
	})
}

// The kernel ends the execution that holds most when its session reaches the bound of memory, however
// fast it grows, and the client is told so. Another one of the session goes on.
func TestKernelBoundsMemoryOfASession(t *testing.T) {
	levels(t, func(t *testing.T, level func(*Config)) {
		const bound = 128 << 20
		dir := controlled(t, "memory")
		r, base := sessionCgroups(t, func(c *Config) { level(c); c.Session.Memory, c.Cgroup = bound, dir })
		modest := runOf(t, r, 1, printCgroup)
		modest.waitOutput("ready")
		other := runOf(t, r, 2, greedy("64"))
		other.waitOutput("full")
		hog := greedy("1000")
		for _, script := range []string{hog, "(" + hog + ") & (" + hog + ") & wait; exit 3"} {
			c := runOf(t, r, 1, script)
			if d := c.waitDead(); d.Exceeded != BoundMemory {
				t.Errorf("%s: %+v", script, d)
			}
		}
		session := filepath.Join(base, workspace(1))
		if peak := number(t, session, "memory.peak"); peak > bound {
			t.Errorf("it held %d bytes", peak)
		}
		if b, _ := os.ReadFile(filepath.Join(session, "memory.events.local")); !strings.Contains(string(b), "oom 2\n") {
			t.Errorf("the kernel did not do it: %s", b)
		}
		for _, c := range []*command{modest, other} {
			if len(find(c.marker)) == 0 {
				t.Errorf("%+v", c.events)
			}
		}
	})
}

// A fork bomb never has more processes than its session's bound and a margin.
func TestKernelBoundsProcessesOfASession(t *testing.T) {
	levels(t, func(t *testing.T, level func(*Config)) {
		const bound = 64
		dir := controlled(t, "pids")
		r, base := sessionCgroups(t, func(c *Config) { level(c); c.Session.Processes, c.Cgroup = bound, dir })
		other := runOf(t, r, 2, many("40"))
		other.waitOutput("ready")
		first := runOf(t, r, 1, "echo ready; exec -a MARK sleep 1000")
		first.waitOutput("ready")
		began := time.Now()
		c := runOf(t, r, 1, bomb)
		if d := c.waitDead(); d.Exceeded != BoundProcesses {
			t.Errorf("%+v", d)
		}
		t.Logf("over after %v", time.Since(began))
		if peak := number(t, filepath.Join(base, workspace(1)), "pids.peak"); peak > bound+16 {
			t.Errorf("it had %d processes", peak)
		}
		if len(find(first.marker)) == 0 || len(find(other.marker)) < 41 {
			t.Error("others lost processes")
		}
	})
}

// number reads a file of a cgroup; 0: this kernel does not have it.
func number(t *testing.T, dir, file string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if os.IsNotExist(err) {
		t.Logf("no %s here", file)
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What a killed runner has left is removed, also the cgroups of sessions.
func TestLeftCgroupsAreRemoved(t *testing.T) {
	r, base := sessionCgroups(t, func(*Config) {})
	closeRunner(t, r)
	left := filepath.Join(filepath.Dir(base), "troupe.999999999") // no pid is as large
	if err := os.MkdirAll(filepath.Join(left, workspace(1), "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	sessionCgroups(t, func(*Config) {})
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("left: %s, %v", left, err)
	}
}
