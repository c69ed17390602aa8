package actors

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// callsOf returns what was done to a tree.
func callsOf(t *fakeTree) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

// answerTo returns the answer to a request in a word.
func answerTo(c *testClient, id string) string {
	switch r := c.reply(id); {
	case r == nil:
		return "none"
	case r.err != nil && r.err.Code == wire.CodeNoProcess:
		return "refused"
	case r.err != nil:
		return r.err.Error()
	default:
		if res, ok := r.result.(*wire.ControlResult); ok {
			return res.Status
		}
		return "ok"
	}
}

// executionIn is a way to bring an execution into a state, with a tree that dies only when it is
// swept.
var executionIn = map[string]func(*testClient, *fakeTree){
	"starting":  func(*testClient, *fakeTree) {},
	"running":   func(_ *testClient, tr *fakeTree) { tr.run() },
	"pausing":   func(c *testClient, tr *fakeTree) { tr.run(); tr.manual = true; c.control("p", "PAUSE", "x") },
	"paused":    func(c *testClient, tr *fakeTree) { tr.run(); c.control("p", "PAUSE", "x") },
	"canceling": func(c *testClient, tr *fakeTree) { tr.run(); c.control("p", "CANCEL", "x") },
	"killed":    func(c *testClient, _ *fakeTree) { c.control("p", "CANCEL", "x") },
	"exiting":   func(_ *testClient, tr *fakeTree) { tr.run(); tr.emit(proc.Exited{}) },
	"kept":      func(_ *testClient, tr *fakeTree) { tr.run(); tr.emit(proc.Exited{}) },
	"exited":    func(_ *testClient, tr *fakeTree) { tr.run(); tr.exit(0) },
}

// TestControlReachesTheTree: each cell of the table above process.control, with what is answered
// and what is done. So for signals: KILL is for the tree as long as any of it lives, the others are
// for the command while it runs.
func TestControlReachesTheTree(t *testing.T) {
	const refused = "refused:"
	// What was swept is dead, and the actor that has completed kills it once more, to be sure.
	table := map[string]map[string]string{
		"starting": {"PAUSE": "none:", "RESUME": "resumed:", "CANCEL": "canceled: kill", "INT": refused, "KILL": "ok: kill"},
		"running": {
			"PAUSE": "paused: pause", "RESUME": "resumed: resume", "CANCEL": "canceled: terminate",
			"INT": "ok: interrupt resume", "USR1": "ok: user defined signal 1", "KILL": "ok: kill",
		},
		"pausing": {
			"PAUSE": "none:", "RESUME": "resumed: resume", "CANCEL": "canceled: terminate",
			"INT": "ok: interrupt", "TERM": "ok: terminated", "KILL": "ok: kill",
		},
		"paused": {
			"PAUSE": "paused:", "RESUME": "resumed: resume", "CANCEL": "canceled: terminate",
			"INT": "ok: interrupt", "KILL": "ok: kill",
		},
		"canceling": {"PAUSE": refused, "RESUME": refused, "CANCEL": "canceled:", "INT": "ok: interrupt", "KILL": "ok: kill"},
		"killed":    {"PAUSE": refused, "RESUME": refused, "CANCEL": "canceled:", "INT": refused, "KILL": "ok: kill"},
		"exiting": {
			"PAUSE": refused, "RESUME": refused, "CANCEL": "canceled: sweep kill",
			"INT": refused, "KILL": "ok: kill",
		},
		"kept": {
			"PAUSE": refused, "RESUME": refused, "CANCEL": "canceled: terminate",
			"INT": refused, "KILL": "ok: kill",
		},
		"exited": {"PAUSE": refused, "RESUME": refused, "CANCEL": "canceled:", "INT": refused, "KILL": refused},
	}
	for state, requests := range table {
		for request, want := range requests {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(nil), nil, nil)
				c := connect(h.Engine, ConnectRequest{})
				params := wire.ExecuteParams{ExecutionID: "x"}
				if state == "kept" {
					params.OnExit = wire.ExitKeep
				}
				c.execute("1", params)
				synctest.Wait()
				tree := h.runner.tree("x")
				tree.stubborn = true
				executionIn[state](c, tree)
				synctest.Wait()
				before := len(callsOf(tree))
				if !slices.Contains([]string{"PAUSE", "RESUME", "CANCEL"}, request) {
					c.conn.Request(wire.ID("2"), &wire.SignalParams{ExecutionID: "x", Signal: "SIG" + request})
				} else {
					c.control("2", request, "x")
				}
				synctest.Wait()
				got := strings.TrimSpace(answerTo(c, "2") + ": " + strings.Join(callsOf(tree)[before:], " "))
				if got != want {
					t.Errorf("%s in state %s: %q, want %q", request, state, got, want)
				}
				tree.die(proc.Dead{})
				h.stop(t, c)
			})
		}
	}
}

// TestPauseIsForgottenByResume: of a PAUSE that RESUME overtook, nothing is done when the command
// starts, or stands still.
func TestPauseIsForgottenByResume(t *testing.T) {
	for _, state := range []string{"starting", "pausing"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(nil), nil, nil)
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			synctest.Wait()
			tree := h.runner.tree("x")
			executionIn[state](c, tree)
			c.control("2", "PAUSE", "x")
			c.control("3", "RESUME", "x")
			synctest.Wait()
			if state == "starting" {
				tree.run()
			} else {
				tree.emit(proc.Paused{})
			}
			synctest.Wait()
			paused := slices.Contains(callsOf(tree), "pause")
			if paused != (state == "pausing") || answerTo(c, "2") != "paused" || answerTo(c, "3") != "resumed" {
				t.Errorf("%s: answered %q and %q, done %v", state, answerTo(c, "2"), answerTo(c, "3"), callsOf(tree))
			}
			h.stop(t, c)
		})
	}
}

