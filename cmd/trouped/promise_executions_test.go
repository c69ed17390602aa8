package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestPromise11SameExecutionIDRunsOnce: sent twice on one connection without waiting,
// once more on another, and once more when it has ended.
func TestPromise11SameExecutionIDRunsOnce(t *testing.T) {
	s := launch(t)
	c, greeting := session(t, s, "/ws")
	effects := filepath.Join(t.TempDir(), "effects")
	params := wire.ExecuteParams{ExecutionID: "once", Command: "echo x >>" + effects + "; echo hello; exit 9"}
	first, second := c.request(wire.MethodExecute, params), c.request(wire.MethodExecute, params)
	other := open(t, s, "/ws?session="+greeting.SessionID)
	if err := other.call(wire.MethodResume, map[string]any{
		"resume_token": greeting.ResumeToken,
		"executions":   map[string]int64{},
	}, nil); err != nil {
		t.Fatal(err)
	}
	third := other.request(wire.MethodExecute, params)
	pid, started := 0, 0 // who has started it depends on which connection the server has read first
	for i, m := range []wire.Message{c.answer(first), c.answer(second), other.answer(third)} {
		result := decoded[wire.ExecuteResult](t, m)
		if i == 0 {
			pid = result.PID
		}
		if !result.Attached {
			started++
		}
		if result.ExecutionID != "once" || i == 1 && !result.Attached || result.PID != pid || pid == 0 {
			t.Errorf("answer %d: %+v", i, result)
		}
	}
	if started != 1 {
		t.Errorf("%d answers say that they have started it", started)
	}
	for _, reader := range []*socket{c, other} {
		if r := reader.collect("once"); r.text(wire.Stdout) != "hello\n" || r.done.ExitCode != 9 {
			t.Errorf("%q, %+v", r.text(wire.Stdout), r.done)
		}
	}
	if result := decoded[wire.ExecuteResult](t, other.answer(other.request(wire.MethodExecute,
		params))); !result.Attached {
		t.Errorf("after its end: %+v", result)
	}
	if text, err := os.ReadFile(effects); err != nil || string(text) != "x\n" {
		t.Errorf("it ran %d times, %v", len(text)/2, err)
	}
}

