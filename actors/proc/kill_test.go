//go:build linux

package proc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// trees are scripts that try to leave something behind. Each prints "ready" once at least procs
// processes carry the marker.
var trees = []struct {
	name, script string
	procs        int
}{
	{"child", `sleep 1000 MARK 2>/dev/null & exec -a MARK sleep 1000`, 1},
	{"grandchildren", `bash -c 'bash -c "exec -a MARK sleep 1000" & wait' MARK & echo ready; wait`, 3},
	{"setsid", `setsid bash -c 'echo ready; exec -a MARK sleep 1000' & wait; sleep 1000`, 2},
	{"double fork", `(setsid bash -c '(exec -a MARK sleep 1000) & echo ready' &) ; exec -a MARK sleep 1000`, 2},
	{"env -i setsid", `env -i setsid /bin/bash -c 'echo ready; exec -a MARK sleep 1000' & exec -a MARK sleep 1000`, 2},
	{"ignores SIGTERM", `trap "" TERM HUP INT
		bash -c 'trap "" TERM; echo ready; sleep 1000; sleep 1000' MARK & wait; sleep 1000`, 2},
	{"stopped", `bash -c 'echo ready; kill -STOP $$; sleep 1000' MARK & wait; sleep 1000`, 2},
	{"stopped leader", `(exec -a MARK sleep 1000) & echo ready; kill -STOP $$; sleep 1000`, 2},
	{"stopped init", `(setsid bash -c 'exec -a MARK sleep 1000' &)
		echo ready; kill -STOP $PPID; exec -a MARK sleep 1000`, 2},
	{"deep", `f() {
			if [ $1 -gt 0 ]; then setsid bash -c "$(declare -f f); f $(($1-1))" MARK & wait
			else echo ready; exec -a MARK sleep 1000; fi
		}; f 12`, 13},
}

// Every shape of tree is gone when Dead says so, and its init has killed it: the runner's backstop,
// which would kill a tree after forceKillAfter, must not hide that an init misses some processes.
func TestKillReaches(t *testing.T) {
	noBackstop, backstopUsed := withoutBackstop(t)
	r := open(t, noBackstop)
	for _, tree := range trees {
		if backstopUsed() {
			return // each further kill may take as long
		}
		t.Run(tree.name, func(t *testing.T) {
			for range soak(2, 50) {
				if backstopUsed() {
					return
				}
				c := run(t, r, tree.script)
				if strings.Contains(tree.script, "ready") {
					c.waitOutput("ready")
				}
				c.waitFound(tree.procs)
				c.tree.Kill()
				if d := c.waitDead(); d.Lost {
					t.Error("lost")
				}
			}
		})
	}
}

// Hundreds of processes that do nothing but start others do not outrun a kill.
func TestKillOutrunsForkLoops(t *testing.T) {
	if _, err := os.Stat("/usr/bin/perl"); err != nil {
		t.Skip("no perl")
	}
	// They begin once all are there and the parent has said so, since it would get no CPU
	// afterwards.
	const start = `pipe R, W; use POSIX; sub start { close W; <R> }
		sub ready { close R; print "ready\n"; close W; sleep 1000 } `
	for name, script := range map[string]string{
		// 200 processes, each forking children that exit.
		"wide": `for (1..200) { unless (fork) { start; while (1) {
			my $p = fork; exit 0 if defined $p && !$p; waitpid $p, 0 if $p
		} } } ready`,
		// 200 that fork, leave the group and the parent, and so on.
		"setsid": `for (1..200) { unless (fork) { start; while (1) {
			my $p = fork; exit 0 if $p; POSIX::setsid() if defined $p; select undef, undef, undef, 0.05
		} } } ready`,
		// One whose only living process is always a new one.
		"chain": `unless (fork) { start; while (1) { my $p = fork; exit 0 if $p; POSIX::setsid() } } ready`,
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			for range soak(1, 20) {
				marker := newMarker()
				c := runSpec(t, r, marker, Spec{
					Argv: []string{"/usr/bin/perl", "-e", "$|=1; # " + marker + "\n" + start + script},
					Env:  environ(),
				})
				c.waitOutput("ready")
				time.Sleep(200 * time.Millisecond) // of forking
				began := time.Now()
				c.tree.Kill()
				d := c.waitDead()
				if d.Lost {
					t.Error("lost")
				}
				t.Logf("dead after %v", time.Since(began).Round(time.Millisecond))
			}
		})
	}
}

