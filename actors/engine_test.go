package actors

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// rounds is how often a test of chance is repeated: the figure of the promise
// with TROUPE_SOAK, a tenth of it otherwise.
func rounds(n int) int {
	if os.Getenv("TROUPE_SOAK") != "" || !testing.Short() {
		return n
	}
	return max(1, n/10)
}

// A server whose runner can start nothing is not ready, and says why.
func TestNotReadyWhenNothingCanStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeRunner(running)
		h := newHarness(t, r, nil, nil)
		if why := h.NotReady(); why != "" || !h.Ready() {
			t.Errorf("not ready at first: %q", why)
		}
		r.down.Store(true)
		if why := h.NotReady(); why != "no runner is connected" || h.Ready() {
			t.Errorf("ready although nothing can start: %q", why)
		}
		h.stop(t)
	})
}

// TestCeilingIsExact: 105 at once, 100 accepted and 5 refused, while other
// sessions end and their actors panic.
func TestCeilingIsExact(t *testing.T) {
	var armed sync.Map // session actors that are to panic at their next message
	probe := func(kind string, msg any) {
		if r, ok := msg.(request); ok && kind == "session" {
			if _, hit := armed.LoadAndDelete(r.conn.Id); hit {
				panic("injected")
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, probe)
		for round := range rounds(200) {
			// Some sessions that end in every way while the 105 arrive.
			var old []*testClient
			for range 40 {
				c := connect(h.Engine, ConnectRequest{EndsWithConnection: true})
				c.execute("1", wire.ExecuteParams{})
				old = append(old, c)
			}
			synctest.Wait()
			var fresh []*testClient
			var mu sync.Mutex
			var all sync.WaitGroup
			for i, c := range old {
				all.Go(func() {
					switch i % 3 {
					case 0:
						c.hangUp(wire.CauseClientGone)
					case 1:
						c.conn.Request(wire.ID("9"), &wire.CloseParams{})
					case 2:
						armed.Store(c.conn.pid.Id, true)
						c.conn.Request(wire.ID("9"), &wire.StatusParams{})
					}
				})
			}
			time.Sleep(11 * time.Second) // the grace of commands that ignore SIGTERM
			for range 105 {
				all.Go(func() {
					c := connect(h.Engine, ConnectRequest{EndsWithConnection: true})
					mu.Lock()
					fresh = append(fresh, c)
					mu.Unlock()
				})
			}
			all.Wait()
			synctest.Wait()
			accepted, refused := 0, 0
			for _, c := range fresh {
				if find[wire.Connected](c) != nil {
					accepted++
				} else if r := c.reply("null"); r != nil && r.err.Code == wire.CodeSessionLimit {
					refused++
				}
			}
			if accepted != 100 || refused != 5 || h.Stats().Sessions != 100 {
				t.Fatalf("round %d: %d accepted, %d refused, %d slots in use", round, accepted, refused, h.Stats().Sessions)
			}
			for _, c := range fresh {
				if _, ended := c.hasEnded(); !ended {
					c.hangUp(wire.CauseClientGone)
				}
			}
			synctest.Wait()
			if n := h.Stats().Sessions; n != 0 {
				t.Fatalf("round %d: %d slots in use at its end", round, n)
			}
		}
		h.stop(t)
	})
}

// TestCeilingNeverExceededWhileSessionsTurnOver opens and ends without a pause:
// the number of slots in use is looked at from inside the manager, at every message.
func TestCeilingNeverExceededWhileSessionsTurnOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Pointer[harness]
		worst := 0 // written by the manager's goroutine only
		probe := func(kind string, _ any) {
			if h := seen.Load(); kind == "manager" && h != nil {
				worst = max(worst, h.Stats().Sessions)
			}
		}
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.MaxSessions = 10 }, probe)
		seen.Store(h)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for range 20 {
					c := connect(h.Engine, ConnectRequest{EndsWithConnection: rand.IntN(2) == 0})
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
					if _, ended := c.hasEnded(); !ended {
						c.hangUp(wire.CauseClientGone)
					}
				}
			})
		}
		all.Wait()
		time.Sleep(400 * time.Second)
		synctest.Wait()
		if worst != 10 || h.Stats().Sessions != 0 {
			t.Errorf("at most %d slots of 10 were in use; %d at the end", worst, h.Stats().Sessions)
		}
		h.stop(t)
	})
}

