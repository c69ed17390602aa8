package actors

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

func TestCommandRunsFromRequestToCompletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tree *fakeTree) {
			tree.run()
			tree.print("hello\n")
			tree.exit(3)
		}), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		var order []string
		for _, s := range c.all() {
			switch p := s.params.(type) {
			case *wire.Connected, *wire.Started, *wire.Completed:
				order = append(order, fmt.Sprintf("%T", p))
			default:
				order = append(order, fmt.Sprintf("%T", s.result))
			}
		}
		want := []string{"*wire.Connected", "*wire.ExecuteResult", "*wire.Started", "*wire.Completed"}
		if fmt.Sprint(order) != fmt.Sprint(want) {
			t.Errorf("order on the wire: %v, want %v", order, want)
		}
		done := find[wire.Completed](c)
		if done == nil || done.ExitCode != 3 || done.Reason != wire.ReasonExited || done.OutputBytes != 6 ||
			c.text("x") != "hello\n" {
			t.Errorf("completed %+v, output %q", done, c.text("x"))
		}
		h.stop(t, c)
	})
}

func TestSilentCommandEndsAtStreamTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tree *fakeTree) {
			tree.run()
			tree.print("partial, no newline")
		}), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		time.Sleep(299 * time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done != nil {
			t.Fatalf("ended after 299 s: %+v", done)
		}
		time.Sleep(2*time.Second + 10*time.Second) // the timeout, and the grace of a command that ignores SIGTERM
		synctest.Wait()
		done := find[wire.Completed](c)
		if done == nil {
			t.Fatal("not ended")
		}
		if done.Reason != wire.ReasonStreamTimeout || done.Error == nil || done.Error.Code != wire.CodeStreamTimeout {
			t.Errorf("completed: %+v", done)
		}
		if c.text("x") != "partial, no newline" {
			t.Errorf("partial output %q", c.text("x"))
		}
		if tree := h.runner.tree("x"); !tree.saw("terminate") || !tree.saw("kill") {
			t.Errorf("calls: %v", tree.calls)
		}
		h.stop(t, c)
	})
}

func TestOutputHoldsTheStreamTimeoutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tree *fakeTree) {
			tree.run()
			for range 10 {
				time.Sleep(200 * time.Second)
				tree.print(".\n")
			}
			tree.exit(0)
		}), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		time.Sleep(2001 * time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done == nil || done.Reason != wire.ReasonExited {
			t.Errorf("completed: %+v", done)
		}
		h.stop(t, c)
	})
}

func TestPausedCommandDoesNotTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", MaxDuration: 700})
		time.Sleep(200 * time.Second)
		c.control("2", wire.ControlPause, "")
		time.Sleep(3000 * time.Second)
		c.control("3", wire.ControlResume, "")
		time.Sleep(99 * time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done != nil {
			t.Fatalf("299 s of running time ended it: %+v", done)
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done == nil || done.Reason != wire.ReasonStreamTimeout {
			t.Errorf("completed: %+v", done)
		}
		h.stop(t, c)
	})
}

func TestDeadlineCountsRunningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", MaxDuration: 100})
		time.Sleep(90 * time.Second)
		c.control("2", wire.ControlPause, "x")
		time.Sleep(1000 * time.Second)
		c.control("3", wire.ControlResume, "x")
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if find[wire.Completed](c) != nil {
			t.Fatal("ended at 99 s of running time")
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if done := find[wire.Completed](c); done == nil || done.Reason != wire.ReasonDeadline {
			t.Errorf("completed: %+v", done)
		}
		h.stop(t, c)
	})
}