// A command that kills its init leaves nothing, and its neighbour lives.
func TestCommandKillsItsInit(t *testing.T) {
	escaped := make(chan int, 100)
	r := open(t, func(c *Config) {
		c.OnEvent = func(e RunnerEvent) {
			if e.Kind == RunnerEscaped {
				escaped <- e.Count
			}
		}
	})
	neighbour := run(t, r, `exec -a MARK sleep 1000`)
	waitEvent[Started](neighbour)
	for range soak(3, 50) {
		c := run(t, r, `(trap "" HUP; setsid bash -c 'trap "" TERM; exec -a MARK sleep 1000' &); (exec -a MARK sleep 1000) &
			while [ $(pgrep -fc 'MARK') -lt 2 ]; do sleep 0.01; done; kill -9 $PPID; sleep 1000`)
		if d := c.waitDead(); !d.Lost {
			t.Errorf("%+v", d)
		}
		select {
		case n := <-escaped:
			if n < 1 {
				t.Errorf("%d escaped", n)
			}
		case <-time.After(testTimeout):
			t.Fatal("no event")
		}
	}
	if len(find(neighbour.marker)) == 0 {
		t.Error("the neighbour died")
	}
	if r.Status().Escaped == 0 {
		t.Error("not counted")
	}
	// Its init was one of the pool; commands still start.
	c := run(t, r, "exit 3")
	if e := waitEvent[Exited](c); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	c.waitDead()
}

// Commands still run after one has killed every idle init.
func TestIdleInitsKilled(t *testing.T) {
	r := open(t, func(c *Config) { c.WarmInits = 4 })
	for range soak(3, 30) {
		c := run(t, r, `for p in $(pgrep -x troupe-init); do
			[ $(ps -o ppid= $p) = $(ps -o ppid= $PPID) ] && [ $p != $PPID ] && kill -9 $p
		done; exit 4`)
		if e := waitEvent[Exited](c); e.Code != 4 && e.Code != 0 && e.Code != 1 {
			t.Errorf("%+v", e)
		}
		c.waitDead()
		for range 6 {
			c := run(t, r, "exit 5")
			if e := waitEvent[Exited](c); e.Code != 5 {
				t.Errorf("%+v", e)
			}
			c.waitDead()
		}
	}
}

func TestSurvivorsAreNamed(t *testing.T) {
	r := open(t)
	c := run(t, r, `sleep 1000 & setsid sleep 1000 & (setsid bash -c 'exec -a MARK tail -f /dev/null' &)
		while [ $(pgrep -fc 'MARK') -lt 2 ]; do sleep 0.01; done; sleep 0.1; exit 9`)
	e := waitEvent[Exited](c)
	if e.Code != 9 || e.NoSurvivors {
		t.Errorf("%+v", e)
	}
	select {
	case <-c.tree.Dead():
		t.Fatal("dead before the sweep")
	case <-time.After(100 * time.Millisecond):
	}
	c.tree.Sweep()
	d := c.waitDead()
	slices.Sort(d.Survivors)
	if d.SurvivorCount != 3 || fmt.Sprint(d.Survivors) != "[sleep sleep tail]" || d.Lost {
		t.Errorf("%+v", d)
	}
}

// Survivors that exit by themselves need no sweep.
func TestSurvivorsThatEnd(t *testing.T) {
	r := open(t)
	c := run(t, r, `sleep 0.3 & exit 0`)
	if e := waitEvent[Exited](c); e.NoSurvivors {
		t.Error("alone")
	}
	if d := c.waitDead(); d.SurvivorCount != 0 {
		t.Errorf("%+v", d)
	}
}

