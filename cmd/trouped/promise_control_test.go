package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// control sends a control request and returns the status it is answered with, or the code of its
// error.
func (c *socket) control(kind, id string) string {
	c.t.Helper()
	return controlAnswer(c.t, c.answer(c.request(wire.MethodControl, wire.ControlParams{Type: kind, ExecutionID: id})))
}

func controlAnswer(t *testing.T, m wire.Message) string {
	t.Helper()
	if m.Err != nil {
		return fmt.Sprint(int(m.Err.Code))
	}
	var result wire.ControlResult
	if err := json.Unmarshal(m.Result, &result); err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// state asks for the state of an execution.
func (c *socket) state(id string) wire.State {
	c.t.Helper()
	var status wire.StatusResult
	if err := c.call(wire.MethodStatus, struct{}{}, &status); err != nil {
		c.t.Fatal(err)
	}
	return status.Executions[id].State
}

// TestPromise06ControlInEveryState: the same requests in every state that an
// execution has, each of them twice, with real processes behind.
func TestPromise06ControlInEveryState(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := launchWith(t, fixed{SurvivorGrace: time.Minute}.with(t), "--cancel-grace", "2s")
	c, _ := session(t, s, "/ws")
	const noProcess, badParams = "-32003", "-32602"
	type step struct{ kind, want string }
	check := func(state wire.State, id string, steps ...step) {
		t.Helper()
		for _, step := range steps {
			for range 2 {
				if got := c.control(step.kind, id); got != step.want {
					t.Errorf("%s of %q in state %s: %s, want %s", step.kind, id, state, got, step.want)
				}
			}
		}
	}
	inState := func(id string, want wire.State) {
		t.Helper()
		if got := c.state(id); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}

	check("unknown", "nobody", step{"PAUSE", noProcess}, step{"RESUME", noProcess}, step{"CANCEL", noProcess})
	check("nothing running", "", step{"PAUSE", noProcess}, step{"RESUME", noProcess}, step{"CANCEL", noProcess})

	m := newTrace(t)
	c.start(wire.ExecuteParams{ExecutionID: "x", Argv: m.argv(stubborn)})
	c.said("x", "ready\n")
	m.await(4)
	for _, id := range []string{"x", ""} { // the only one needs no name
		check(wire.StateRunning, id, step{"RESUME", "resumed"}, step{"PAUSE", "paused"}, step{"STOP", badParams})
		inState("x", wire.StatePaused)
		for _, p := range m.found() {
			if !strings.Contains(p, ") T") {
				t.Errorf("paused, but %s", p)
			}
		}
		check(wire.StatePaused, id, step{"PAUSE", "paused"}, step{"RESUME", "resumed"}, step{"pause", badParams},
			step{"", badParams})
		inState("x", wire.StateRunning)
	}

	other := newTrace(t)
	c.start(wire.ExecuteParams{ExecutionID: "drains", Argv: other.argv(`SLEEP 1000 & echo ready; exit 3`)})
	eventually(t, func() error {
		if state := c.state("drains"); state != wire.StateExiting {
			return fmt.Errorf("state %s", state)
		}
		return nil
	})
	check("two running", "", step{"PAUSE", badParams}, step{"RESUME", badParams}, step{"CANCEL", badParams})
	inState("x", wire.StateRunning)
	check(wire.StateExiting, "drains", step{"PAUSE", noProcess}, step{"RESUME", noProcess})
	if got := c.control("CANCEL", "drains"); got != "canceled" {
		t.Errorf("CANCEL of what drains: %s", got)
	}
	if done := c.collectEnd("drains"); done.ExitCode != 3 || done.Reason != wire.ReasonExited {
		t.Errorf("cancelled while it drained: %+v", done)
	}
	other.none()
	check(wire.StateExited, "drains", step{"PAUSE", noProcess}, step{"RESUME", noProcess}, step{"CANCEL", "canceled"})

	// Cancelled while paused: it ignores SIGTERM, so it is being cancelled for a while.
	check(wire.StateRunning, "x", step{"PAUSE", "paused"}, step{"CANCEL", "canceled"}, step{"PAUSE", noProcess},
		step{"RESUME", noProcess}, step{"CANCEL", "canceled"})
	if done := c.collectEnd("x"); done.Reason != wire.ReasonCanceled {
		t.Errorf("%+v", done)
	}
	m.none()
	inState("x", wire.StateExited)
}

// TestPromise06ControlBeforeTheStart: with a runner that is not there yet, commands
// wait for it, and can be paused and cancelled while they do.
func TestPromise06ControlBeforeTheStart(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "runner.sock")
	s := launch(t, "--runner", "unix://"+sock)
	c, _ := session(t, s, "/ws")
	first := c.request(wire.MethodExecute, wire.ExecuteParams{ExecutionID: "first", Command: "echo never"})
	second := c.request(wire.MethodExecute, wire.ExecuteParams{ExecutionID: "second", Command: "echo later; sleep 1000"})
	if state := c.state("first"); state != wire.StateStarting {
		t.Fatalf("state %s", state)
	}
	for _, step := range []struct{ kind, id, want string }{
		{"RESUME", "first", "resumed"},
		{"CANCEL", "first", "canceled"},
		{"CANCEL", "first", "canceled"},
		{"RESUME", "second", "resumed"},
	} {
		if got := c.control(step.kind, step.id); got != step.want {
			t.Errorf("%s of %s before its start: %s, want %s", step.kind, step.id, got, step.want)
		}
	}
	if m := c.answer(first); m.Err == nil {
		t.Errorf("what was cancelled before its start is answered with %s", m.Result)
	}
	pause := c.request(wire.MethodControl, wire.ControlParams{Type: "PAUSE", ExecutionID: "second"})
	startRunner(t, sock, nil)
	if m := c.answer(second); m.Err != nil {
		t.Fatal(m.Err)
	}
	if got := controlAnswer(t, c.answer(pause)); got != "paused" {
		t.Errorf("PAUSE before the start: %s", got)
	}
	if got := c.control("RESUME", "second"); got != "resumed" {
		t.Errorf("RESUME: %s", got)
	}
	c.said("second", "later\n")
	if got := c.control("CANCEL", "second"); got != "canceled" {
		t.Errorf("CANCEL: %s", got)
	}
	if done := c.collectEnd("second"); done.Reason != wire.ReasonCanceled {
		t.Errorf("%+v", done)
	}
}

