package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// answerAll answers every request at once with {}.
func answerAll(c *fakeConn, r fakeRequest) { c.client.Reply(r.id, struct{}{}, nil) }

// A client may send its first request before it has read the handshake's answer.
func TestRequestInTheHandshakesPacket(t *testing.T) {
	f := start(t, nil)
	const text = `{"jsonrpc":"2.0","id":1,"method":"status"}`
	f.rawClient(t, string([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0})+text)
	if r := f.accepted(t).next(t); len(r.id) == 0 {
		t.Errorf("got %+v", r)
	}
}

// One bad frame must cost the client an error, not its connection and session.
func TestBadFramesAreAnsweredAndTheConnectionGoesOn(t *testing.T) {
	f := start(t, nil)
	f.engine.handle = answerAll
	c, _ := f.connect(t)
	for _, bad := range []struct {
		frame string
		id    string
		code  wire.Code
	}{
		{`{"jsonrpc":`, "null", wire.CodeParse},
		{``, "null", wire.CodeParse},
		{`[{"jsonrpc":"2.0","id":1,"method":"status"}]`, "null", wire.CodeInvalidRequest},
		{`{"jsonrpc":"2.0","id":{},"method":"status"}`, "null", wire.CodeInvalidRequest},
		{`{"id":5,"method":"status"}`, "5", wire.CodeInvalidRequest},
		{`{"jsonrpc":"2.0","id":"x","method":"hook_status"}`, `"x"`, wire.CodeMethodNotFound},
		{`{"jsonrpc":"2.0","id":7,"method":"execute","params":{"command":5}}`, "7", wire.CodeInvalidParams},
		{`{"jsonrpc":"2.0","id":8,"method":"execute","params":["ls"]}`, "8", wire.CodeInvalidParams},
	} {
		c.send(bad.frame)
		m := c.recv()
		if m.Err == nil || m.Err.Code != bad.code || string(m.ID) != bad.id {
			t.Errorf("%s: got id %s, error %v, want id %s, code %d", bad.frame, m.ID, m.Err, bad.id, bad.code)
		}
	}
	if err := c.ws.Write(context.Background(), websocket.MessageBinary,
		[]byte(`{"jsonrpc":"2.0","id":1,"method":"status"}`)); err != nil {
		t.Fatal(err)
	}
	if m := c.recv(); m.Err == nil || m.Err.Code != wire.CodeInvalidRequest ||
		!strings.Contains(m.Err.Message, "send text frames") {
		t.Errorf("a binary frame: %v", m.Err)
	}
	c.send(`{"jsonrpc":"2.0","id":9,"method":"status"}`)
	c.want(`{"jsonrpc":"2.0","id":9,"result":{}}`)
}

func TestIDsReturnAsSentAndNotificationsAreNotAnswered(t *testing.T) {
	f := start(t, nil)
	f.engine.handle = func(c *fakeConn, r fakeRequest) {
		if len(r.id) == 0 {
			t.Error("a request without id reached the engine: its load would be unbounded")
		}
		answerAll(c, r)
	}
	c, _ := f.connect(t)
	c.send(`{"jsonrpc":"2.0","method":"status"}`)
	c.send(`{"jsonrpc":"2.0","method":"no such method"}`)
	c.send(`{"jsonrpc":"2.0","method":"control","params":{"type":"X"}}`)
	c.send(`{"jsonrpc":"2.0","method":"pong","params":{}}`)
	for _, id := range []string{`1`, `1.50`, `"a\u0041"`, `null`, `-0`, `1`} {
		c.send(`{"jsonrpc":"2.0","id":` + id + `,"method":"status"}`)
		c.want(`{"jsonrpc":"2.0","id":` + id + `,"result":{}}`)
	}
	c.send(`{"jsonrpc":"2.0","id":2,"method":"pong"}`)
	c.want(`{"jsonrpc":"2.0","id":2,"result":{}}`)
}

