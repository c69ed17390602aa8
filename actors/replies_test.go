package actors

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// gate holds one actor at one message until it is opened.
type gate struct {
	kind  string
	at    func(any) bool
	open  chan struct{}
	armed chan struct{} // holds one: the gate closes once
}

func newGate(kind string, at func(any) bool) *gate {
	return &gate{kind: kind, at: at, open: make(chan struct{}), armed: make(chan struct{}, 1)}
}

func (g *gate) arm() { g.armed <- struct{}{} }

func (g *gate) probe(kind string, msg any) {
	if kind != g.kind || !g.at(msg) {
		return
	}
	select {
	case <-g.armed:
		<-g.open
	default:
	}
}

func is[T any](msg any) bool { _, ok := msg.(T); return ok }

// TestRequestBesideTheEndIsAnswered: protoactor's Stop overtakes user messages,
// and what a stopped actor still has in its mailbox is gone without a trace.
func TestRequestBesideTheEndIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atRequest := newGate("session", is[request])
		atTimer := newGate("process", is[graceOver])
		h := newHarness(t, newFakeRunner(running), nil, func(kind string, msg any) {
			atRequest.probe(kind, msg)
			atTimer.probe(kind, msg)
		})
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		process := h.system.NewLocalPID("manager/" + find[wire.Connected](c).SessionID + "/x")

		atRequest.arm()
		c.control("2", wire.ControlCancel, "x")
		synctest.Wait()
		h.runner.tree("x").exit(0) // the end is in the session's mailbox, behind the request
		synctest.Wait()
		atTimer.arm()
		h.system.Root.Send(process, graceOver{})
		synctest.Wait()
		close(atRequest.open)
		synctest.Wait()
		close(atTimer.open)
		synctest.Wait()
		checkControl(t, c.reply("2"), "canceled")
		h.stop(t, c)
	})
}

// TestResumeBesideTheEndIsAnswered: the client comes back at the very moment at
// which the resume window ends.
func TestResumeBesideTheEndIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atEnd := newGate("session", is[resumeWindowOver])
		h := newHarness(t, newFakeRunner(running), nil, atEnd.probe)
		c := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		hello := find[wire.Connected](c)
		atEnd.arm()
		c.hangUp(wire.CauseClientGone)
		time.Sleep(301 * time.Second)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
		back.conn.Request(wire.ID("s"), &wire.StatusParams{})
		synctest.Wait()
		close(atEnd.open)
		synctest.Wait()
		if r := back.reply("r"); r == nil || r.err == nil || r.err.Code != wire.CodeNoSession {
			t.Errorf("resume: %+v", r)
		}
		if cause, ended := back.hasEnded(); !ended || cause != wire.CauseNoSession {
			t.Errorf("closed %v with %s", ended, cause)
		}
		h.stop(t, back)
	})
}

func TestRequestsBehindARefusedResumeAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		hello := find[wire.Connected](c)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		resume := func(id string, after int64) {
			back.conn.Request(wire.ID(id),
				&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": after}})
		}
		resume("1", 99)
		back.conn.Request(wire.ID("2"), &wire.StatusParams{})
		resume("3", 99)
		back.conn.Request(wire.ID("4"), &wire.StatusParams{})
		resume("5", 0)
		back.conn.Request(wire.ID("6"), &wire.StatusParams{})
		synctest.Wait()
		var got []string
		for _, s := range back.all() {
			if s.id != nil {
				code := wire.Code(0)
				if s.err != nil {
					code = s.err.Code
				}
				got = append(got, fmt.Sprintf("%s:%d", s.id, code))
			}
		}
		if want := "[1:-32602 2:-32600 3:-32602 4:-32600 5:0 6:0]"; fmt.Sprint(got) != want {
			t.Errorf("answers %v, want %s", got, want)
		}
		h.stop(t, c, back)
	})
}

func TestPanicOfAProcessAnswersWhoWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(nil), nil, func(kind string, msg any) {
			if is[signalExecution](msg) && kind == "process" {
				panic("injected")
			}
		})
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.manual = true
		tree.run()
		c.control("2", wire.ControlPause, "x") // the tree does not come to stand still
		synctest.Wait()
		c.conn.Request(wire.ID("3"), &wire.SignalParams{ExecutionID: "x", Signal: "HUP"})
		synctest.Wait()
		for _, id := range []string{"2", "3"} {
			if r := c.reply(id); r == nil || r.err == nil || r.err.Code != wire.CodeInternal {
				t.Errorf("request %s: %+v", id, r)
			}
		}
		h.stop(t, c)
	})
}

// TestNewcomersOfOneSessionAreAllAnswered: two were promised the place of a
// session whose client came back.
func TestNewcomersOfOneSessionAreAllAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atAttach := newGate("session", is[attach])
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.MaxSessions = 1 }, atAttach.probe)
		c := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		hello := find[wire.Connected](c)
		c.hangUp(wire.CauseClientGone)
		synctest.Wait()
		atAttach.arm()
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
		synctest.Wait()
		a := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		// As if it had come, gone and come again meanwhile.
		h.system.Root.Send(h.manager, sessionEvictable{session: hello.SessionID, since: time.Now()})
		synctest.Wait()
		b := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		close(atAttach.open)
		synctest.Wait()
		for name, c := range map[string]*testClient{"first": a, "second": b} {
			if r := c.reply("null"); r == nil || r.err.Code != wire.CodeSessionLimit {
				t.Errorf("%s newcomer: %+v", name, r)
			}
		}
		h.stop(t, a, b, back)
	})
}

// TestStoppingManagerOpensNothing: an actor that is stopping still gets user
// messages, and a child that it spawns then keeps it from stopping.
func TestStoppingManagerOpensNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *harness
		var late *testClient
		came := make(chan struct{})
		h = newHarness(t, newFakeRunner(running), nil, func(kind string, msg any) {
			if kind == "session" && is[*actor.Stopping](msg) {
				late = connect(h.Engine, ConnectRequest{})
				time.Sleep(moment)
				close(came)
			}
		})
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		c.Disconnect(wire.CauseDraining)
		go func() {
			<-came
			time.Sleep(100 * time.Millisecond)
			late.hangUp(wire.CauseClientGone)
		}()
		began := time.Now()
		h.stop(t)
		if d := time.Since(began); d > time.Second {
			t.Errorf("closing took %v", d)
		}
		if find[wire.Connected](late) != nil {
			t.Error("a session was opened")
		}
	})
}

// TestFailedProcessLeavesNoReader: something outside of the tree holds its pipes.
func TestFailedProcessLeavesNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, func(kind string, msg any) {
			if is[controlExecution](msg) && kind == "process" {
				panic("injected")
			}
		})
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.held = true
		c.control("2", wire.ControlPause, "x")
		synctest.Wait()
		if done := find[wire.Completed](c); done == nil || done.Reason != wire.ReasonInternal {
			t.Errorf("completed: %+v", done)
		}
		h.stop(t, c)
		tree.mu.Lock()
		defer tree.mu.Unlock()
		if _, err := tree.stdout.Write([]byte("x")); err == nil {
			t.Error("somebody still reads the pipe")
		}
	})
}
