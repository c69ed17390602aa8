package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// trees are commands that try to leave something behind. Each has n processes, and
// says ready when they are there or about to be.
var trees = []struct {
	name   string
	script string
	n      int
	slow   bool // ignores SIGTERM, so it dies after the grace
}{
	{name: "child", script: `SLEEP 1000 & echo ready; wait`, n: 2},
	{name: "grandchildren", script: `BASH -c 'BASH -c "SLEEP 1000; :" & wait' & echo ready; wait`, n: 4},
	{name: "setsid", script: `setsid BASH -c 'SLEEP 1000; :' & echo ready; wait`, n: 3},
	{name: "double fork", script: `(setsid BASH -c '(SLEEP 1000) & :' &); echo ready; exec SLEEP 1000`, n: 2},
	{name: "env -i setsid", script: `env -i /usr/bin/setsid SLEEP 1000 & echo ready; exec SLEEP 1000`, n: 2},
	{name: "ignores SIGTERM", script: stubborn, n: 4, slow: true},
	{name: "stopped child", script: `BASH -c 'kill -STOP $$; SLEEP 1000' & echo ready; wait`, n: 2, slow: true},
	{name: "stopped itself", script: `(exec SLEEP 1000) & echo ready; kill -STOP $$; wait`, n: 2, slow: true},
	{name: "stopped init", script: `setsid SLEEP 1000 & echo ready; kill -STOP $PPID; exec SLEEP 1000`, n: 2},
	{name: "holds no output", script: `setsid SLEEP 1000 <&- >&- 2>&- & echo ready; exec SLEEP 1000 >&- 2>&-`, n: 2},
}

// forks starts 200 processes that, once all are there, do nothing but fork, in
// sessions of their own.
const forks = `$| = 1; use POSIX; pipe R, W; for (1..200) { next if fork; close W; setsid; read R, $_, 1;
	while (1) { my $p = fork; exit 0 if defined $p && !$p; waitpid $p, 0 if $p } } print "ready\n"; close W; sleep 1000`

// contained runs a test with cgroups where there are any, and without: in most
// clusters there are none, and then only the walk over /proc finds what has hidden.
func contained(t *testing.T, test func(t *testing.T, args ...string)) {
	t.Helper()
	for _, cgroup := range []string{"auto", "off"} {
		t.Run("cgroup "+cgroup, func(t *testing.T) { test(t, "--cgroup", cgroup) })
	}
}

// ready starts a command and waits for its first output.
func ready(t *testing.T, c *troupe.Client, argv []string) *troupe.Execution {
	t.Helper()
	ctx := bounded(t)
	e, err := c.Execute(ctx, wire.ExecuteParams{Argv: argv})
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := e.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := event.(*troupe.Output); ok {
			return e
		}
	}
}

// canceled cancels a command. When that is reported, nothing of it is left.
func canceled(t *testing.T, e *troupe.Execution, m *trace) {
	t.Helper()
	if err := e.Cancel(t.Context()); err != nil {
		t.Error(err)
		return
	}
	if done := completed(t, e); done.Reason != wire.ReasonCanceled || done.Status != wire.StatusCanceled {
		t.Errorf("%+v", done)
	}
	m.none()
}

// TestPromise07CancelKillsEveryTree: no survivor and no zombie on the whole machine
// at the moment at which process.completed arrives.
func TestPromise07CancelKillsEveryTree(t *testing.T) { contained(t, cancelKillsEveryTree) }

func cancelKillsEveryTree(t *testing.T, args ...string) {
	t.Helper()
	s := launch(t, append(args, "--cancel-grace", "100ms")...)
	c := s.dial()
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			for range soak(2, 20) {
				m := newTrace(t)
				e := ready(t, c, m.argv(tree.script))
				m.await(tree.n)
				canceled(t, e, m)
			}
		})
	}
	t.Run("200 that fork", func(t *testing.T) {
		m := newTrace(t)
		if _, err := os.Stat(m.perl); err != nil {
			t.Skip(err)
		}
		for range soak(1, 10) {
			e := ready(t, c, []string{m.perl, "-e", forks})
			canceled(t, e, m)
		}
	})
	// Each was killed by its own init, and not by what is there in case that fails.
	if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\ntroupe_runner_escaped_total 0\n") {
		t.Error("the runner had to kill what an init did not")
	}
	s.noZombies()
}

// noZombies waits until the dead inits of a moment ago are reaped.
func (s *instance) noZombies() {
	s.t.Helper()
	runner := s.runnerPID()
	eventually(s.t, func() error {
		for _, parent := range []int{s.cmd.Process.Pid, runner} {
			for _, pid := range children(s.t, parent) {
				if stateOf(pid) == 'Z' {
					return fmt.Errorf("process %d, a child of %d, is a zombie", pid, parent)
				}
			}
		}
		return nil
	})
}

