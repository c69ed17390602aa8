//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// fakeCgroup is a cgroup in an ordinary directory, which keeps what is written to its files.
func fakeCgroup(t *testing.T) (g *cgroup, file func(name string) string, set func(name, content string)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "leaf")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	set = func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range leafFiles {
		set(name, "")
	}
	set("memory.events", "oom 0\noom_kill 3\n")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file = func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(b))
	}
	g = &cgroup{base: -1, leaf: openLeaf(fd)}
	t.Cleanup(g.leaf.close)
	return g, file, set
}

// An init whose cgroup was killed once must not run another command in it.
func TestKilledCgroupRetires(t *testing.T) {
	g, file, _ := fakeCgroup(t)
	g.prepare(0, frame.Bounds{})
	g.complete()
	if g.mustRetire() {
		t.Error("retires although it was not killed")
	}
	g.kill()
	if file("cgroup.kill") != "1" || !g.mustRetire() {
		t.Errorf("cgroup.kill is %q, mustRetire %v", file("cgroup.kill"), g.mustRetire())
	}
	var none *cgroup
	if none.kill(); none.mustRetire() {
		t.Error("an init without a cgroup retires")
	}
}

// The limit is the execution's own, and only a kill during the execution counts.
func TestCgroupLimitsOneExecution(t *testing.T) {
	g, file, set := fakeCgroup(t)
	if !g.limitsMemory() || !g.countsOOMKills() {
		t.Fatal("the memory controller was not found")
	}
	g.prepare(64<<20, frame.Bounds{})
	if file("memory.max") != "67108864" || file("memory.oom.group") != "1" {
		t.Errorf("memory.max %q, memory.oom.group %q", file("memory.max"), file("memory.oom.group"))
	}
	if oom, _ := g.complete(); oom {
		t.Error("an earlier kill counts")
	}
	g.prepare(64<<20, frame.Bounds{})
	set("memory.events", "oom 1\noom_kill 4\n")
	if oom, exceeded := g.complete(); !oom || exceeded != 0 {
		t.Error("a kill does not count")
	}
	set("memory.max", "")
	if g.prepare(0, frame.Bounds{}); file("memory.max") != "max" {
		t.Errorf("memory.max %q for an execution without a limit", file("memory.max"))
	}
}

// A kill for the limit of the session is told from one for the limit of the execution, and the kernel
// kills the whole tree for either.
func TestKillForTheSessionIsTold(t *testing.T) {
	g, file, set := fakeCgroup(t)
	bounds := frame.Bounds{Memory: 64 << 20}
	for _, tc := range []struct {
		own, session string
		oom          bool
		exceeded     frame.Bound
	}{
		{"oom 0\noom_kill 4\n", "oom 1\n", false, frame.BoundMemory},
		{"oom 1\noom_kill 5\n", "oom 1\n", true, 0},  // its own limit
		{"oom 1\noom_kill 5\n", "oom 2\n", false, 0}, // another execution of the session was killed
		{"oom 1\noom_kill 6\n", "oom 2\n", true, 0},  // the limit of the container
	} {
		g.prepare(0, bounds)
		if file("memory.oom.group") != "1" || file("memory.max") != "max" {
			t.Errorf("memory.oom.group %q, memory.max %q", file("memory.oom.group"), file("memory.max"))
		}
		set("memory.events", tc.own)
		set("../memory.events.local", tc.session)
		if oom, exceeded := g.complete(); oom != tc.oom || exceeded != tc.exceeded {
			t.Errorf("%+v: oom %v, exceeded %v", tc, oom, exceeded)
		}
	}
}

// A command that is started in a frozen cgroup would never reach execve.
func TestCompletedExecutionThaws(t *testing.T) {
	g, file, _ := fakeCgroup(t)
	g.prepare(0, frame.Bounds{})
	g.freeze(true)
	if file("cgroup.freeze") != "1" {
		t.Errorf("cgroup.freeze is %q", file("cgroup.freeze"))
	}
	g.complete()
	if file("cgroup.freeze") != "0" {
		t.Errorf("cgroup.freeze is %q after the execution", file("cgroup.freeze"))
	}
}