func TestRequestsArriveInOrderWithTheirParams(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	for i := range MaxInFlight {
		c.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":"echo %d"}}`, i))
	}
	var ids []wire.ID
	for i := range MaxInFlight {
		r := e.next(t)
		if p, ok := r.params.(*wire.ExecuteParams); !ok || p.Command != fmt.Sprintf("echo %d", i) {
			t.Fatalf("request %d: %+v", i, r.params)
		}
		ids = append(ids, r.id)
	}
	// The client used one id for all; each still gets its own answer.
	for i, id := range ids {
		e.client.Reply(id, &wire.ExecuteResult{Status: "started", PID: i}, nil)
	}
	for i := range ids {
		if m := c.recv(); !strings.Contains(string(m.Result), fmt.Sprintf(`"pid":%d,`, i)) {
			t.Fatalf("answer %d: %s", i, m.Result)
		}
	}
}

// The messages of an execution come in the order that the README of the protocol promises: answer,
// started, output, completed.
func TestOrderOfAnExecution(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	for i := range 50 {
		id := fmt.Sprintf("x%d", i)
		c.send(`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":"true"}}`)
		r := e.next(t)
		out := outs.create(id)
		e.client.Reply(r.id, &wire.ExecuteResult{Status: "started", ExecutionID: id}, nil)
		e.client.Notify(wire.MethodStarted, &wire.Started{ExecutionID: id, Status: "started"})
		e.client.Follow(out.feed(0))
		out.write("one\n")
		if i%2 == 0 {
			out.write("two\n")
		}
		out.complete()
		if m := c.recv(); string(m.ID) != "1" || m.Result == nil {
			t.Fatalf("first message: %+v", m)
		}
		if m := c.recv(); m.Method != wire.MethodStarted {
			t.Fatalf("second message: %+v", m)
		}
		text := ""
		m := c.recv()
		for ; m.Output != nil; m = c.recv() {
			text += m.Output.Data
		}
		if m.Method != wire.MethodCompleted || !strings.HasPrefix(text, "one\n") || len(text) != int(out.End()) {
			t.Fatalf("output %q, then %s", text, m.Method)
		}
	}
}

func TestGapsMarksAndStreamsKeepTheirPlace(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	warning := &wire.Warning{ExecutionID: "x", Code: wire.WarnOutputLimit, Message: "m", Offset: 8}
	s := &script{pieces: []transcript.Piece{
		{Data: []byte("a\n")},
		{Data: []byte("b\n")},                            // joins
		{Stream: transcript.Stderr, Data: []byte("e\n")}, // another stream
		{Data: []byte("c\n")},
		{Mark: warning},
		{Gap: 100},
		{Data: []byte("d\n")},
		{Data: []byte("x[TRUNCATED]\n"), Truncated: true},
		{Data: []byte("f\n")},
		pause, // what follows comes while the piece before is sent
		{Gap: 7},
		{Mark: &wire.Completed{ExecutionID: "x", Status: wire.StatusFailed, Reason: wire.ReasonExited}},
	}}
	e.client.Follow(s.feed("x"))
	out := func(typ, data string, truncated bool, offset, gap int64) {
		t.Helper()
		m := c.recv()
		want := wire.Output{ExecutionID: "x", Type: typ, Data: data, Truncated: truncated, Offset: offset, Gap: gap}
		if m.Output == nil || *m.Output != want {
			t.Fatalf("got %+v %+v, want %+v", m, m.Output, want)
		}
	}
	out("stdout", "a\nb\n", false, 4, 0)
	out("stderr", "e\n", false, 6, 0)
	out("stdout", "c\n", false, 8, 0)
	if m := c.recv(); m.Method != wire.MethodWarning {
		t.Fatalf("got %+v, want the warning", m)
	}
	out("stdout", "d\n", false, 110, 100)
	out("stdout", "x[TRUNCATED]\n", true, 123, 0)
	out("stdout", "f\n", false, 125, 0)
	out("stdout", "", false, 132, 7)
	if m := c.recv(); m.Method != wire.MethodCompleted {
		t.Fatalf("got %+v, want completed", m)
	}
	if m := f.gateway.metrics; value(m.gaps) != 2 || value(m.gapBytes) != 107 {
		t.Errorf("counted %v gaps of %v bytes, want 2 of 107", value(m.gaps), value(m.gapBytes))
	}
}