// TestControlInEveryState drives each control type in each state.
func TestControlInEveryState(t *testing.T) {
	states := []struct {
		name  string
		reach func(*testClient, *fakeTree)
		want  map[string]string // control type → status, or "refused"
	}{
		{
			"starting", func(*testClient, *fakeTree) {},
			map[string]string{"PAUSE": "none", "RESUME": "resumed", "CANCEL": "canceled"},
		},
		{
			"running", func(_ *testClient, tr *fakeTree) { tr.run() },
			map[string]string{"PAUSE": "paused", "RESUME": "resumed", "CANCEL": "canceled"},
		},
		{
			"paused", func(c *testClient, tr *fakeTree) { tr.run(); c.control("p", "PAUSE", "x") },
			map[string]string{"PAUSE": "paused", "RESUME": "resumed", "CANCEL": "canceled"},
		},
		{
			"canceling", func(c *testClient, tr *fakeTree) { tr.run(); c.control("p", "CANCEL", "x") },
			map[string]string{"PAUSE": "refused", "RESUME": "refused", "CANCEL": "canceled"},
		},
		{
			"exiting", func(_ *testClient, tr *fakeTree) { tr.run(); tr.emit(proc.Exited{}) },
			map[string]string{"PAUSE": "refused", "RESUME": "refused", "CANCEL": "canceled"},
		},
		{
			"exited", func(_ *testClient, tr *fakeTree) { tr.run(); tr.exit(0) },
			map[string]string{"PAUSE": "refused", "RESUME": "refused", "CANCEL": "canceled"},
		},
	}
	for _, st := range states {
		for typ, want := range st.want {
			t.Run(st.name+"/"+typ, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t, newFakeRunner(nil), nil, nil)
					c := connect(h.Engine, ConnectRequest{})
					c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
					synctest.Wait()
					st.reach(c, h.runner.tree("x"))
					synctest.Wait()
					c.control("2", typ, "x")
					c.control("3", typ, "x") // twice is like once
					synctest.Wait()
					for _, id := range []string{"2", "3"} {
						checkControl(t, c.reply(id), want)
					}
					if st.name == "starting" && typ == "PAUSE" {
						h.runner.tree("x").run()
						synctest.Wait()
						checkControl(t, c.reply("2"), "paused")
					}
					h.stop(t, c)
				})
			})
		}
	}
}

func checkControl(t *testing.T, got *sent, want string) {
	t.Helper()
	switch {
	case want == "none":
		if got != nil {
			t.Errorf("answered %+v before there was anything to say", got)
		}
	case got == nil:
		t.Error("no answer")
	case want == "refused":
		if got.err == nil || got.err.Code != wire.CodeNoProcess {
			t.Errorf("got %+v, want a refusal", got)
		}
	default:
		if res, ok := got.result.(*wire.ControlResult); !ok || res.Status != want {
			t.Errorf("got %+v %v, want %s", got, got.err, want)
		}
	}
}

func TestControlOfUnknownExecutionIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.control("1", "CANCEL", "nobody")
		c.control("2", "CANCEL", "") // nothing runs
		c.execute("3", wire.ExecuteParams{ExecutionID: "a"})
		c.execute("4", wire.ExecuteParams{ExecutionID: "b"})
		c.control("5", "CANCEL", "") // two run
		synctest.Wait()
		for id, code := range map[string]wire.Code{
			"1": wire.CodeNoProcess, "2": wire.CodeNoProcess,
			"5": wire.CodeInvalidParams,
		} {
			if r := c.reply(id); r == nil || r.err == nil || r.err.Code != code {
				t.Errorf("request %s: %+v, want code %d", id, r, code)
			}
		}
		if h.runner.alive() != 2 {
			t.Error("a refused control request changed something")
		}
		h.stop(t, c)
	})
}

func TestRepeatedExecutionIDRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(nil), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		c.execute("2", wire.ExecuteParams{ExecutionID: "x"}) // while it starts
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.run()
		tree.print("once\n")
		synctest.Wait()
		c.execute("3", wire.ExecuteParams{ExecutionID: "x"}) // while it runs
		synctest.Wait()
		tree.exit(0)
		synctest.Wait()
		c.execute("4", wire.ExecuteParams{ExecutionID: "x"}) // when it is over
		synctest.Wait()
		for _, id := range []string{"1", "2", "3", "4"} {
			r := c.reply(id)
			if r == nil || r.err != nil {
				t.Fatalf("request %s: %+v", id, r)
			}
			if res := r.result.(*wire.ExecuteResult); res.PID != 4242 || res.Attached != (id != "1") {
				t.Errorf("request %s: %+v", id, res)
			}
		}
		// Each repetition is followed from the beginning, in place of the one before.
		if h.runner.tree("x") != tree || c.text("x") != strings.Repeat("once\n", 3) || count[wire.Completed](c) != 2 {
			t.Errorf("output %q, %d completions", c.text("x"), count[wire.Completed](c))
		}
		h.stop(t, c)
	})
}

func TestNinthExecutionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		for i := range 9 {
			c.execute(fmt.Sprint(i), wire.ExecuteParams{ExecutionID: fmt.Sprint("x", i)})
		}
		synctest.Wait()
		r := c.reply("8")
		if r.err == nil || r.err.Code != wire.CodeExecutionLimit || r.err.Data.Value != 8 {
			t.Errorf("ninth: %+v", r)
		}
		h.runner.tree("x0").exit(0)
		synctest.Wait()
		c.execute("10", wire.ExecuteParams{ExecutionID: "x10"})
		synctest.Wait()
		if r := c.reply("10"); r == nil || r.err != nil {
			t.Errorf("after one ended: %+v", r)
		}
		h.stop(t, c)
	})
}

func TestFinishedExecutionsAreForgottenInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tr *fakeTree) { tr.run(); tr.print("x\n"); tr.exit(0) }),
			func(c *Config) { c.Limits.KeepFinished = 3 }, nil)
		c := connect(h.Engine, ConnectRequest{})
		for i := range 10 {
			c.execute(fmt.Sprint(i), wire.ExecuteParams{ExecutionID: fmt.Sprint("x", i)})
			synctest.Wait()
		}
		c.conn.Request(wire.ID("s"), &wire.StatusParams{})
		synctest.Wait()
		st := c.reply("s").result.(*wire.StatusResult)
		if len(st.Executions) != 3 || st.Executions["x9"].State != wire.StateExited {
			t.Errorf("kept: %v", st.Executions)
		}
		if n := h.store.Stats().Transcripts; n != 3 {
			t.Errorf("%d transcripts kept", n)
		}
		h.stop(t, c)
	})
}

func TestResumeReplaysFromTheOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.print("one\n")
		synctest.Wait()
		hello := find[wire.Connected](c)
		c.hangUp(wire.CauseClientGone)
		tree.print("two\n")
		tree.exit(0)
		synctest.Wait()

		again := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		again.execute("e", wire.ExecuteParams{}) // too early
		again.conn.Request(wire.ID("r"),
			&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 4, "y": 0}})
		synctest.Wait()
		if r := again.reply("e"); r == nil || r.err == nil || r.err.Code != wire.CodeInvalidRequest {
			t.Errorf("execute before resume: %+v", r)
		}
		res, ok := again.reply("r").result.(*wire.ResumeResult)
		if !ok || res.Executions["x"].State != wire.StateExited || fmt.Sprint(res.Unknown) != "[y]" {
			t.Fatalf("resume: %+v", again.reply("r"))
		}
		if again.text("x") != "two\n" || count[wire.Completed](again) != 1 {
			t.Errorf("replayed %q, %d completions", again.text("x"), count[wire.Completed](again))
		}
		h.stop(t, again)
	})
}

func TestResumeIsRefusedWithOneAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		hello := find[wire.Connected](c)
		for name, try := range map[string]struct {
			req   ConnectRequest
			token string
		}{
			"wrong token":     {ConnectRequest{SessionID: hello.SessionID}, "nonsense"},
			"other subject":   {ConnectRequest{SessionID: hello.SessionID, Subject: "mallory"}, hello.ResumeToken},
			"unknown session": {ConnectRequest{SessionID: "pod-0.feed"}, hello.ResumeToken},
		} {
			bad := connect(h.Engine, try.req)
			bad.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: try.token})
			synctest.Wait()
			r := bad.reply("r")
			if r == nil || r.err == nil || r.err.Code != wire.CodeNoSession {
				t.Errorf("%s: %+v", name, r)
			}
			if cause, ended := bad.hasEnded(); !ended || cause != wire.CauseNoSession {
				t.Errorf("%s: closed %v with %s", name, ended, cause)
			}
		}
		bad := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		bad.conn.Request(wire.ID("r"),
			&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 99}})
		synctest.Wait()
		if r := bad.reply("r"); r == nil || r.err == nil || r.err.Code != wire.CodeInvalidParams {
			t.Errorf("offset past the end: %+v", r)
		}
		h.stop(t, c, bad)
	})
}

func TestDetachedSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", Timeout: 300})
		synctest.Wait()
		c.hangUp(wire.CauseClientGone)
		time.Sleep(299 * time.Second)
		synctest.Wait()
		if s := h.Stats(); s.Sessions != 1 {
			t.Fatalf("%d sessions inside the window", s.Sessions)
		}
		time.Sleep(12 * time.Second) // the rest of the window, and the grace
		synctest.Wait()
		if s := h.Stats(); s.Sessions != 0 || h.runner.alive() != 0 {
			t.Errorf("%d sessions, %d trees after it", s.Sessions, h.runner.alive())
		}
		h.stop(t)
	})
}

func TestIdleSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(nil), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		if _, ended := c.hasEnded(); ended {
			t.Fatal("ended early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if cause, ended := c.hasEnded(); !ended || cause != wire.CauseSessionEnded || h.Stats().Sessions != 0 {
			t.Errorf("ended %v with %s, %d sessions", ended, cause, h.Stats().Sessions)
		}
		h.stop(t)
	})
}

func TestConnectionThatNeverResumesEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(nil), nil, nil)
		silent := connect(h.Engine, ConnectRequest{SessionID: "pod-0.feed"})
		time.Sleep(resumeTimeout - time.Second)
		synctest.Wait()
		if _, ended := silent.hasEnded(); ended {
			t.Fatal("ended early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if cause, ended := silent.hasEnded(); !ended || cause != wire.CauseReadTimeout {
			t.Errorf("ended %v with %q", ended, cause)
		}
		h.stop(t)
	})
}