func TestSlotIsHeldUntilTheTreeIsDead(t *testing.T) {
	for _, how := range []string{"close", "disconnect", "session panic", "expiry"} {
		t.Run(how, func(t *testing.T) {
			panicking := false
			probe := func(kind string, _ any) {
				if kind == "session" && panicking {
					panicking = false
					panic("injected")
				}
			}
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), nil, probe)
				c := connect(h.Engine, ConnectRequest{EndsWithConnection: how == "disconnect"})
				c.execute("1", wire.ExecuteParams{ExecutionID: "x", Timeout: 300})
				synctest.Wait()
				tree := h.runner.tree("x")
				tree.stubborn = true
				switch how {
				case "close":
					c.conn.Request(wire.ID("2"), &wire.CloseParams{})
				case "disconnect", "expiry":
					c.hangUp(wire.CauseClientGone)
				case "session panic":
					panicking = true
					c.conn.Request(wire.ID("2"), &wire.StatusParams{})
				}
				time.Sleep(400 * time.Second)
				synctest.Wait()
				if !tree.saw("kill") || h.Stats().Sessions != 1 {
					t.Fatalf("tree not dead, calls %v: %d slots in use, want 1", tree.calls, h.Stats().Sessions)
				}
				tree.die(proc.Dead{})
				time.Sleep(moment)
				synctest.Wait()
				if n := h.Stats().Sessions; n != 0 {
					t.Errorf("tree dead: %d slots in use", n)
				}
				h.stop(t, c)
			})
		})
	}
}

func TestIdleDetachedSessionIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(func(tr *fakeTree) {
			if tr.spec.Argv[2] == "sleep" {
				tr.run()
				return
			}
			tr.run()
			tr.print("out\n")
			tr.exit(0)
		}), func(c *Config) { c.Limits.MaxSessions = 3 }, nil)
		busy, unread := connect(h.Engine, ConnectRequest{}), connect(h.Engine, ConnectRequest{})
		idle := connect(h.Engine, ConnectRequest{})
		unread.mute = true
		busy.execute("1", wire.ExecuteParams{Command: "sleep"})
		unread.execute("1", wire.ExecuteParams{})
		idle.execute("1", wire.ExecuteParams{})
		synctest.Wait()
		idleHello := find[wire.Connected](idle)
		for _, c := range []*testClient{busy, unread, idle} {
			c.hangUp(wire.CauseClientGone)
			time.Sleep(time.Second)
		}
		a, b := connect(h.Engine, ConnectRequest{}), connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		got := 0
		for _, c := range []*testClient{a, b} {
			if find[wire.Connected](c) != nil {
				got++
			}
		}
		if got != 1 {
			t.Errorf("%d clients were let in, want 1: only one session was idle and read", got)
		}
		back := connect(h.Engine, ConnectRequest{SessionID: idleHello.SessionID})
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: idleHello.ResumeToken})
		synctest.Wait()
		if r := back.reply("r"); r == nil || r.err == nil || r.err.Code != wire.CodeNoSession {
			t.Errorf("resume of the session that gave way: %+v", r)
		}
		h.stop(t, a, b, back)
	})
}