// TestPauseThatTheEndOvertakesIsRefused: whoever waits for a tree to stand still learns that it
// will not.
func TestPauseThatTheEndOvertakesIsRefused(t *testing.T) {
	for name, end := range map[string]func(*testClient, *fakeTree){
		"cancel": func(c *testClient, _ *fakeTree) { c.control("c", "CANCEL", "x") },
		"exit":   func(_ *testClient, tr *fakeTree) { tr.emit(proc.Exited{}) },
		"death":  func(_ *testClient, tr *fakeTree) { tr.die(proc.Dead{}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(nil), nil, nil)
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			synctest.Wait()
			tree := h.runner.tree("x")
			executionIn["pausing"](c, tree)
			synctest.Wait()
			end(c, tree)
			synctest.Wait()
			if got := answerTo(c, "p"); got != "refused" {
				t.Errorf("%s: %s", name, got)
			}
			h.stop(t, c)
		})
	}
}

// TestGraceIsGivenWhole: SIGKILL follows SIGTERM after the grace, not before.
func TestGraceIsGivenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		c.control("2", "CANCEL", "x")
		time.Sleep(h.limits.CancelGrace - moment)
		synctest.Wait()
		if tree.saw("kill") || !tree.saw("terminate") {
			t.Errorf("within the grace: %v", callsOf(tree))
		}
		time.Sleep(2 * moment)
		synctest.Wait()
		if !tree.saw("kill") {
			t.Errorf("after the grace: %v", callsOf(tree))
		}
		h.stop(t, c)
	})
}

// TestInputIsBounded: what waits for a command that does not read is bounded by requests and by
// bytes, and an answer makes room.
func TestInputIsBounded(t *testing.T) {
	const most = 1000
	for name, c := range map[string]struct{ fits, size int }{
		"by requests":                 {MaxInputs, 1},
		"by bytes":                    {4, most / 4},
		"by bytes, with one that big": {1, most},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), func(cfg *Config) { cfg.Limits.MaxMessage = most }, nil)
			client := connect(h.Engine, ConnectRequest{})
			client.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: true})
			synctest.Wait()
			send := func(id string) {
				client.conn.Request(wire.ID(id), &wire.InputParams{ExecutionID: "x", Data: strings.Repeat("x", c.size)})
				synctest.Wait()
			}
			for range c.fits {
				send("waits")
			}
			if r := client.reply("waits"); r != nil {
				t.Fatalf("%s: answered before it was read: %+v %v", name, r, r.err)
			}
			send("too much")
			r := client.reply("too much")
			if r == nil || r.err == nil || r.err.Code != wire.CodeSessionLimit ||
				r.err.Data == nil || r.err.Data.Limit != "input" || r.err.Data.RetryAfterSeconds == 0 {
				t.Fatalf("%s: one more was answered with %+v", name, r)
			}
			// The command reads one, and there is room for one.
			if _, err := h.runner.tree("x").typed.Read(make([]byte, most)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if r := client.reply("waits"); r == nil || r.err != nil {
				t.Errorf("%s: what was read was answered with %+v", name, r)
			}
			send("room again")
			if r := client.reply("room again"); r != nil {
				t.Errorf("%s: there is no room after an answer: %v", name, r.err)
			}
			send("too much again")
			if r := client.reply("too much again"); r == nil || r.err == nil {
				t.Errorf("%s: there is more room than before", name)
			}
			h.stop(t, client)
		})
	}
}

// TestInputGoesNowhereElse: a command without stdin, and one whose stdin was closed, take none.
func TestInputGoesNowhereElse(t *testing.T) {
	for name, c := range map[string]struct {
		stdin, eof bool
		unread     string // waits when the end of input comes
		message    string
	}{
		"not asked for":            {false, false, "", "has no stdin"},
		"closed":                   {true, true, "", "is closed"},
		"closed behind what waits": {true, true, "unread", "is closed"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), nil, nil)
			client := connect(h.Engine, ConnectRequest{})
			client.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: c.stdin})
			synctest.Wait()
			if c.unread != "" {
				client.conn.Request(wire.ID("unread"), &wire.InputParams{ExecutionID: "x", Data: c.unread})
			}
			if c.eof {
				client.conn.Request(wire.ID("eof"), &wire.InputParams{ExecutionID: "x", EOF: true})
			}
			synctest.Wait()
			client.conn.Request(wire.ID("2"), &wire.InputParams{ExecutionID: "x", Data: "x"})
			synctest.Wait()
			r := client.reply("2")
			if r == nil || r.err == nil || r.err.Code != wire.CodeInputUnavailable ||
				!strings.Contains(r.err.Message, c.message) {
				t.Errorf("%s: %+v", name, r)
			}
			if c.eof { // the command sees the end, behind what was sent before it
				typed := h.runner.tree("x").typed
				_ = typed.SetReadDeadline(time.Now().Add(moment))
				if got, err := io.ReadAll(typed); string(got) != c.unread || err != nil {
					t.Errorf("%s: the command reads %q, %v", name, got, err)
				}
				synctest.Wait()
				if r := client.reply("eof"); r == nil || r.err != nil {
					t.Errorf("%s: the end of input was answered with %+v", name, r)
				}
			}
			h.stop(t, client)
		})
	}
}
