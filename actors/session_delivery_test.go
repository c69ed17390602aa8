package actors

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// slowReader starts a command that has ended, and returns its client, which has acknowledged nothing.
func slowReader(h *harness, p wire.ExecuteParams) *testClient {
	c := connect(h.Engine, ConnectRequest{})
	c.silent = true
	p.ExecutionID = "x"
	c.execute("1", p)
	synctest.Wait()
	tree := h.runner.tree("x")
	tree.print("output\n")
	synctest.Wait()
	tree.exit(3)
	synctest.Wait()
	return c
}

// other connects once more to the session of a client, and follows what it runs.
func other(h *harness, c *testClient) *testClient {
	hello := find[wire.Connected](c)
	o := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
	o.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
	synctest.Wait()
	return o
}

// lasts fails unless the session of a client is told to go after d, and not before.
func lasts(t *testing.T, c *testClient, d time.Duration, cause wire.Cause) {
	t.Helper()
	began := time.Now()
	for time.Since(began) < d+time.Second {
		synctest.Wait()
		if _, ended := c.hasEnded(); ended {
			break
		}
		time.Sleep(time.Second)
	}
	got, ended := c.hasEnded()
	if took := time.Since(began); !ended || got != cause || took < d || took > d+time.Second {
		t.Errorf("told to go %v (%s) after %v, want %s after %v", ended, got, took, cause, d)
	}
}

// TestSessionLastsUntilItsReaderHasTheEnd: neither a drain nor the idle timeout ends a session while a
// client is attached that has not acknowledged the end of what it follows.
func TestSessionLastsUntilItsReaderHasTheEnd(t *testing.T) {
	const left = 10 * time.Minute
	ended := func(t *testing.T, c *testClient, cause wire.Cause, after time.Duration) {
		c.ack("x", 7, false) // all output, but not the end
		time.Sleep(after)
		synctest.Wait()
		if _, ended := c.hasEnded(); ended {
			t.Fatal("told to go with an end that it has not acknowledged")
		}
		c.ack("x", 7, true)
		synctest.Wait()
		if cause == wire.CauseDraining {
			lasts(t, c, 0, cause)
		} else {
			lasts(t, c, time.Hour, cause) // the idle timeout, from the acknowledgement on
		}
	}
	for _, window := range []int64{0, wire.MinWindow} {
		t.Run(fmt.Sprint("drain, window ", window), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.DrainTimeout = left }, nil)
				c := slowReader(h, wire.ExecuteParams{Window: window})
				go h.Drain(nil)
				ended(t, c, wire.CauseDraining, left-time.Second)
				h.stop(t)
			})
		})
		t.Run(fmt.Sprint("idle, window ", window), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), nil, nil)
				c := slowReader(h, wire.ExecuteParams{Window: window})
				ended(t, c, wire.CauseSessionEnded, 30*time.Hour)
				h.stop(t)
			})
		})
	}
	t.Run("up to the drain's deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.DrainTimeout = left }, nil)
			c := slowReader(h, wire.ExecuteParams{})
			go h.Drain(nil)
			lasts(t, c, left, wire.CauseDraining)
			h.stop(t)
		})
	})
}

// TestResumingTakesTheAcknowledgementBack: a client that has acknowledged the end and comes back to an
// earlier offset has not got it.
func TestResumingTakesTheAcknowledgementBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := slowReader(h, wire.ExecuteParams{})
		c.ack("x", 7, true)
		hello := find[wire.Connected](c)
		again := func(c *testClient) {
			c.conn.Request(wire.ID("r"),
				&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 3}})
			synctest.Wait()
		}
		again(c)
		go h.Drain(nil)
		time.Sleep(time.Minute)
		c.hangUp(wire.CauseClientGone)
		time.Sleep(time.Minute)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		again(back)
		if r := back.reply("r"); r == nil || r.err != nil || back.text("x") != "put\n" {
			t.Errorf("the session is not there for the rest: %+v, output %q", r, back.text("x"))
		}
		h.stop(t, back)
	})
}

// TestFollowerThatEndsFirst: one of two clients of a session is done, in any of the ways in which a
// client can be, and the other, which reads more slowly, gets everything.
func TestFollowerThatEndsFirst(t *testing.T) {
	for name, leave := range map[string]func(*testClient){
		"goodbye": func(c *testClient) { c.hangUp(wire.CauseClientDone) },
		"lost":    func(c *testClient) { c.hangUp(wire.CauseClientGone) },
		"close":   func(c *testClient) { c.conn.Request(wire.ID("c"), &wire.CloseParams{}) },
		"close and goodbye": func(c *testClient) {
			c.conn.Request(wire.ID("c"), &wire.CloseParams{})
			synctest.Wait()
			c.hangUp(wire.CauseClientDone)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), nil, nil)
				slow := slowReader(h, wire.ExecuteParams{})
				leave(other(h, slow))
				for at := range int64(7) { // with progress it may take longer than the resume window
					time.Sleep(h.limits.ResumeWindow - time.Second)
					synctest.Wait()
					if cause, ended := slow.hasEnded(); ended {
						t.Fatalf("the slow reader was told to go (%s) at offset %d", cause, at)
					}
					slow.ack("x", at, false)
				}
				slow.ack("x", 7, true)
				synctest.Wait()
				if _, ended := slow.hasEnded(); ended != (name == "close" || name == "close and goodbye") {
					t.Errorf("told to go when it had everything: %v", ended)
				}
				h.stop(t, slow)
			})
		})
	}
}

