//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeCgroup is a cgroup in an ordinary directory, which keeps what is written to its files.
func fakeCgroup(t *testing.T) (g *cgroup, file func(name string) string, set func(name, content string)) {
	t.Helper()
	dir := t.TempDir()
	set = func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cgroup.kill", "cgroup.freeze", "memory.max", "memory.oom.group"} {
		set(name, "")
	}
	set("memory.events", "oom 0\noom_kill 3\n")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	file = func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(b))
	}
	return inheritedCgroup(fd), file, set
}

// An init whose cgroup was killed once must not run another command in it.
func TestKilledCgroupRetires(t *testing.T) {
	g, file, _ := fakeCgroup(t)
	g.prepare(0)
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
	g.prepare(64 << 20)
	if file("memory.max") != "67108864" || file("memory.oom.group") != "1" {
		t.Errorf("memory.max %q, memory.oom.group %q", file("memory.max"), file("memory.oom.group"))
	}
	if g.complete() {
		t.Error("an earlier kill counts")
	}
	g.prepare(64 << 20)
	set("memory.events", "oom 1\noom_kill 4\n")
	if !g.complete() {
		t.Error("a kill does not count")
	}
	set("memory.max", "")
	if g.prepare(0); file("memory.max") != "max" {
		t.Errorf("memory.max %q for an execution without a limit", file("memory.max"))
	}
}

// A command that is started in a frozen cgroup would never reach execve.
func TestCompletedExecutionThaws(t *testing.T) {
	g, file, _ := fakeCgroup(t)
	g.prepare(0)
	g.freeze(true)
	if file("cgroup.freeze") != "1" {
		t.Errorf("cgroup.freeze is %q", file("cgroup.freeze"))
	}
	g.complete()
	if file("cgroup.freeze") != "0" {
		t.Errorf("cgroup.freeze is %q after the execution", file("cgroup.freeze"))
	}
}
