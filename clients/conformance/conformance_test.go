package conformance

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play plays a script against a client that sends the given messages after the greeting, and returns the
// server's judgement.
func play(t *testing.T, steps string, messages ...string) error {
	t.Helper()
	s, err := parse("test", []byte(`{"about":"test","client":[{}],"server":[{"steps":`+steps+`}]}`))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	run := NewRun(ctx, s)
	server := httptest.NewServer(run)
	defer server.Close()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(server.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	for range 1 + strings.Count(steps, "output") {
		if _, _, err := ws.Read(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range messages {
		if err := ws.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(steps, "answer") {
		if _, _, err := ws.Read(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(steps, "quiet") {
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
	return run.End(ctx)
}

// TestServerNoticesWhatAClientDoesWrong: a script that passes whatever the client does would test nothing.
func TestServerNoticesWhatAClientDoesWrong(t *testing.T) {
	const ack = `{"method":"ack","params":{"execution_id":"a","offset":10}}`
	for name, c := range map[string]struct {
		steps    string
		messages []string
		want     string
	}{
		"right": {
			`[{"greet":{}},{"expect":"status","as":"s"},{"answer":"s"}]`, []string{`{"id":1,"method":"status"}`}, "",
		},
		"another method": {
			`[{"greet":{}},{"expect":"status"}]`,
			[]string{`{"id":1,"method":"close"}`},
			"connection 1, step 2: expect: want status, the client sent close",
		},
		"other params": {
			`[{"greet":{}},{"expect":"signal","params":{"signal":"INT"}}]`,
			[]string{`{"id":1,"method":"signal","params":{"signal":"TERM"}}`},
			"signal is TERM, want INT",
		},
		"one request too many": {
			`[{"greet":{}}]`, []string{`{"id":1,"method":"status"}`}, "after the last step the client sent status",
		},
		"an ack of what was not sent": {`[{"greet":{}}]`, []string{ack}, "this connection has sent up to 0"},
		"an ack where it must be silent": {
			`[{"greet":{}},{"output":{"execution_id":"a","from":0,"to":10}},{"quiet_ms":500}]`, []string{ack}, "sent an ack",
		},
		"a resume elsewhere": {
			`[{"greet":{}},{"resumed":{"executions":{"a":7}}}]`,
			[]string{`{"id":1,"method":"resume","params":{"executions":{"a":8}}}`},
			"resumes map[a:8], want map[a:7]",
		},
		"no request at all":        {`[{"greet":{}},{"expect":"status"}]`, nil, "the connection ended"},
		"another close code":       {`[{"greet":{}},{"closed":1001}]`, []string{"no JSON"}, "the client sent \"no JSON\""},
		"a misspelt step":          {`[{"greeet":{}}]`, nil, `unknown field "greeet"`},
		"two steps in one":         {`[{"greet":{},"cut":true}]`, nil, "it must have one kind, not 2"},
		"a step that says nothing": {`[{"as":"x"}]`, nil, "it must have one kind, not 0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := play(t, c.steps, c.messages...)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct{ pattern, got, want string }{
		{`{"a":1}`, `{"a":1,"b":2}`, ""},
		{`{"a":{"b":"*"}}`, `{"a":{"b":[]}}`, ""},
		{`{"a":null}`, `{}`, ""},
		{`{"a":null}`, `{"a":1}`, "a is 1, want <nil>"},
		{`{"a":"*"}`, `{}`, "a is <nil>, want *"},
		{`{"a":[1]}`, `{"a":[1,2]}`, "a is [1 2], want [1]"},
		{`{"a":{"b":1}}`, `{"a":{"b":2}}`, "a.b is 2, want 1"},
		{`{"a":{}}`, `{"a":2}`, "a is 2, want an object"},
	} {
		err := Match(json.RawMessage(c.pattern), json.RawMessage(c.got))
		if got := ""; err != nil && err.Error() != c.want || err == nil && got != c.want {
			t.Errorf("%s and %s: %v, want %q", c.pattern, c.got, err, c.want)
		}
	}
}

// TestProxyCutsThatManyConnections: afterwards it forwards everything.
func TestProxyCutsThatManyConnections(t *testing.T) {
	const cuts, size = 5, 100_000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = c.Write(Fill(0, size))
			_ = c.Close()
		}
	}()
	p, err := NewProxy(ctx, ProxyOptions{Targets: []string{l.Addr().String()}, Cuts: cuts, MaxBytes: size, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range cuts + 2 {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(c)
		_ = c.Close()
		if cut := len(got) < size; cut != (i < cuts) {
			t.Errorf("connection %d brought %d bytes of %d", i, len(got), size)
		}
	}
	if p.Cuts() != cuts {
		t.Errorf("%d cuts are counted, want %d", p.Cuts(), cuts)
	}
}

// TestHTTPIsEnoughForARunner walks through what a runner in another language does.
func TestHTTPIsEnoughForARunner(t *testing.T) {
	s, err := NewServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	call := func(method, url string, v any) int {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, url, nil)
		req.RequestURI = ""
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if v != nil {
			if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode
	}
	var names []string
	call("GET", server.URL+"/scripts", &names)
	if len(names) < 12 {
		t.Fatalf("scripts: %v", names)
	}
	var run struct{ URL, WS string }
	call("POST", server.URL+"/runs/session-ended", &run)
	ws, _, err := websocket.Dial(t.Context(), run.WS, nil)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = ws.Read(t.Context())
	}
	if status := call("GET", "http"+strings.TrimPrefix(run.WS, "ws"), nil); status != 426 {
		t.Errorf("a plain request was answered with %d, want 426", status)
	}
	if status := call("POST", run.URL+"/marks/m", nil) | call("GET", run.URL+"/marks/m", nil); status != 200 {
		t.Errorf("marks: %d", status)
	}
	if status := call("POST", run.URL+"/end", nil); status != 200 {
		t.Errorf("end: %d, want 200", status)
	}
	if status := call("POST", server.URL+"/runs/none", nil); status != 404 {
		t.Errorf("a script that does not exist: %d, want 404", status)
	}
}