// startRunner starts a runner that dials in, as the first process of another container does.
func startRunner(t *testing.T, sock string, prepare func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	binary, err := runnerBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "--connect", sock)
	cmd.Stderr = os.Stderr
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // with the server it ends by itself
		_ = cmd.Wait()
	})
	return cmd
}

// TestPromise06FramesThatNoClientShouldSend: each is answered with the code that fits,
// or not at all, and the connection and what runs on it go on.
func TestPromise06FramesThatNoClientShouldSend(t *testing.T) {
	s := launch(t)
	c, _ := session(t, s, "/ws")
	c.start(wire.ExecuteParams{ExecutionID: "x", Command: "echo ready; exec sleep 1000"})
	c.said("x", "ready\n")
	for _, f := range []struct {
		frame string
		id    string
		code  wire.Code
	}{
		{`{`, "null", wire.CodeParse},
		{``, "null", wire.CodeParse},
		{"\xff\xfe", "null", wire.CodeParse},
		{`{"jsonrpc":"2.0","id":1,"method":"status"} trailing`, "null", wire.CodeParse},
		{strings.Repeat("[", 100000), "null", wire.CodeParse},
		{`null`, "null", wire.CodeInvalidRequest},
		{`7`, "null", wire.CodeInvalidRequest},
		{`{}`, "null", wire.CodeInvalidRequest},
		{`{"jsonrpc":"1.0","id":"a","method":"status"}`, `"a"`, wire.CodeInvalidRequest},
		{`{"jsonrpc":"2.0","id":"a","method":5}`, `"a"`, wire.CodeInvalidRequest},
		{`{"jsonrpc":"2.0","id":{},"method":"status"}`, "null", wire.CodeInvalidRequest},
		{`[{"jsonrpc":"2.0","id":1,"method":"close"}]`, "null", wire.CodeInvalidRequest},
		{`[]`, "null", wire.CodeInvalidRequest},
		{`{"jsonrpc":"2.0","id":1.5,"method":"hook_status"}`, "1.5", wire.CodeMethodNotFound},
		{`{"jsonrpc":"2.0","id":"b","method":"Execute","params":{"command":"true"}}`, `"b"`, wire.CodeMethodNotFound},
		{`{"jsonrpc":"2.0","id":2,"method":"execute","params":{"command":7}}`, "2", wire.CodeInvalidParams},
		{`{"jsonrpc":"2.0","id":2,"method":"execute","params":["true"]}`, "2", wire.CodeInvalidParams},
		{`{"jsonrpc":"2.0","id":2,"method":"execute"}`, "2", wire.CodeInvalidParams},
		{
			`{"jsonrpc":"2.0","id":2,"method":"execute","params":{"command":"true","timeout":"soon"}}`, "2",
			wire.CodeInvalidParams,
		},
		{
			`{"jsonrpc":"2.0","id":2,"method":"execute","params":{"command":"true","execution_id":"../x"}}`, "2",
			wire.CodeInvalidParams,
		},
		{`{"jsonrpc":"2.0","id":2,"method":"control","params":{"type":9}}`, "2", wire.CodeInvalidParams},
		{
			`{"jsonrpc":"2.0","id":2,"method":"control","params":{"type":"STOP","execution_id":"x"}}`, "2",
			wire.CodeInvalidParams,
		},
		{
			`{"jsonrpc":"2.0","id":2,"method":"signal","params":{"execution_id":"x","signal":"NOPE"}}`, "2",
			wire.CodeInvalidParams,
		},
		{`{"jsonrpc":"2.0","id":2,"method":"resume","params":{"resume_token":[]}}`, "2", wire.CodeInvalidParams},
	} {
		c.send(f.frame)
		if m := c.next(); string(m.ID) != f.id || m.Err == nil || m.Err.Code != f.code {
			t.Errorf("%.80s is answered with %s %+v %s, want %s and %d", f.frame, m.ID, m.Err, m.Method, f.id, f.code)
		}
	}
	c.frame(opBinary, []byte(`{"jsonrpc":"2.0","id":1,"method":"close"}`))
	if m := c.next(); m.Err == nil || m.Err.Code != wire.CodeInvalidRequest {
		t.Errorf("a binary frame is answered with %+v", m)
	}
	// Notifications are carried out and not answered, not even with an error.
	for _, frame := range []string{
		`{"jsonrpc":"2.0","method":"nonsense"}`, `{"jsonrpc":"2.0","method":"execute","params":{"command":7}}`,
		`{"jsonrpc":"2.0","method":"pong"}`,
		`{"jsonrpc":"2.0","method":"control","params":{"type":"PAUSE","execution_id":"x"}}`,
	} {
		c.send(frame)
	}
	var paused wire.ControlEvent
	if m := c.next(); m.Method != wire.MethodPaused {
		t.Errorf("a notification is answered with %+v", m)
	} else if err := json.Unmarshal(m.Params, &paused); err != nil || paused.ExecutionID != "x" {
		t.Errorf("%s, %v", m.Params, err)
	}
	if state := c.state("x"); state != wire.StatePaused {
		t.Errorf("state %s", state)
	}
}