// orphan is a script that waits until a child of its init, which it has orphaned, is dead.
const orphan = `p=$(true & echo $!)
while { read -r s < /proc/$p/stat; } 2>&- && [[ $s != *") Z "* ]]; do :; done
`

// A process that died before the command is not a survivor, whether it was reaped or not.
func TestDeadOrphanIsNoSurvivor(t *testing.T) {
	r := open(t)
	for range soak(10, 200) {
		c := run(t, r, orphan+"exit 3")
		e := waitEvent[Exited](c)
		c.waitDead()
		if !e.NoSurvivors || e.Code != 3 {
			t.Fatalf("%+v", e)
		}
	}
}

// Only the init can reap an orphan, and its command may run for days.
func TestOrphansAreReapedWhileTheCommandRuns(t *testing.T) {
	r := open(t)
	c := run(t, r, orphan+"echo ready; exec sleep 1000 # MARK")
	c.waitOutput("ready")
	leader := waitEvent[Started](c).PID
	s, _ := proctree.NewProcfs().Stat(leader)
	eventually(t, "the command is all there is", func() bool {
		all := below(s.PPID)
		return len(all) == 1 && all[0].PID == leader
	})
}

// A background child that holds the pipe is alive after Exited, and the pipe ends when it is swept.
func TestBackgroundChildHoldsPipe(t *testing.T) {
	r := open(t)
	c := run(t, r, `sleep 1000 & echo done`)
	waitEvent[Exited](c)
	c.waitOutput("done")
	read := make(chan struct{})
	go func() { c.read.Wait(); close(read) }()
	select {
	case <-read:
		t.Fatal("the pipe ended")
	case <-time.After(50 * time.Millisecond):
	}
	c.tree.Sweep()
	c.waitDead()
	await(t, read, "end of the pipe")
}

func TestSignalReachesGroup(t *testing.T) {
	r := open(t)
	c := run(t, r, `trap 'echo leader' USR1
		bash -c 'trap "echo child" USR1; echo ready; while :; do sleep 0.02; done' MARK &
		while :; do sleep 0.02; done`)
	c.waitOutput("ready")
	c.tree.Signal(syscall.SIGUSR1)
	c.waitOutput("leader")
	c.waitOutput("child")
	c.tree.Kill()
	c.waitDead()
}

// SIGKILL reaches every process of the group, and needs no sweep for that.
func TestSignalKillReachesGroup(t *testing.T) {
	r := open(t)
	c := run(t, r, `bash -c 'exec -a MARK sleep 1000' & bash -c 'exec -a MARK sleep 1000' & echo ready; wait`)
	c.waitOutput("ready")
	c.waitFound(2)
	c.tree.Signal(syscall.SIGKILL)
	if e := waitEvent[Exited](c); e.Signal != syscall.SIGKILL {
		t.Errorf("%+v", e)
	}
	select {
	case <-c.tree.Dead():
	case <-time.After(10 * time.Second): // they are dead within milliseconds
		t.Errorf("only the leader is dead: %v", find(c.marker))
	}
}

// After the leader is reaped, a signal still reaches its group, and nothing else.
func TestSignalAfterExit(t *testing.T) {
	r := open(t)
	c := run(t, r, `bash -c 'trap "echo member; exit" USR1; echo one; while :; do sleep 0.02; done' MARK &
		setsid bash -c 'trap "echo stranger" USR1; echo two; while :; do sleep 0.02; done' MARK & sleep 0.1`)
	waitEvent[Exited](c)
	c.waitOutput("one")
	c.waitOutput("two")
	c.tree.Signal(syscall.SIGUSR1)
	c.waitOutput("member")
	c.tree.Sweep()
	c.waitDead()
	if strings.Contains(c.stdout(), "stranger") {
		t.Error("another group was signalled")
	}
}

