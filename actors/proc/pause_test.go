//go:build linux

package proc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpu is what the living processes with the marker have used, in ticks.
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

const busy = `f() { while :; do :; done; }; export -f f; setsid bash -c f MARK & (setsid bash -c f MARK &) ; echo ready; f`

func TestPauseStopsWholeTree(t *testing.T) {
	r := open(t)
	for range soak(2, 20) {
		c := run(t, r, busy)
		c.waitOutput("ready")
		c.waitFound(3)
		eventually(t, "use of CPU", func() bool { return cpu(c.marker) > 5 })
		c.tree.Pause()
		waitEvent[Paused](c)
		before := cpu(c.marker)
		time.Sleep(100 * time.Millisecond)
		if after := cpu(c.marker); after != before {
			t.Errorf("used %d ticks while paused", after-before)
		}
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
	time.Sleep(50 * time.Millisecond)
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

// A shell that waits in vfork for a child that was stopped before its execve is stopped too, though
// it shows as waiting: pausing it took as long as it may in one round of ten.
func TestPauseDoesNotWaitForVfork(t *testing.T) {
	r := open(t)
	const rounds = 40
	slow := 0
	for range rounds {
		c := run(t, r, `echo ready; exec sh -c "while :; do /bin/true; done" MARK`)
		c.waitOutput("ready")
		began := time.Now()
		c.tree.Pause()
		waitEvent[Paused](c)
		if time.Since(began) >= 500*time.Millisecond {
			slow++
		}
		c.tree.Kill()
		c.waitDead()
	}
	if slow > 1 { // a busy machine may delay one; of those that waited for vfork there were four
		t.Errorf("%d of %d pauses took as long as they may", slow, rounds)
	}
}