// TestEndsRaceInEveryOrder drives the causes of an end in all orders, with the
// actors at rest between two of them and without.
func TestEndsRaceInEveryOrder(t *testing.T) {
	causes := []string{"cancel", "timeout", "disconnect", "exit", "dead", "lost"}
	reasons := map[string]wire.Reason{
		"cancel": wire.ReasonCanceled, "timeout": wire.ReasonStreamTimeout, "disconnect": wire.ReasonSessionClosed,
		"exit": wire.ReasonExited, "dead": wire.ReasonSignaled, "lost": wire.ReasonRunnerLost,
	}
	for _, settle := range []bool{true, false} {
		permutations(causes, func(order []string) {
			synctest.Test(t, func(t *testing.T) {
				var records []AuditRecord
				h := newHarness(t, newFakeRunner(running), func(c *Config) {
					c.Audit = func(r AuditRecord) { records = append(records, r) }
				}, nil)
				c := connect(h.Engine, ConnectRequest{EndsWithConnection: true})
				c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
				synctest.Wait()
				tree := h.runner.tree("x")
				sid := find[wire.Connected](c).SessionID
				process := h.system.NewLocalPID("manager/" + sid + "/x")
				for _, cause := range order {
					switch cause {
					case "cancel":
						c.control("2", wire.ControlCancel, "x")
					case "timeout":
						h.system.Root.Send(process, cancelExecution{reason: wire.ReasonStreamTimeout})
					case "disconnect":
						c.hangUp(wire.CauseClientGone)
					case "exit":
						tree.emit(proc.Exited{Code: 0})
					case "dead":
						tree.die(proc.Dead{})
					case "lost":
						tree.die(proc.Dead{Lost: true, RunnerLost: true})
					}
					if settle {
						synctest.Wait()
					}
				}
				time.Sleep(30 * time.Second)
				synctest.Wait()
				stats := h.Stats()
				stats.Started, stats.StartTime = 0, 0 // it has started if the order lets it
				if len(records) != 1 || stats != (Stats{MaxSessions: 100, MaxResumeWindow: time.Hour}) || h.runner.alive() != 0 {
					t.Fatalf("%v: reported %d times, %+v, %d trees alive", order, len(records), stats, h.runner.alive())
				}
				if got := records[0].Completed.Reason; settle && got != reasons[order[0]] {
					t.Errorf("%v: reason %s, want %s", order, got, reasons[order[0]])
				}
				h.stop(t)
			})
		})
	}
}

func permutations(items []string, f func([]string)) {
	var rec func(int)
	rec = func(k int) {
		if k == len(items) {
			f(append([]string(nil), items...))
			return
		}
		for i := k; i < len(items); i++ {
			items[k], items[i] = items[i], items[k]
			rec(k + 1)
			items[k], items[i] = items[i], items[k]
		}
	}
	rec(0)
}

// TestPanicAnywhereEndsOneSessionOnly makes every actor panic at every message
// of a session's whole life, one at a time.
func TestPanicAnywhereEndsOneSessionOnly(t *testing.T) {
	scenario := func(h *harness) *testClient {
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		if tree := h.runner.tree("x"); tree != nil && tree.started {
			tree.run()
			synctest.Wait()
			go tree.print("some output\n")
			c.control("2", wire.ControlPause, "x")
			synctest.Wait()
			c.control("3", wire.ControlResume, "x")
			synctest.Wait()
			c.control("4", wire.ControlCancel, "x")
			synctest.Wait()
			tree.emit(proc.Exited{Signal: 15})
			tree.die(proc.Dead{})
		}
		synctest.Wait()
		c.conn.Request(wire.ID("5"), &wire.CloseParams{})
		synctest.Wait()
		return c
	}
	// The first run counts the messages, the others panic at one of them.
	total := 0
	for at := -1; at < total; at++ {
		synctest.Test(t, func(t *testing.T) {
			n, armed, what := 0, false, ""
			var mu sync.Mutex
			probe := func(kind string, msg any) {
				mu.Lock()
				defer mu.Unlock()
				if !armed {
					return
				}
				if at == n {
					what = fmt.Sprintf("%s at %T", kind, msg)
				}
				n++
				if at == n-1 {
					panic("injected")
				}
			}
			h := newHarness(t, newFakeRunner(nil), nil, probe)
			bystander := connect(h.Engine, ConnectRequest{Subject: "bob"})
			bystander.execute("1", wire.ExecuteParams{ExecutionID: "bystander", Timeout: 300})
			synctest.Wait()
			h.runner.tree("bystander").run()
			synctest.Wait()
			mu.Lock()
			armed = true
			mu.Unlock()
			c := scenario(h)
			mu.Lock()
			armed = false
			mu.Unlock()
			if at < 0 {
				total = n
			}
			checkAfterPanic(t, h, c, bystander, what)
			h.stop(t, bystander)
		})
	}
	if total < 30 {
		t.Errorf("the scenario has only %d messages", total)
	}
}