// Every process in any session gets SIGTERM, and gets it once.
func TestTerminateOnce(t *testing.T) {
	r := open(t)
	for range soak(3, 30) {
		const body = `trap "echo term; n=1" TERM; echo ready; i=0
			while [ $i -lt 15 ]; do sleep 0.02; [ -n "$n" ] && i=$((i+1)); done`
		c := run(t, r, `f() { `+body+`; }; export -f f; setsid bash -c f MARK & bash -c f MARK & f; wait; wait`)
		eventually(t, "three traps", func() bool { return strings.Count(c.stdout(), "ready") == 3 })
		c.tree.Terminate()
		waitEvent[Exited](c)
		c.waitDead()
		c.read.Wait()
		if n := strings.Count(c.stdout(), "term"); n != 3 {
			t.Errorf("%d traps ran: %q", n, c.stdout())
		}
	}
}

func TestWrongOrder(t *testing.T) {
	r := open(t)
	t.Run("kill before start", func(t *testing.T) {
		tree := r.NewTree("wrong", "1")
		tree.Kill()
		await(t, tree.Dead(), "death")
		if _, err := tree.Start(Spec{Argv: []string{"true"}}, nil); err != ErrKilled {
			t.Error(err)
		}
		tree.Kill()
	})
	t.Run("kill twice, everything after death", func(t *testing.T) {
		c := run(t, r, `exec -a MARK sleep 1000`)
		c.tree.Kill()
		c.tree.Kill()
		c.waitDead()
		c.tree.Kill()
		c.tree.Signal(syscall.SIGKILL)
		c.tree.Terminate()
		c.tree.Pause()
		c.tree.Resume()
		c.tree.Sweep()
		if _, err := c.tree.Start(Spec{Argv: []string{"true"}}, nil); err != ErrKilled {
			t.Error(err)
		}
	})
	t.Run("sweep before exit", func(t *testing.T) {
		c := run(t, r, `read -t 0.2 < <(sleep 1000); exit 6`)
		c.tree.Sweep()
		if e := waitEvent[Exited](c); e.Code != 6 {
			t.Errorf("%+v", e)
		}
		c.tree.Sweep()
		c.waitDead()
	})
	t.Run("start twice", func(t *testing.T) {
		c := run(t, r, `exit 0`)
		if _, err := c.tree.Start(Spec{Argv: []string{"true"}}, nil); err == nil {
			t.Error("started twice")
		}
		c.waitDead()
	})
	t.Run("requests before started", func(t *testing.T) {
		for range soak(20, 500) {
			c := run(t, r, `sleep 1000`)
			c.tree.Pause()
			c.tree.Kill()
			c.waitDead()
		}
	})
	t.Run("requests for the command before are not for the next", func(t *testing.T) {
		for range soak(15, 500) {
			c := run(t, r, `exit 0`)
			for !c.tree.isDeadForTest() {
				c.tree.Sweep()
				c.tree.Pause()
				c.tree.Resume()
			}
			next := run(t, r, `exit 8`)
			if e := waitEvent[Exited](next); e.Code != 8 {
				t.Fatalf("%+v", e)
			}
			next.waitDead()
		}
	})
}

func (t *Tree) isDeadForTest() bool {
	select {
	case <-t.dead:
		return true
	default:
		return false
	}
}

func TestOwnerDone(t *testing.T) {
	r := open(t)
	await(t, r.OwnerDone("nobody"), "an owner without trees")
	a, b := r.NewTree("o", "a"), r.NewTree("o", "b")
	done := r.OwnerDone("o")
	a.Kill()
	select {
	case <-done:
		t.Fatal("done while a tree is registered")
	default:
	}
	stdio, err := b.Start(Spec{Argv: []string{"/bin/true"}}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	stdio.close()
	await(t, done, "the owner")
	if len(r.owners) != 0 {
		t.Error("owner is kept")
	}
}
