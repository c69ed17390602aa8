//go:build linux

package proc

import (
	"bytes"
	"os"
	"strconv"
	"strings"
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

func countStopped(t *testing.T, c *command) (n int) {
	for _, s := range tree(t, c) {
		if s.Stopped() {
			n++
		}
	}
	return n
}

// SIGTERM reaches processes that cannot act on it because they are stopped, whoever stopped them.
func TestTerminateReachesStoppedProcesses(t *testing.T) {
	const trap = `trap "echo term; exit 3" TERM; echo ready; `
	const wait = `while :; do sleep 0.02; done`
	for name, tc := range map[string]struct {
		script  string
		stopped int // by themselves
		pause   bool
		traps   int
	}{
		"paused":    {script: trap + wait, pause: true, traps: 1},
		"by itself": {script: trap + `kill -STOP $$; ` + wait, stopped: 1, traps: 1},
		"a background job at the terminal": { // the kernel stops no job whose shell is gone
			script:  `set -m; trap : TERM; bash -c '` + trap + `kill -TTIN $$; ` + wait + `' & ` + wait,
			stopped: 1, traps: 1,
		},
		"a child of another session": {
			script:  `setsid bash -c '` + trap + `kill -STOP $$; ` + wait + `' & wait`,
			stopped: 1, traps: 1,
		},
		"paused with a stopped child": {
			script:  `bash -c '` + trap + `kill -STOP $$; ` + wait + `' & ` + trap + wait,
			stopped: 1, pause: true, traps: 2,
		},
		"a stopped parent of a child": {
			script:  `bash -c '` + trap + wait + `' & ` + trap + `kill -STOP $$; ` + wait,
			stopped: 1, traps: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := run(t, open(t), tc.script)
			eventually(t, "every trap", func() bool { return strings.Count(c.stdout(), "ready") == tc.traps })
			eventually(t, "stopped processes", func() bool { return countStopped(t, c) == tc.stopped })
			if tc.pause {
				c.tree.Pause()
				waitEvent[Paused](c)
			}
			c.tree.Terminate()
			eventually(t, "every trap to run", func() bool { return strings.Count(c.stdout(), "term") == tc.traps })
			c.tree.Kill()
			c.waitDead()
		})
	}
}

// Resume continues a tree that no Pause has stopped.
func TestResumeContinuesWhatStoppedItself(t *testing.T) {
	c := run(t, open(t), `(echo ready; kill -STOP $BASHPID; echo child) & kill -STOP $$; wait; echo on`)
	c.waitOutput("ready")
	eventually(t, "two stopped processes", func() bool { return countStopped(t, c) == 2 })
	c.tree.Resume()
	c.waitOutput("child")
	c.waitOutput("on")
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