func checkAfterPanic(t *testing.T, h *harness, c, bystander *testClient, what string) {
	t.Helper()
	if _, ended := c.hasEnded(); !ended {
		t.Errorf("%s: the client was not told", what)
	}
	for range 20 { // resume window, grace and linger, without the bystander's stream timeout
		time.Sleep(20 * time.Second)
		go h.runner.tree("bystander").print(".\n")
	}
	synctest.Wait()
	if tree := h.runner.tree("x"); tree != nil && tree.started && !closed(tree.dead) {
		t.Errorf("%s: its tree is alive", what)
	}
	if s := h.Stats(); s.Sessions != 1 || s.Executions != 1 {
		t.Errorf("%s: %+v, want the bystander's session only", what, s)
	}
	bystander.control("2", wire.ControlPause, "bystander")
	synctest.Wait()
	if r := bystander.reply("2"); r == nil || r.err != nil {
		t.Errorf("%s: the bystander's session answers %+v", what, r)
	}
}

func TestDrainLetsCommandsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		short, long := connect(h.Engine, ConnectRequest{}), connect(h.Engine, ConnectRequest{})
		idle := connect(h.Engine, ConnectRequest{})
		short.execute("1", wire.ExecuteParams{ExecutionID: "short"})
		long.execute("1", wire.ExecuteParams{ExecutionID: "long"})
		synctest.Wait()
		drained := make(chan struct{})
		began := time.Now()
		go func() {
			h.Drain(nil)
			close(drained)
		}()
		synctest.Wait()
		if cause, ended := idle.hasEnded(); !ended || cause != wire.CauseDraining || find[wire.Draining](idle) == nil {
			t.Errorf("idle client: ended %v, %s", ended, cause)
		}
		late := connect(h.Engine, ConnectRequest{})
		short.execute("2", wire.ExecuteParams{})
		synctest.Wait()
		if r := late.reply("null"); r == nil || r.err.Code != wire.CodeDraining {
			t.Errorf("new session while draining: %+v", r)
		}
		if r := short.reply("2"); r == nil || r.err == nil || r.err.Code != wire.CodeDraining {
			t.Errorf("new command while draining: %+v", r)
		}
		time.Sleep(100 * time.Second)
		h.runner.tree("long").print("alive\n") // not silent for the stream timeout
		h.runner.tree("short").print("done\n")
		h.runner.tree("short").exit(0)
		synctest.Wait()
		if done := find[wire.Completed](short); done == nil || done.Reason != wire.ReasonExited ||
			short.text("short") != "done\n" {
			t.Errorf("short command: %+v", done)
		}
		<-drained
		if d := time.Since(began); d < 300*time.Second || d > 315*time.Second {
			t.Errorf("drained after %v", d)
		}
		synctest.Wait()
		if done := find[wire.Completed](long); done == nil || done.Reason != wire.ReasonDrain {
			t.Errorf("long command: %+v", done)
		}
		h.stop(t, late)
	})
}

func TestCloseKillsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		stop := make(chan struct{})
		close(stop)
		h.Drain(stop) // the second SIGTERM
		began := time.Now()
		h.stop(t, c)
		if d := time.Since(began); d > time.Second {
			t.Errorf("took %v", d)
		}
		if !h.runner.tree("x").saw("kill") {
			t.Error("not killed")
		}
	})
}
