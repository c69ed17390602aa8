//go:build linux

package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// greedy is a command that fills this many MB and waits.
func greedy(mb string) string {
	return `perl -e '$| = 1; my $n = shift; my $x = "x" x ($n << 20); print "full\n"; sleep 1000' ` + mb + " MARK"
}

// A tree that exceeds its limit dies, and its neighbour lives.
func TestMemoryLimit(t *testing.T) {
	r := open(t)
	start := func(script string, limit int64) *command {
		marker := newMarker()
		return runSpec(t, r, marker, Spec{
			Argv: []string{"/bin/bash", "-c", strings.ReplaceAll(script, "MARK", marker), marker},
			Env:  environ(), MaxMemory: limit,
		})
	}
	neighbour := start(greedy("32")+" & wait", 100<<20)
	neighbour.waitOutput("full")
	c := start(greedy("70")+" & setsid "+greedy("70")+" & wait", 100<<20) // neither alone is over it
	if d := c.waitDead(); !d.OutOfMemory {
		t.Errorf("%+v", d)
	}
	alone := start(greedy("300"), 100<<20)
	if d := alone.waitDead(); !d.OutOfMemory {
		t.Errorf("%+v", d)
	}
	if len(find(neighbour.marker)) == 0 {
		t.Error("the neighbour died")
	}
	neighbour.tree.Kill()
	if d := neighbour.waitDead(); d.OutOfMemory {
		t.Errorf("%+v", d)
	}
}

// Pages that processes share are counted once.
func TestSharedMemoryCountsOnce(t *testing.T) {
	r := open(t)
	marker := newMarker()
	c := runSpec(t, r, marker, Spec{
		Argv: []string{"/usr/bin/perl", "-e", `$|=1; my $x = "x" x (60<<20);
			for (1..4) { unless (fork) { sleep 1000 } } print "ready\n"; sleep 1000 # ` + marker},
		Env:       environ(),
		MaxMemory: 200 << 20,
	})
	c.waitOutput("ready")
	select {
	case <-c.tree.Dead():
		t.Errorf("killed: %+v", c.events)
	case <-time.After(300 * time.Millisecond):
	}
	c.tree.Kill()
	c.waitDead()
}

// cgroupRunner opens a Runner with cgroups, or skips.
func cgroupRunner(t *testing.T) *Runner {
	t.Helper()
	r := open(t, func(c *Config) { c.Cgroup = "auto" })
	if r.Status().Containment != ContainmentCgroup {
		t.Skip("no cgroup v2 can be written here")
	}
	return r
}

// ownCgroup is the directory of this process's cgroup v2.
func ownCgroup() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dir, _, err := proctree.CgroupDir(string(own), string(mounts), "")
	return dir, err
}

func TestCgroupContains(t *testing.T) {
	r := cgroupRunner(t)
	dir, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	made := func() int {
		n := 0
		list, _ := filepath.Glob(filepath.Join(dir, "troupe.*", "*", "cgroup.procs"))
		for _, f := range list {
			if strings.Contains(f, "troupe."+strconv.Itoa(r.Status().PID)) {
				n++
			}
		}
		return n
	}
	for range soak(3, 30) {
		c := run(t, r, `cat /proc/self/cgroup; `+busy)
		c.waitOutput("ready")
		c.waitFound(3)
		if !strings.Contains(c.stdout(), "troupe."+strconv.Itoa(r.Status().PID)+"/") {
			t.Errorf("cgroup %q", c.stdout())
		}
		if made() == 0 {
			t.Error("no cgroups")
		}
		c.tree.Pause()
		waitEvent[Paused](c)
		before := cpu(c.marker)
		time.Sleep(50 * time.Millisecond)
		if after := cpu(c.marker); after != before {
			t.Errorf("used %d ticks while frozen", after-before)
		}
		c.tree.Resume()
		waitEvent[Resumed](c)
		eventually(t, "use of CPU", func() bool { return cpu(c.marker) > before })
		c.tree.Pause()
		c.tree.Kill()
		c.waitDead()
		next := run(t, r, "exit 3") // in the same cgroup, thawed
		if e := waitEvent[Exited](next); e.Code != 3 {
			t.Errorf("%+v", e)
		}
		next.waitDead()
	}
	c := run(t, r, `kill -9 $PPID; sleep 1000`)
	c.waitDead()
	closeRunner(t, r)
	left, _ := filepath.Glob(filepath.Join(dir, "troupe.*"))
	for _, l := range left {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(filepath.Base(l), "troupe.")); err != nil {
			t.Errorf("left: %s", l)
		}
	}
}

// cgroup.kill is faster than any scan of /proc, and still every survivor is counted.
func TestSurvivorsOfACgroupAreCounted(t *testing.T) {
	r := cgroupRunner(t)
	for range soak(5, 50) {
		c := run(t, r, `for i in {1..50}; do sleep 1000 & done; exit 3`)
		waitEvent[Exited](c)
		c.tree.Sweep()
		if d := c.waitDead(); d.SurvivorCount != 50 {
			t.Errorf("%d survivors", d.SurvivorCount)
		}
	}
}

// trouped removes the cgroups of a runner that was killed.
func TestCgroupOfKilledRunnerIsRemoved(t *testing.T) {
	r := cgroupRunner(t)
	dir, _ := ownCgroup()
	base := filepath.Join(dir, "troupe."+strconv.Itoa(r.Status().PID))
	if _, err := os.Stat(base); err != nil {
		t.Fatal(err)
	}
	c := run(t, r, `kill -9 $(ps -o ppid= $PPID); sleep 1000`)
	c.waitDead()
	eventually(t, "removal", func() bool { _, err := os.Stat(base); return os.IsNotExist(err) })
}
