//go:build linux

package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCgroupDir(t *testing.T) {
	const v1 = "12:pids:/kubepods/pod7/c9\n4:cpuset,memory:/kubepods/pod7/c9\n1:name=systemd:/a:b\n0::/\n"
	const v1Mounts = "900 899 0:30 /kubepods/pod7/c9 /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids\n" +
		"901 899 0:31 /kubepods/pod7/c9 /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,cpuset,memory\n"
	const v2Mounts = "800 799 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
	for name, tc := range map[string]struct{ own, mounts, controller, dir, top string }{
		"v1 in a container, whose mounts begin at its cgroup": {v1, v1Mounts, "memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory"},
		"v1 on a machine": {
			"4:memory:/user/1\n", "30 25 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "memory",
			"/sys/fs/cgroup/memory/user/1", "/sys/fs/cgroup/memory",
		},
		"v1 with a cgroup namespace":                     {"4:memory:/\n", "30 25 0:31 / /mem rw - cgroup cgroup rw,memory\n", "memory", "/mem", "/mem"},
		"v2 with a cgroup namespace":                     {"0::/\n", v2Mounts, "", "/sys/fs/cgroup", "/sys/fs/cgroup"},
		"v2 below it":                                    {"0::/troupe.1/7\n", v2Mounts, "", "/sys/fs/cgroup/troupe.1/7", "/sys/fs/cgroup"},
		"v2 where v1 is asked for":                       {"0::/\n", v2Mounts, "memory", "", ""},
		"a controller whose name another one's contains": {"4:memory:/x\n", "30 25 0:31 / /m rw - cgroup cgroup rw,memory2\n", "memory", "", ""},
		"a mount of somebody else's cgroup":              {v1, "901 899 0:31 /kubepods/pod8 /m rw - cgroup cgroup rw,memory\n", "memory", "", ""},
		"nothing":                                        {"", "", "memory", "", ""},
		"garbage":                                        {"4:memory\n::::\n", "a b c\n - cgroup\n", "memory", "", ""},
	} {
		dir, top, err := cgroupDir(tc.own, tc.mounts, tc.controller)
		if dir != tc.dir || top != tc.top || (err == nil) != (tc.dir != "") {
			t.Errorf("%s: %q, %q, %v", name, dir, top, err)
		}
	}
}

func TestOOMKills(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                                  3, // v1
		"low 0\nhigh 0\nmax 4\noom 5\noom_kill 12\noom_group_kill 1\nsock_throttled 0\n": 12,
		"oom_kill 7":                        7,
		"oom_kill_disable 0\nunder_oom 0\n": 0, // before Linux 4.13
		"":                                  0,
	} {
		if got := oomKills([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// Each kill explains the end of one command, and none that comes much later.
func TestKillsAreClaimedOnce(t *testing.T) {
	r, l := &Runner{}, &link{kills: 5} // of an earlier life of the cgroup
	for i, step := range []struct {
		count uint64
		claim bool
	}{{0, false}, {5, false}, {7, true}, {7, true}, {7, false}, {8, true}, {9, false}, {10, true}} {
		if i == 6 {
			r.writeOff(l, 9)
			r.writeOff(l, 2) // late
		}
		if got := r.claimKill(l, step.count); got != step.claim {
			t.Errorf("step %d: count %d: %v", i, step.count, got)
		}
	}
}

// limited makes a memory cgroup (v1) with a limit of so many MB.
func limited(t *testing.T, mb int) string {
	t.Helper()
	own, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	_, top, err := cgroupDir(string(own), string(mounts), "memory")
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

// In a container that has no memory left, the kernel kills one process. The
// command that this was has run out of memory; one that somebody else killed
// has not, and neither has one in whose tree a child was killed.
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
			return r.link.kills == (&memoryEvents{filepath.Join(dir, "memory.oom_control")}).kills()
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

// The counter is looked at about once a second, by a runner of its own.
func TestKillsAreWrittenOffInTime(t *testing.T) {
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	defer unix.Close(theirs)
	file := filepath.Join(t.TempDir(), "memory.events")
	os.WriteFile(file, []byte("oom_kill 4\n"), 0o644)
	s := &supervisor{sock: theirs, memory: &memoryEvents{file}}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { s.watchKills(2, stop); close(done) }()
	defer func() { close(stop); <-done }()
	began := time.Now()
	k, body, err := newReceiver(recvBlocking(ours)).next()
	d := decoder{b: body}
	if n := d.uint(); err != nil || k != kindKills || n != 4 {
		t.Errorf("%v %v %v", k, n, err)
	}
	if took := time.Since(began); took < killsPeriod {
		t.Errorf("written off after %v: a command that dies of it may not have said so yet", took)
	}
}