// TestTraceparentOfTheHandshake holds for executions that name no span of their own.
func TestTraceparentOfTheHandshake(t *testing.T) {
	f := start(t, nil)
	const ours, own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	for header, want := range map[string]string{ours: ours, "": "", strings.Repeat("0", maxTraceparent+1): ""} {
		ws, h := f.dial(t, "/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Traceparent": {header}}})
		if ws == nil {
			t.Fatalf("%+v", h)
		}
		c, e := &client{t, ws}, f.accepted(t)
		c.send(`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"command":"true"}}`)
		c.send(`{"jsonrpc":"2.0","id":2,"method":"execute","params":{"command":"true","traceparent":"` + own + `"}}`)
		for _, want := range []string{want, own} {
			r := <-e.requests
			if p, ok := r.params.(*wire.ExecuteParams); !ok || p.Traceparent != want {
				t.Errorf("header %q: %+v, want %q", header, r.params, want)
			}
		}
	}
}

// receive collects the output of one execution up to its completion, checking that pieces are
// contiguous.
func (c *client) receive(id string, encoding wire.Encoding) []byte {
	c.t.Helper()
	var all []byte
	for {
		m := c.recv()
		if m.Method == wire.MethodCompleted {
			return all
		}
		if m.Output == nil || m.Output.ExecutionID != id || m.Output.Encoding != encoding {
			c.t.Fatalf("unexpected message %+v", m)
		}
		b, err := m.Output.Bytes()
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, b...)
		if m.Output.Offset != int64(len(all)) {
			c.t.Fatalf("offset %d after %d bytes", m.Output.Offset, len(all))
		}
	}
}

func TestOutputArrivesWhole(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	text := strings.Repeat("Zeile mit Umlauten äöü, 日本語 und \"quotes\"\n", 40_000)
	live := outs.create("live")
	e.client.Follow(live.feed(0))
	go func() {
		for i := 0; i < len(text); i += 7777 {
			live.write(text[i:min(i+7777, len(text))])
		}
		live.complete()
	}()
	if got := c.receive("live", ""); string(got) != text {
		t.Errorf("live: %d bytes, want %d", len(got), len(text))
	}
	binary := strings.Repeat("\x00\xff\xfe\n\x80", 50_000)
	tr := outs.store.Create("bin", transcript.Options{Limit: 1 << 30})
	w := tr.Writer(transcript.Stdout, transcript.WriterConfig{})
	_, _ = w.Write([]byte(binary))
	bin := &output{tr, "bin", w}
	bin.complete()
	feed := bin.feed(0)
	feed.Encoding = wire.EncodingBase64
	e.client.Follow(feed)
	if got := c.receive("bin", wire.EncodingBase64); string(got) != binary {
		t.Errorf("base64: %d bytes, want %d", len(got), len(binary))
	}
}

// A second Follow replaces the first: each byte after its offset comes once.
func TestFollowReplaces(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	out := outs.create("x")
	out.write("one\n")
	e.client.Follow(out.feed(0))
	if m := c.recv(); m.Output == nil || m.Output.Data != "one\n" {
		t.Fatalf("got %+v", m)
	}
	e.client.Follow(out.feed(0))
	if m := c.recv(); m.Output == nil || m.Output.Data != "one\n" {
		t.Fatalf("got %+v", m)
	}
	out.write("two\n")
	if m := c.recv(); m.Output == nil || m.Output.Data != "two\n" {
		t.Fatalf("got %+v", m)
	}
	out.complete()
	if m := c.recv(); m.Method != wire.MethodCompleted {
		t.Fatalf("got %+v", m)
	}
}

func TestCursorsAreClosed(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	first, second := &script{waits: true}, &script{waits: true}
	over := &script{pieces: []transcript.Piece{{Data: []byte("x\n")}}}
	e.client.Follow(first.feed("x"))
	e.client.Follow(second.feed("x"))
	e.client.Follow(over.feed("y"))
	if m := c.recv(); m.Output == nil || m.Output.Data != "x\n" {
		t.Fatalf("got %+v", m)
	}
	e.client.Notify("later", nil)
	c.recv()
	if !first.closed.Load() || second.closed.Load() {
		t.Errorf("closed: replaced %v, replacing %v", first.closed.Load(), second.closed.Load())
	}
	_ = c.ws.CloseNow()
	e.end(t)
	if !second.closed.Load() || !over.closed.Load() {
		t.Errorf("closed at the end: %v %v", second.closed.Load(), over.closed.Load())
	}
}

