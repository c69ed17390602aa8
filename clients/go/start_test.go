package troupe_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// slowGreeting is a server that greets only after it has read a request, so that a client that
// waits for the greeting first waits forever. decide returns the messages that it sends then.
func slowGreeting(t *testing.T, decide func(n int, request fakeRequest) []string) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := &fakeServer{upgrade: func(n int, w http.ResponseWriter, r *http.Request) bool {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return true
		}
		defer ws.CloseNow()
		for {
			_, frame, err := ws.Read(r.Context())
			if err != nil {
				return true
			}
			requests.Add(1)
			var m fakeRequest
			if err := json.Unmarshal(frame, &m); err != nil {
				t.Errorf("request %s: %v", frame, err)
				return true
			}
			for _, message := range decide(n, m) {
				if err := ws.Write(r.Context(), websocket.MessageText, []byte(message)); err != nil {
					return true
				}
			}
		}
	}}
	return s.start(t), requests
}

const greeting = `{"jsonrpc":"2.0","method":"connected","params":{"session_id":"pod-0.1","resume_token":"t"}}`

func TestStartDoesNotWaitForTheGreeting(t *testing.T) {
	url, requests := slowGreeting(t, func(_ int, m fakeRequest) []string {
		switch m.Method {
		case wire.MethodExecute:
			return []string{
				greeting,
				`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{"status":"started","execution_id":"x","pid":7}}`,
				`{"jsonrpc":"2.0","method":"process.completed","params":{"execution_id":"x","reason":"exited","exit_code":0}}`,
			}
		}
		return []string{`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{}}`}
	})
	c, e, err := troupe.Start(t.Context(), url, wire.ExecuteParams{Command: "true", ExecutionID: "x"}, troupe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if e.Result().PID != 7 || c.ID() != "pod-0.1" {
		t.Errorf("pid %d in session %q", e.Result().PID, c.ID())
	}
	if _, err := e.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, want execute alone", n)
	}
}

// A server that has no session free answers no request. The next attempt sends execute again, once.
func TestStartIsRepeatedUntilASessionIsFree(t *testing.T) {
	url, requests := slowGreeting(t, func(n int, m fakeRequest) []string {
		switch {
		case n < 2: // one attempt without DialRetry, and the first with it
			return []string{`{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"troupe: 100 sessions"}}`}
		case m.Method == wire.MethodExecute:
			return []string{greeting, `{"jsonrpc":"2.0","id":` + string(m.ID) +
				`,"result":{"status":"started","execution_id":"x"}}`}
		}
		return []string{`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{}}`}
	})
	if _, _, err := troupe.Start(t.Context(), url+"?first", wire.ExecuteParams{Command: "true"},
		troupe.Options{}); wire.CodeOf(err) != wire.CodeSessionLimit {
		t.Fatalf("without DialRetry: %v", err)
	}
	c, _, err := troupe.Start(t.Context(), url, wire.ExecuteParams{Command: "true"},
		troupe.Options{DialRetry: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests on 3 connections, want 3", n)
	}
}

// A refused command leaves the session intact, whether it is refused before the greeting, by the
// reader that validates it, or after the greeting.
func TestStartOfARefusedCommandKeepsTheSession(t *testing.T) {
	for name, order := range map[string]func(refusal string) []string{
		"refused first": func(refusal string) []string { return []string{refusal, greeting} },
		"greeted first": func(refusal string) []string { return []string{greeting, refusal} },
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := slowGreeting(t, func(_ int, m fakeRequest) []string {
				if m.Method != wire.MethodExecute {
					return []string{`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{}}`}
				}
				return order(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"error":{"code":-32602,"message":"troupe: cwd"}}`)
			})
			c, e, err := troupe.Start(t.Context(), url, wire.ExecuteParams{Command: "true"}, troupe.Options{})
			var refused *wire.Error
			if !errors.As(err, &refused) || refused.Code != wire.CodeInvalidParams || e != nil {
				t.Fatalf("execution %v, error %v", e, err)
			}
			if c == nil {
				t.Fatal("no client")
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A server refuses a message over its limit by closing the connection, and would refuse it again.
// The client therefore does not repeat it, however long DialRetry is.
func TestStartOfATooLargeRequestIsNotRepeated(t *testing.T) {
	s := &fakeServer{upgrade: func(_ int, w http.ResponseWriter, r *http.Request) bool {
		ws, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, _ = ws.Read(r.Context())
			_ = ws.Close(websocket.StatusMessageTooBig, "")
		}
		return true
	}}
	_, _, err := troupe.Start(t.Context(), s.start(t), wire.ExecuteParams{Command: "true"},
		troupe.Options{DialRetry: time.Minute})
	if n := s.conns.Load(); !errors.Is(err, troupe.ErrTooLarge) || n != 1 {
		t.Errorf("%v after %d connections, want ErrTooLarge after 1", err, n)
	}
}

func TestTooLargeRequestFailsAndTheSessionContinues(t *testing.T) {
	s := &fakeServer{request: func(c *fakeConn, m fakeRequest) bool {
		if m.Method != wire.MethodControl {
			return false
		}
		_ = c.ws.Close(websocket.StatusMessageTooBig, "")
		return true
	}}
	c := dial(t, s.start(t), troupe.Options{})
	if _, err := c.Control(t.Context(), wire.ControlParams{ExecutionID: "x"}); !errors.Is(err, troupe.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("status afterwards: %v", err)
	}
	if n := s.count(wire.MethodControl); n != 1 {
		t.Errorf("sent %d times", n)
	}
}