// TestPromise12EightExecutionsAtATime: the ninth execution gets -32005 and the reason. The output
// that eight executions print at the same time stays apart and in order.
func TestPromise12EightExecutionsAtATime(t *testing.T) {
	s := launch(t)
	c, _ := session(t, s, "/ws")
	gate := filepath.Join(t.TempDir(), "gate")
	const lines = 2000
	for i := range 8 {
		c.start(wire.ExecuteParams{
			ExecutionID: fmt.Sprint("x", i),
			Argv: []string{"/bin/bash", "-c", fmt.Sprintf(`until [ -e %s ]; do sleep 0.01; done
				for i in {1..%d}; do echo "%d out $i"; echo "%d err $i" >&2; done; exit %d`, gate, lines, i, i, i)},
		})
	}
	m := c.answer(c.request(wire.MethodExecute, wire.ExecuteParams{Command: "true"}))
	if err := m.Err; err == nil || err.Code != wire.CodeExecutionLimit || err.Data == nil ||
		err.Data.Limit != "max-executions" || err.Data.Value != 8 {
		t.Errorf("the ninth: %+v", m)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	text := map[string]*strings.Builder{}
	offset := map[string]int64{}
	for done := 0; done < 8; {
		m := c.next()
		switch m.Method {
		case wire.MethodOutput:
			o := m.Output
			if o.Gap != 0 || o.Offset != offset[o.ExecutionID]+int64(len(o.Data)) {
				t.Fatalf("a piece of %d bytes of %s ends at %d after %d", len(o.Data), o.ExecutionID, o.Offset,
					offset[o.ExecutionID])
			}
			offset[o.ExecutionID] = o.Offset
			if text[o.ExecutionID+o.Type] == nil {
				text[o.ExecutionID+o.Type] = new(strings.Builder)
			}
			text[o.ExecutionID+o.Type].WriteString(o.Data)
		case wire.MethodCompleted:
			done++
			end := decoded[wire.Completed](t, m)
			if fmt.Sprint("x", end.ExitCode) != end.ExecutionID || end.OutputBytes != offset[end.ExecutionID] {
				t.Errorf("%+v after %d bytes", end, offset[end.ExecutionID])
			}
		}
	}
	for i := range 8 {
		for stream, word := range map[string]string{wire.Stdout: "out", wire.Stderr: "err"} {
			var want strings.Builder
			for n := 1; n <= lines; n++ {
				fmt.Fprintf(&want, "%d %s %d\n", i, word, n)
			}
			if got := text[fmt.Sprint("x", i, stream)]; got == nil || got.String() != want.String() {
				t.Errorf("%s of execution %d is not what it printed", stream, i)
			}
		}
	}
	// One has ended, so there is room for one.
	if r := c.run(wire.ExecuteParams{Command: "exit 4"}); r.done.ExitCode != 4 {
		t.Errorf("%+v", r.done)
	}
}

// TestPromise13CCExecutorClientWorksUnchanged: a client that knows nothing but what
// cc-executor's do.
func TestPromise13CCExecutorClientWorksUnchanged(t *testing.T) {
	s := launch(t, "--resume-window", "1h", "--cancel-grace", "200ms")
	c := open(t, s, "/ws/mcp")
	// ask sends a frame as that client does, and reads until done says so.
	type message struct {
		ID     any            `json:"id"`
		Method string         `json:"method"`
		Params map[string]any `json:"params"`
		Result map[string]any `json:"result"`
	}
	output := ""
	read := func() (m message) {
		t.Helper()
		raw, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		m = decodedJSON[message](t, raw)
		if m.Method == "process.output" {
			output += m.Params["data"].(string)
		}
		return m
	}
	answer := func(id float64) message {
		t.Helper()
		for {
			if m := read(); m.ID == id {
				return m
			}
		}
	}
	completion := func() message {
		t.Helper()
		for {
			if m := read(); m.Method == "process.completed" {
				return m
			}
		}
	}
	if m := read(); m.Method != "connected" || m.Params["session_id"] == "" || m.Params["version"] == "" {
		t.Errorf("greeting %+v", m)
	}

	c.send(`{"jsonrpc":"2.0","method":"execute","params":{"command":"echo one; echo two >&2; exit 3"},"id":1}`)
	if m := answer(1); m.Result["status"] != "started" || m.Result["pid"].(float64) <= 1 ||
		m.Result["pgid"] != m.Result["pid"] {
		t.Errorf("answer %+v", m)
	}
	if m := completion(); m.Params["status"] != "failed" || m.Params["exit_code"] != 3.0 || len(output) != 8 ||
		!strings.Contains(output, "one\n") || !strings.Contains(output, "two\n") {
		t.Errorf("%+v, output %q", m, output)
	}
	output = ""
	c.send(`{"jsonrpc":"2.0","method":"execute","params":{"command":"echo hello"},"id":2}`)
	if m := completion(); m.Params["status"] != "completed" || m.Params["exit_code"] != 0.0 || output != "hello\n" {
		t.Errorf("%+v, output %q", m, output)
	}

	// Control without saying of what: it can only be the one that runs.
	m := newTrace(t)
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"execute","params":{"command":%q},"id":3}`,
		"while :; do "+m.sleep+" 0.1; done"))
	answer(3)
	for i, kind := range []string{"PAUSE", "RESUME", "CANCEL"} {
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"control","params":{"type":%q},"id":%d}`, kind, 4+i))
		if m := answer(float64(4 + i)); m.Result["status"] != []string{"paused", "resumed", "canceled"}[i] {
			t.Errorf("%s is answered with %+v", kind, m)
		}
	}
	if m := completion(); m.Params["exit_code"] != -15.0 {
		t.Errorf("%+v", m)
	}
	m.none()

	// Such a client cannot come back, so nothing waits for it.
	c.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"execute","params":{"command":%q},"id":7}`, m.sleep+" 1000"))
	answer(7)
	c.cut()
	m.gone()
	s.awaitActive(0)
}
