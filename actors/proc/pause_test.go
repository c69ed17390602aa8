//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// tree returns the processes of a command that runs.
func tree(t *testing.T, c *command) []proctree.Stat {
	t.Helper()
	leader, ok := proctree.NewProcfs().Stat(waitEvent[Started](c).PID)
	if !ok {
		t.Fatal("the command is gone")
	}
	return below(leader.PPID)
}

// pending reports whether a signal waits for a process.
func pending(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	mask, err := strconv.ParseUint(line(string(b), "ShdPnd:\t"), 16, 64)
	return err == nil && mask&(1<<(sig-1)) != 0
}

// cpu returns the CPU time of the living processes with the marker, in ticks.
func cpu(marker string) (ticks int) {
	for _, p := range find(marker) {
		pid, _, _ := strings.Cut(p, " ")
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		for _, i := range []int{11, 12} {
			n, _ := strconv.Atoi(string(f[i]))
			ticks += n
		}
	}
	return ticks
}

const busy = `f() { while :; do :; done; }; export -f f
	setsid bash -c f MARK & (setsid bash -c f MARK &) ; echo ready; f`

func TestPauseStopsWholeTree(t *testing.T) {
	r := open(t)
	for range soak(2, 20) {
		c := run(t, r, busy)
		c.waitOutput("ready")
		c.waitFound(3)
		eventually(t, "use of CPU", func() bool { return cpu(c.marker) > 5 })
		c.tree.Pause()
		waitEvent[Paused](c)
		for _, s := range tree(t, c) {
			if !s.Stopped() {
				t.Errorf("%s is in state %c while paused", s.Comm(), s.State)
			}
		}
		before := cpu(c.marker)
		c.tree.Resume()
		waitEvent[Resumed](c)
		eventually(t, "use of CPU after resuming", func() bool { return cpu(c.marker) > before+5 })
		c.tree.Kill()
		c.waitDead()
	}
}

func TestKillWhilePaused(t *testing.T) {
	r := open(t)
	c := run(t, r, busy)
	c.waitFound(3)
	c.tree.Pause()
	waitEvent[Paused](c)
	c.tree.Kill()
	c.waitDead()
}

func TestTerminateWhilePausedActsOnResume(t *testing.T) {
	r := open(t)
	c := run(t, r, `trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.02; done`)
	c.waitOutput("ready")
	c.tree.Pause()
	waitEvent[Paused](c)
	c.tree.Terminate()
	leader := waitEvent[Started](c).PID
	eventually(t, "a pending SIGTERM", func() bool { return pending(leader, syscall.SIGTERM) })
	if strings.Contains(c.stdout(), "term") {
		t.Error("ran while paused")
	}
	c.tree.Resume()
	if e := waitEvent[Exited](c); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	c.tree.Sweep()
	c.waitDead()
}

// A shell that waits in vfork for a child that was stopped before its execve counts as stopped,
// although /proc shows it as waiting. If it did not, one pause in ten would take as long as a pause
// may. A busy machine delays pauses too, hence the commands without vfork to compare with.
// proctree.TestSignalledWaiterCountsAsStopped tests the same without a clock.
func TestPauseDoesNotWaitForVfork(t *testing.T) {
	const rounds = 40
	const longest = 500 * time.Millisecond // pauseTimeout of package shim
	r := open(t)
	slow := func(script string) bool {
		c := run(t, r, script)
		c.waitOutput("ready")
		began := time.Now()
		c.tree.Pause()
		waitEvent[Paused](c)
		took := time.Since(began)
		c.tree.Kill()
		c.waitDead()
		return took >= longest
	}
	withVfork, without := 0, 0
	for range rounds {
		if slow(`echo ready; exec sh -c "while :; do /bin/true; done" MARK`) {
			withVfork++
		}
		if slow(`echo ready; exec sh -c "while :; do :; done" MARK`) {
			without++
		}
	}
	if withVfork > 2+2*without {
		t.Errorf("%d of %d pauses took the longest time, and %d without vfork", withVfork, rounds, without)
	}
}
