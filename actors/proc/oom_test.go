//go:build linux

package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// Each kill explains the end of one command, and none that ends much later.
func TestKillsAreClaimedOnce(t *testing.T) {
	r, rc := &Runner{}, &runnerConn{oomKillsExplained: 5} // of an earlier life of the cgroup
	for i, step := range []struct {
		count uint64
		claim bool
	}{{0, false}, {5, false}, {7, true}, {7, true}, {7, false}, {8, true}, {9, false}, {10, true}} {
		if i == 6 {
			r.explainOOMKills(rc, 9)
			r.explainOOMKills(rc, 2) // late
		}
		if got := r.claimOOMKill(rc, step.count); got != step.claim {
			t.Errorf("step %d: count %d: %v", i, step.count, got)
		}
	}
}

// limited makes a memory cgroup (v1) with a limit of this many MB.
func limited(t *testing.T, mb int) string {
	t.Helper()
	own, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	_, top, err := proctree.CgroupDir(string(own), string(mounts), "memory")
	if err != nil {
		t.Skip("no memory controller of cgroup v1 here: ", err)
	}
	dir := filepath.Join(top, newMarker())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() { eventually(t, "removal of the cgroup", func() bool { return os.Remove(dir) == nil }) })
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(mb<<20)), 0); err != nil {
		t.Fatal(err)
	}
	return dir
}

// In a container without free memory the kernel kills one process. If that was a command, it ran
// out of memory. A command that another process killed did not, and neither did one with a child
// that was killed.
func TestKernelKillsForMemory(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	dir := limited(t, 200)
	r := open(t, socketMode(path))
	startContainer(t, path, fmt.Sprintf("echo $$ > %s/cgroup.procs", dir))
	neighbour := run(t, r, "echo ready; exec -a MARK sleep 1000")
	neighbour.waitOutput("ready")

	ends := func(script, what string, signal bool, oom bool) {
		t.Helper()
		c := run(t, r, script)
		e := waitEvent[Exited](c)
		if e.OutOfMemory != oom || (e.Signal == unix.SIGKILL) != signal {
			t.Errorf("%s: %+v", what, e)
		}
		c.waitDead()
	}
	accounted := func() {
		t.Helper()
		eventually(t, "accounting for the kills", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.conn.oomKillsExplained == oomKills(t, filepath.Join(dir, "memory.oom_control"))
		})
	}
	ends("kill -9 $$", "killed by itself", true, false)
	ends("exec "+greedy("300"), "greedy", true, true)
	ends("kill -9 $$", "killed after another's end for memory", true, false)
	ends(greedy("300")+`; exit 3`, "a greedy child", false, false)
	accounted()
	ends("kill -9 $$", "killed after a child's end for memory", true, false)

	// Two at once are two.
	a, b := run(t, r, "exec "+greedy("300")), run(t, r, "exec "+greedy("300"))
	for _, c := range []*command{a, b} {
		if e := waitEvent[Exited](c); !e.OutOfMemory {
			t.Errorf("%+v", e)
		}
		c.waitDead()
	}
	ends("kill -9 $$", "killed after both", true, false)

	// What trouped kills, the kernel has not killed.
	c := run(t, r, "echo ready; sleep 1000")
	c.waitOutput("ready")
	c.tree.Signal(unix.SIGKILL)
	if e := waitEvent[Exited](c); e.OutOfMemory {
		t.Errorf("%+v", e)
	}
	c.waitDead()
	if !lives(neighbour.marker) || !r.Status().Up {
		t.Error("the neighbour or the runner died")
	}
}

// oomKills is the line "oom_kill 3" of a file.
func oomKills(t *testing.T, path string) (n uint64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(line(string(b), "oom_kill "), &n)
	return n
}