// A loud execution must not hold up a quiet one: they take turns of one message.
func TestExecutionsTakeTurns(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	line := strings.Repeat("x", 79) + "\n"
	var feeds []actors.Feed
	for _, id := range []string{"a", "b", "c"} {
		out := outs.create(id)
		out.write(strings.Repeat(line, 20_000))
		out.complete()
		feeds = append(feeds, out.feed(0))
	}
	for _, feed := range feeds {
		e.client.Follow(feed)
	}
	count := map[string]int{}
	done, together := 0, 0
	for done < 3 {
		m := c.recv()
		if m.Output == nil {
			done++
			continue
		}
		count[m.Output.ExecutionID]++
		if done > 0 {
			continue
		}
		if len(count) < 3 {
			continue
		}
		if together == 0 {
			clear(count) // the first ran alone until the last was followed
		}
		together++
		low, high := 1<<30, 0
		for _, id := range []string{"a", "b", "c"} {
			low, high = min(low, count[id]), max(high, count[id])
		}
		if high-low > 1 {
			t.Fatalf("turns are uneven: %v", count)
		}
	}
	if together < 20 {
		t.Fatalf("only %d messages while all three were running", together)
	}
}

// An answer waits for the message being written, not for the megabytes behind it.
func TestAnswersOvertakeOutput(t *testing.T) {
	f := start(t, nil)
	f.engine.handle = answerAll
	outs := newOutputs(t)
	c, e := f.connect(t)
	out := outs.create("loud")
	out.write(strings.Repeat(strings.Repeat("x", 79)+"\n", 400_000)) // more than the socket's buffers
	out.complete()
	e.client.Follow(out.feed(0))
	c.recv()
	c.send(`{"jsonrpc":"2.0","id":1,"method":"control","params":{"type":"CANCEL"}}`)
	for m := c.recv(); ; m = c.recv() {
		if m.Method == wire.MethodCompleted {
			t.Fatal("the answer came after all of the output")
		}
		if string(m.ID) == "1" {
			return
		}
	}
}

func TestFeedThatCannotBeOpenedIsReported(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	e.client.Follow(actors.Feed{ExecutionID: "x", Open: func(func()) (actors.Cursor,
		error,
	) {
		return nil, transcript.ErrOffset
	}})
	if m := c.recv(); m.Method != wire.MethodError || !strings.Contains(string(m.Params), `"execution_id":"x"`) {
		t.Fatalf("got %+v %s", m, m.Params)
	}
}

func TestConnectRequestSaysWhoAndWhere(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		path, session string
		ends          bool
	}{{"/ws", "", false}, {"/ws/mcp", "", true}, {"/ws?session=pod-0.abc", "pod-0.abc", false}} {
		f.dial(t, c.path, nil)
		r := f.accepted(t).req
		if r.SessionID != c.session || r.EndsWithConnection != c.ends || r.Subject != "anonymous" ||
			!strings.HasPrefix(r.Remote, "127.0.0.1:") {
			t.Errorf("%s: %+v", c.path, r)
		}
	}
}

func TestErrorsThatBelongToNoRequest(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	e.client.Reply(nil, nil, &wire.Error{Code: wire.CodeSessionLimit, Message: "full"})
	e.client.Disconnect(wire.CauseSessionLimit)
	c.want(`{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"full"}}`)
	c.wantClose(1013)
	if end := e.end(t); end.cause != wire.CauseSessionLimit {
		t.Errorf("cause %s", end.cause)
	}
}

// Nothing that cannot be encoded may silence a request.
func TestAnswerThatCannotBeEncodedBecomesAnError(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"status"}`)
	e.client.Reply(e.next(t).id, func() {}, nil)
	if m := c.recv(); m.Err == nil || m.Err.Code != wire.CodeInternal || string(m.ID) != "1" {
		t.Fatalf("got %+v", m)
	}
}

func TestJSONPingsGoToIdleClientsOnly(t *testing.T) {
	f := start(t, func(c *Config) { c.PingInterval = testInterval })
	c, e := f.connect(t)
	for range 4 { // well beyond the two intervals after which silence is fatal
		c.want(`{"jsonrpc":"2.0","method":"ping"}`)
	}
	stop := time.Now().Add(4 * testInterval)
	for time.Now().Before(stop) {
		e.client.Notify("busy", nil)
		if m := c.recv(); m.Method == wire.MethodPing {
			t.Fatal("a ping although messages were sent")
		}
	}
}
