package actors

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestReusedExecutionIDIsFollowedAgain: what a session forgot, its connections
// have to forget too, or they grow with every command and miss the next of that name.
func TestReusedExecutionIDIsFollowedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tr *fakeTree) { tr.run(); tr.print("x\n"); tr.exit(0) }),
			func(c *Config) { c.Limits.KeepFinished = 1 }, nil)
		c := connect(h.Engine, ConnectRequest{})
		for i, id := range []string{"a", "b", "a"} {
			c.execute(fmt.Sprint(i), wire.ExecuteParams{ExecutionID: id})
			synctest.Wait()
		}
		if c.text("a") != "x\nx\n" || count[wire.Started](c) != 3 || count[wire.Completed](c) != 3 {
			t.Errorf("output %q, %d started, %d completed", c.text("a"), count[wire.Started](c), count[wire.Completed](c))
		}
		h.stop(t, c)
	})
}

// TestResumeOfAStartingExecution: the answer to a repeated execute, then
// process.started, then the output, whatever came first.
func TestResumeOfAStartingExecution(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(nil), nil, nil)
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			synctest.Wait()
			hello := find[wire.Connected](c)
			c.hangUp(wire.CauseClientGone)
			back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
			back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
			back.execute("e", wire.ExecuteParams{ExecutionID: "x"})
			only := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
			only.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
			synctest.Wait()
			tree := h.runner.tree("x")
			want, wantOnly := "[r e *wire.Started *wire.Completed]", "[r *wire.Started *wire.Completed]"
			if fails {
				tree.emit(proc.StartFailed{Err: errors.New("no")})
				tree.die(proc.Dead{})
				want, wantOnly = "[r e *wire.Completed]", "[r *wire.Completed]"
			} else {
				tree.run()
				tree.print("out\n")
				tree.exit(0)
			}
			synctest.Wait()
			if got := order(back); got != want {
				t.Errorf("resume and execute: %s, want %s", got, want)
			}
			if got := order(only); got != wantOnly {
				t.Errorf("resume: %s, want %s", got, wantOnly)
			}
			if !fails && (back.text("x") != "out\n" || only.text("x") != "out\n") {
				t.Errorf("output %q and %q", back.text("x"), only.text("x"))
			}
			h.stop(t, back, only)
		})
	}
}

// order lists what a client got: ids of answers, types of notifications.
func order(c *testClient) string {
	var got []string
	for _, s := range c.all() {
		if s.id != nil {
			got = append(got, string(s.id))
		} else {
			got = append(got, fmt.Sprintf("%T", s.params))
		}
	}
	return fmt.Sprint(got)
}

// TestSessionWithUnreadEndIsNotGivenAway: what was sent to a connection that had
// ended was not read by anyone.
func TestSessionWithUnreadEndIsNotGivenAway(t *testing.T) {
	for name, end := range map[string]func(*testClient, *fakeTree){
		"followed too late": func(c *testClient, tree *fakeTree) {
			c.late.Store(true) // its socket has ended, the engine does not know yet
			tree.run()
			tree.exit(0)
			synctest.Wait()
			c.hangUp(wire.CauseClientGone)
		},
		"start failed unheard": func(c *testClient, tree *fakeTree) {
			c.hangUp(wire.CauseClientGone)
			synctest.Wait()
			tree.emit(proc.StartFailed{Err: errors.New("no")})
			tree.die(proc.Dead{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(nil), func(c *Config) { c.Limits.MaxSessions = 1 }, nil)
				c := connect(h.Engine, ConnectRequest{})
				c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
				synctest.Wait()
				end(c, h.runner.tree("x"))
				synctest.Wait()
				newcomer := connect(h.Engine, ConnectRequest{})
				synctest.Wait()
				if find[wire.Connected](newcomer) != nil {
					t.Error("the session was evicted with an end that no client has read")
				}
				h.stop(t, newcomer)
			})
		})
	}
}

func TestIdleTimeoutBeginsWhenTheLastSurvivorDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", OnExit: wire.ExitKeep})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.emit(proc.Exited{})
		time.Sleep(90 * time.Minute)
		tree.die(proc.Dead{})
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if _, ended := c.hasEnded(); ended {
			t.Error("ended within the idle timeout")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, ended := c.hasEnded(); !ended {
			t.Error("not ended after it")
		}
		h.stop(t, c)
	})
}

// TestSessionForgetsGoneConnections: protoactor keeps the watchers of an actor
// until they unwatch it, also those that have stopped.
func TestSessionForgetsGoneConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		var told atomic.Int64
		h.system.EventStream.Subscribe(func(ev any) {
			if dead, ok := ev.(*actor.DeadLetterEvent); ok && is[*actor.Terminated](dead.Message) {
				told.Add(1)
			}
		})
		c := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		hello := find[wire.Connected](c)
		for range 10 {
			c.hangUp(wire.CauseClientGone)
			c = connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
			c.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
			synctest.Wait()
		}
		told.Store(0)
		c.hangUp(wire.CauseClientDone)
		synctest.Wait()
		if n := told.Load(); n != 0 {
			t.Errorf("the session told %d connections that were gone of its end", n)
		}
		h.stop(t)
	})
}