// TestPromise06BigFrameEndsTheConnectionOnly: a frame of 2 MiB is refused with 1009,
// and the session is there for the next connection.
func TestPromise06BigFrameEndsTheConnectionOnly(t *testing.T) {
	s := launch(t)
	c, greeting := session(t, s, "/ws")
	c.start(wire.ExecuteParams{ExecutionID: "x", Command: "echo ready; exec sleep 1000"})
	c.said("x", "ready\n")
	_ = c.write(opText, []byte(`{"jsonrpc":"2.0","id":1,"method":"`+strings.Repeat("x",
		2<<20)+`"}`)) // it may be cut off in the middle
	if end := c.end(); end.code != 1009 {
		t.Error(end)
	}
	resumed(t, s, greeting)
}

// resumed attaches to a session in which x runs, and finds it running and its output there.
func resumed(t *testing.T, s *instance, greeting wire.Connected) {
	t.Helper()
	c := open(t, s, "/ws?session="+greeting.SessionID)
	var result wire.ResumeResult
	if err := c.call(wire.MethodResume, wire.ResumeParams{ResumeToken: greeting.ResumeToken}, &result); err != nil {
		t.Fatal(err)
	}
	if state := result.Executions["x"].State; state != wire.StateRunning {
		t.Errorf("state %s", state)
	}
	c.said("x", "ready\n")
	c.done()
	c.end()
}

// TestPromise06HalfOpenSocket: a client that is there for TCP only, and one that
// sends half a frame and stops, lose their connection and keep their session.
func TestPromise06HalfOpenSocket(t *testing.T) {
	s := launch(t, "--ping-interval", "500ms")
	for _, last := range []string{"", "\x81\xfe\x10"} {
		c, greeting := session(t, s, "/ws")
		c.start(wire.ExecuteParams{ExecutionID: "x", Command: "echo ready; exec sleep 1000"})
		c.said("x", "ready\n")
		if _, err := c.conn.Write([]byte(last)); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { // without a single read
			if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics, "\ntroupe_connections 0\n") {
				return fmt.Errorf("the connection is open still")
			}
			return nil
		})
		resumed(t, s, greeting)
	}
	if _, metrics := s.get(s.admin + "/metrics"); !strings.Contains(metrics,
		"\n"+`troupe_connections_closed_total{cause="ping_timeout"} 2`+"\n") {
		t.Error("/metrics does not tell of two ping timeouts")
	}
	if resp, err := http.Get(s.http + "/ws"); err != nil || resp.Body.Close() != nil ||
		resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("/ws without a WebSocket: %v, %v", resp, err)
	}
}