// TestCloseWaitsForOthersOnlyWhileTheyRead: without an acknowledgement for the resume window, or at the
// drain's deadline, a closed session ends.
func TestCloseWaitsForOthersOnlyWhileTheyRead(t *testing.T) {
	for name, drains := range map[string]bool{"resume window": false, "the drain": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.DrainTimeout = time.Minute }, nil)
				slow := slowReader(h, wire.ExecuteParams{})
				other(h, slow).conn.Request(wire.ID("c"), &wire.CloseParams{})
				synctest.Wait()
				if drains {
					go h.Drain(nil)
					lasts(t, slow, time.Minute, wire.CauseSessionEnded)
				} else {
					lasts(t, slow, h.limits.ResumeWindow, wire.CauseSessionEnded)
				}
				h.stop(t)
			})
		})
	}
}

// TestGoodbyeOfOneClientLeavesTheOthersCommand: it cancels nothing while another client is attached.
// The last one's goodbye ends the session.
func TestGoodbyeOfOneClientLeavesTheOthersCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		o := other(h, c)
		c.hangUp(wire.CauseClientDone)
		synctest.Wait()
		tree := h.runner.tree("x")
		if tree.saw("terminate") {
			t.Error("the goodbye of one client cancelled the command of both")
		}
		o.hangUp(wire.CauseClientDone)
		synctest.Wait()
		if !tree.saw("terminate") {
			t.Error("the goodbye of the last client left the command running")
		}
		h.stop(t)
	})
}

// TestForgettingSparesWhatIsBeingRead: of the finished executions those are forgotten first that no
// client waits for.
func TestForgettingSparesWhatIsBeingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.KeepFinished = 3 }, nil)
		slow := slowReader(h, wire.ExecuteParams{})
		quick := other(h, slow)
		quick.ack("x", 7, true)
		for i := range 5 {
			id := fmt.Sprint("y", i)
			quick.execute(id, wire.ExecuteParams{ExecutionID: id})
			synctest.Wait()
			h.runner.tree(id).exit(0)
			synctest.Wait()
		}
		status := func() map[string]wire.ExecutionStatus {
			quick.conn.Request(wire.ID(fmt.Sprint(time.Now())), &wire.StatusParams{})
			synctest.Wait()
			all := quick.all()
			return all[len(all)-1].result.(*wire.StatusResult).Executions
		}
		if got := status(); len(got) != 3 || got["x"].State == "" || got["y4"].State == "" {
			t.Errorf("what is being read was forgotten: %v", got)
		}
		h.stop(t, slow, quick)
	})
}

// TestAckOfWhatCannotBe: an ack with an id is answered, and refused in words when it is for more than
// there is.
func TestAckOfWhatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := slowReader(h, wire.ExecuteParams{})
		for id, tc := range map[string]struct {
			ack  wire.AckParams
			code wire.Code
		}{
			"fine":     {wire.AckParams{ExecutionID: "x", Offset: 7}, 0},
			"again":    {wire.AckParams{ExecutionID: "x", Offset: 7, Completed: true}, 0},
			"too much": {wire.AckParams{ExecutionID: "x", Offset: 8}, wire.CodeInvalidParams},
			"unknown":  {wire.AckParams{ExecutionID: "y"}, wire.CodeNoProcess},
		} {
			c.conn.Request(wire.ID(id), &tc.ack)
			synctest.Wait()
			switch r := c.reply(id); {
			case r == nil:
				t.Errorf("%s: no answer", id)
			case tc.code == 0 && r.err != nil, tc.code != 0 && (r.err == nil || r.err.Code != tc.code):
				t.Errorf("%s: %v", id, r.err)
			}
		}
		before := len(c.all())
		c.ack("y", 0, true)
		c.ack("x", 99, true)
		synctest.Wait()
		if len(c.all()) != before {
			t.Error("a notification was answered")
		}
		h.stop(t, c)
	})
}

// TestEndOfKeptProcessesIsWaitedFor: process.completed of a command that leaves survivors is not the
// last of its output. What they write is waited for as the command's is.
func TestEndOfKeptProcessesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.silent = true
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", OnExit: wire.ExitKeep})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.emit(proc.Exited{Code: 6})
		synctest.Wait()
		c.ack("x", 0, true)
		go h.Drain(nil)
		tree.print("late\n")
		synctest.Wait()
		tree.die(proc.Dead{})
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, ended := c.hasEnded(); ended || c.text("x") != "late\n" {
			t.Errorf("told to go %v, output %q", ended, c.text("x"))
		}
		c.ack("x", 5, false)
		lasts(t, c, 0, wire.CauseDraining)
		h.stop(t)
	})
}