// TestPromise07TwoHundredCancels: in a row, on four sessions at a time, each with a
// child, a process in a session of its own and one that was forked twice.
func TestPromise07TwoHundredCancels(t *testing.T) {
	s := launch(t, "--cgroup", "off")
	const script = `SLEEP 1000 & setsid SLEEP 1000 & (setsid BASH -c '(SLEEP 1000) &' &); echo ready; wait`
	var all sync.WaitGroup
	for range 4 {
		c := s.dial()
		all.Go(func() {
			for i := range 50 {
				m := newTrace(t)
				e, err := c.Execute(bounded(t), wire.ExecuteParams{Argv: m.argv(script)})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := e.Next(bounded(t)); err != nil {
					t.Error(err)
				}
				if i%2 == 0 { // the other half is cancelled while it forks
					m.awaitSome()
				}
				canceled(t, e, m)
			}
		})
	}
	all.Wait()
	s.noZombies()
}

// TestPromise07CommandKillsItsInit: what it left behind is killed, its neighbour
// lives, and the next command runs.
func TestPromise07CommandKillsItsInit(t *testing.T) { contained(t, commandKillsItsInit) }

func commandKillsItsInit(t *testing.T, args ...string) {
	t.Helper()
	s := launch(t, args...)
	c := s.dial()
	other := newTrace(t)
	neighbour := ready(t, c, other.argv(`echo ready; exec SLEEP 1000`))
	for range soak(5, 50) {
		m := newTrace(t)
		e := ready(t, c, m.argv(`(trap "" HUP; setsid BASH -c 'trap "" TERM; echo ready; SLEEP 1000; :' &); sleep 0.1; kill -9 $PPID; SLEEP 1000`))
		if done := completed(t, e); done.Reason != wire.ReasonRunnerLost && done.Reason != wire.ReasonSignaled ||
			done.ExitCode != -9 {
			t.Errorf("%+v", done)
		}
		m.none()
	}
	other.await(1)
	healthy(t, s)
	canceled(t, neighbour, other)
}

// TestPromise07EndsKillEveryTree: the same for the ends that are not a cancel.
func TestPromise07EndsKillEveryTree(t *testing.T) { contained(t, endsKillEveryTree) }

func endsKillEveryTree(t *testing.T, args ...string) {
	t.Helper()
	for _, end := range []struct {
		name string
		end  func(*instance, *socket)
		told bool // the client hears when all is dead
	}{
		{"connection lost, then the resume window", func(_ *instance, c *socket) { c.cut() }, false},
		{"session closed", func(_ *instance, c *socket) { c.request(wire.MethodClose, struct{}{}) }, true},
		{"kill -9 of trouped", func(s *instance, _ *socket) { s.signal(syscall.SIGKILL) }, false},
	} {
		t.Run(end.name, func(t *testing.T) {
			s := launch(t, append(args, "--cancel-grace", "100ms", "--resume-window", "100ms", "--max-executions", "20")...)
			runner := s.runnerPID()
			inits := children(t, runner)
			c, _ := session(t, s, "/ws")
			var all []*trace
			for _, tree := range trees {
				m := newTrace(t)
				c.said(c.start(wire.ExecuteParams{Argv: m.argv(tree.script)}), "ready\n")
				m.await(tree.n)
				all = append(all, m)
			}
			end.end(s, c)
			if end.told {
				if got := c.end(); got.code != 1000 {
					t.Error(got)
				}
			}
			for _, m := range all {
				if !end.told {
					m.gone()
				}
				m.none()
			}
			if strings.HasPrefix(end.name, "kill -9") {
				eventually(t, func() error {
					for _, pid := range append(inits, runner) {
						if state := stateOf(pid); state != 0 && state != 'Z' { // a zombie is for the machine's own init now
							return fmt.Errorf("process %d of the runner is in state %c", pid, state)
						}
					}
					return nil
				})
				return
			}
			s.awaitActive(0)
			healthy(t, s)
			s.noZombies()
		})
	}
}

// TestPromise07RunnerKilled: kill -9 of the runner takes every tree with it, says so
// to whom it concerns, and does not end the service.
func TestPromise07RunnerKilled(t *testing.T) { contained(t, runnerKilled) }

func runnerKilled(t *testing.T, args ...string) {
	t.Helper()
	s := launch(t, args...)
	c := s.dial()
	for range 2 {
		old := s.runnerPID()
		var all []*trace
		var lost []*troupe.Execution
		for _, tree := range trees[:6] {
			m := newTrace(t)
			lost = append(lost, ready(t, c, m.argv(tree.script)))
			m.await(tree.n)
			all = append(all, m)
		}
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for i, e := range lost {
			done := completed(t, e)
			if done.Reason != wire.ReasonRunnerLost || done.Error == nil || done.Status != wire.StatusFailed {
				t.Errorf("%s: %+v", trees[i].name, done)
			}
			all[i].none()
		}
		healthy(t, s) // waits for the next runner
		if pid := s.runnerPID(); pid == old {
			t.Errorf("the runner is %d still", pid)
		}
	}
	s.noZombies()
}
