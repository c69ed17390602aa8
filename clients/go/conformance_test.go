package troupe_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/clients/conformance"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// TestConformance plays the scripts that every client of troupe passes.
func TestConformance(t *testing.T) {
	scripts, err := conformance.Scripts()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		t.Run(s.Name, func(t *testing.T) {
			for _, need := range s.Needs {
				if need != "terminal" {
					t.Skipf("clients/go does not have %s", need)
				}
			}
			t.Parallel()
			playScript(t, s)
		})
	}
}

// scriptAction is one element of a script's "client".
type scriptAction struct {
	Do          string           `json:"do"`
	ExecutionID string           `json:"execution_id"`
	Params      json.RawMessage  `json:"params"`
	Result      json.RawMessage  `json:"result"`
	Completed   json.RawMessage  `json:"completed"`
	Events      []scriptEvent    `json:"events"`
	Error       *scriptError     `json:"error"`
	Signal      string           `json:"signal"`
	Cols        int              `json:"cols"`
	Rows        int              `json:"rows"`
	Data        string           `json:"data"`
	Fill        *[2]int64        `json:"fill"`
	Mark        string           `json:"mark"`
	AbortAt     string           `json:"abort_at"`
	Background  string           `json:"background"`
	SessionID   string           `json:"session_id"`
	ResumeToken string           `json:"resume_token"`
	Offsets     map[string]int64 `json:"offsets"`
}

type scriptEvent struct {
	Type      string          `json:"type"`
	Stream    string          `json:"stream"`
	Data      string          `json:"data"`
	Base64    string          `json:"base64"`
	Fill      *[2]int64       `json:"fill"`
	Bytes     int64           `json:"bytes"`
	Code      string          `json:"code"`
	Cols      int             `json:"cols"`
	Rows      int             `json:"rows"`
	Completed json.RawMessage `json:"completed"`
	Error     *scriptError    `json:"error"`
}

type scriptError struct {
	Kind   string          `json:"kind"`
	Status int             `json:"status"`
	Code   wire.Code       `json:"code"`
	Data   json.RawMessage `json:"data"`
}

type scriptOptions struct {
	Window       int      `json:"window"`
	Tokens       []string `json:"tokens"`
	ResumeWindow int      `json:"resume_window_ms"`
	Keepalive    int      `json:"keepalive_ms"`
	DialRetry    int      `json:"dial_retry_ms"`
}

// scriptClient does the client's half of one script.
type scriptClient struct {
	run        *conformance.Run
	url        string
	opt        troupe.Options
	client     *troupe.Client
	mu         sync.Mutex // guards executions: actions in the background start some, too
	executions map[string]*troupe.Execution
	rest       map[string]*troupe.Output // of a piece that a read ended in, by execution
	background map[string]chan error
}

func playScript(t *testing.T, s *conformance.Script) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	run := conformance.NewRun(ctx, s)
	server := httptest.NewServer(run)
	defer server.Close()
	c := &scriptClient{
		run: run, url: "ws" + strings.TrimPrefix(server.URL, "http") + "/ws", opt: scriptClientOptions(t, s.Options),
		executions: make(map[string]*troupe.Execution), rest: make(map[string]*troupe.Output),
		background: make(map[string]chan error),
	}
	var actions []scriptAction
	strictly(t, s.Client, &actions)
	var failure error
	for i, a := range actions {
		if err := c.perform(ctx, a); err != nil {
			failure = fmt.Errorf("action %d, %s: %w", i+1, a.Do, err)
			break
		}
	}
	if failure != nil && c.client != nil {
		c.client.Detach()
	}
	patience, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if failure != nil {
		stop()
	}
	if err := run.End(patience); err != nil {
		t.Errorf("the server: %v", err)
	}
	if failure != nil {
		t.Errorf("the client: %v", failure)
	}
	if c.client != nil {
		_ = c.client.Close()
	}
}

func strictly(t *testing.T, text json.RawMessage, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
}

func scriptClientOptions(t *testing.T, text json.RawMessage) troupe.Options {
	t.Helper()
	var o scriptOptions
	if text != nil {
		strictly(t, text, &o)
	}
	opt := impatient
	opt.Window = o.Window
	opt.ResumeWindow = time.Duration(o.ResumeWindow) * time.Millisecond
	opt.KeepaliveTimeout = time.Duration(o.Keepalive) * time.Millisecond
	opt.DialRetry = time.Duration(o.DialRetry) * time.Millisecond
	calls := 0
	opt.TokenFunc = func() (string, error) {
		if len(o.Tokens) == 0 {
			return "", nil
		}
		calls++
		return o.Tokens[min(calls, len(o.Tokens))-1], nil
	}
	return opt
}

func (c *scriptClient) perform(ctx context.Context, a scriptAction) error {
	if a.Background != "" && a.Do != "join" {
		done := make(chan error, 1)
		c.background[a.Background] = done
		go func() { done <- c.judge(a, c.do(ctx, a)) }()
		return nil
	}
	return c.judge(a, c.do(ctx, a))
}

// judge compares the error of an action with the one that the script wants.
func (c *scriptClient) judge(a scriptAction, err error) error {
	switch {
	case a.Error != nil:
		return a.Error.match(err)
	default:
		return err
	}
}

func (c *scriptClient) do(ctx context.Context, a scriptAction) (err error) {
	if a.AbortAt != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			if c.run.Await(ctx, a.AbortAt) == nil {
				cancel()
			}
		}()
	}
	switch a.Do {
	case "mark":
		c.run.Mark(a.Mark)
		return nil
	case "await":
		return c.run.Await(ctx, a.Mark)
	case "join":
		return <-c.background[a.Background]
	case "open":
		c.client, err = troupe.Dial(ctx, c.url, c.opt)
		return err
	case "attach":
		c.client, err = troupe.Attach(ctx, c.url, a.SessionID, a.ResumeToken, a.Offsets, c.opt)
		if err == nil {
			c.executions = c.client.Executions()
		}
		return err
	case "execute":
		return c.execute(ctx, a)
	case "status":
		result, err := c.client.Status(ctx)
		return orMatch(err, a.Result, result)
	case "close":
		return c.client.Close()
	case "leave":
		c.client.Leave()
		return nil
	case "detach":
		return orMatch(nil, a.Result, c.client.Detach())
	case "ended":
		select {
		case <-c.client.Done():
			return c.client.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.onExecution(ctx, a)
}

func (c *scriptClient) execute(ctx context.Context, a scriptAction) error {
	var params wire.ExecuteParams
	if err := json.Unmarshal(a.Params, &params); err != nil {
		return err
	}
	e, err := c.client.Execute(ctx, params)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.executions[e.ID()] = e
	c.mu.Unlock()
	return orMatch(nil, a.Result, e.Result())
}

func (c *scriptClient) onExecution(ctx context.Context, a scriptAction) error {
	c.mu.Lock()
	e := c.executions[a.ExecutionID]
	c.mu.Unlock()
	if e == nil {
		return fmt.Errorf("no execution %q", a.ExecutionID)
	}
	switch a.Do {
	case "read":
		for i, want := range a.Events {
			if err := c.read(ctx, e, want); err != nil {
				return fmt.Errorf("event %d: %w", i+1, err)
			}
		}
		return nil
	case "wait":
		done, err := e.Wait(ctx)
		return orMatch(err, a.Completed, done)
	case "input":
		data := []byte(a.Data)
		if a.Fill != nil {
			data = conformance.Fill(a.Fill[0], a.Fill[1])
		}
		_, err := e.Input(ctx, data)
		return err
	case "close_input":
		return e.CloseInput(ctx)
	case "signal":
		return e.Signal(ctx, a.Signal)
	case "resize":
		return e.Resize(ctx, a.Cols, a.Rows)
	case "pause":
		return e.Pause(ctx)
	case "resume":
		return e.Resume(ctx)
	case "cancel":
		return e.Cancel(ctx)
	case "discard":
		e.Discard()
		return nil
	}
	return fmt.Errorf("unknown action %q", a.Do)
}

// next returns the rest of the latest piece, or the next event.
func (c *scriptClient) next(ctx context.Context, e *troupe.Execution) (troupe.Event, error) {
	if out := c.rest[e.ID()]; out != nil {
		delete(c.rest, e.ID())
		return out, nil
	}
	return e.Next(ctx)
}

// read takes one event. It joins pieces of output until there is as much as the script wants, and skips
// controls that the script does not mention.
func (c *scriptClient) read(ctx context.Context, e *troupe.Execution, want scriptEvent) error {
	var data []byte
	if want.Type == "output" {
		data = want.bytes()
	}
	for {
		ev, err := c.next(ctx, e)
		if control, ok := ev.(*troupe.Control); ok && control.Method != "process."+want.Type {
			continue
		}
		out, isOutput := ev.(*troupe.Output)
		if err != nil || !isOutput || want.Type != "output" {
			return want.match(ev, err)
		}
		n := min(len(data), len(out.Data))
		if out.Stream != want.Stream || !bytes.Equal(out.Data[:n], data[:n]) {
			return fmt.Errorf("%d bytes of %s up to %d are not what was written", len(out.Data), out.Stream, out.Offset)
		}
		data = data[n:]
		if out.Data = out.Data[n:]; len(out.Data) > 0 {
			c.rest[e.ID()] = out
		}
		if len(data) == 0 {
			return nil
		}
	}
}

func (w scriptEvent) bytes() []byte {
	if w.Fill != nil {
		return conformance.Fill(w.Fill[0], w.Fill[1])
	}
	if w.Base64 != "" {
		data, _ := base64.StdEncoding.DecodeString(w.Base64)
		return data
	}
	return []byte(w.Data)
}

// match compares an event that is not output.
func (w scriptEvent) match(ev troupe.Event, err error) error {
	if w.Error != nil {
		return w.Error.match(err)
	}
	if w.Type == "end" && errors.Is(err, io.EOF) {
		return nil
	}
	switch ev := ev.(type) {
	case *troupe.Gap:
		if w.Type == "gap" && w.Bytes == ev.Bytes {
			return nil
		}
	case *troupe.Warning:
		if w.Type == "warning" && w.Code == ev.Code {
			return nil
		}
	case *troupe.Resized:
		if w.Type == "resized" && w.Cols == ev.Cols && w.Rows == ev.Rows {
			return nil
		}
	case *troupe.Screen:
		if w.Type == "screen" && w.Cols == ev.Cols && w.Rows == ev.Rows && w.Data == string(ev.Data) {
			return nil
		}
	case *troupe.Control:
		return nil // its method was compared
	case *troupe.ProcessError:
		if w.Type == "error" {
			return nil
		}
	case *troupe.Completed:
		if w.Type == "completed" {
			return orMatch(nil, w.Completed, ev.Completed)
		}
	}
	return fmt.Errorf("want %+v, it is %T %+v, error %w", w, ev, ev, err)
}

// scriptErrors are the kinds of errors in this client.
var scriptErrors = map[string]error{
	"closed": troupe.ErrClosed, "detached": troupe.ErrDetached, "no_session": troupe.ErrNoSession,
	"session_lost": troupe.ErrSessionLost, "session_ended": troupe.ErrSessionEnded, "unreachable": troupe.ErrUnreachable,
	"unknown_execution": troupe.ErrUnknownExecution, "unknown_outcome": troupe.ErrUnknownOutcome,
	"input_conflict": troupe.ErrInputConflict, "followed": troupe.ErrFollowed, "discarded": troupe.ErrDiscarded,
	"too_large": troupe.ErrTooLarge, "aborted": context.Canceled,
}

func (w *scriptError) match(err error) error {
	var refused *troupe.HandshakeError
	var answer *wire.Error
	switch {
	case w.Kind == "handshake":
		if errors.As(err, &refused) && refused.StatusCode == w.Status {
			return nil
		}
	case w.Kind == "server":
		if errors.As(err, &answer) && answer.Code == w.Code {
			return orMatch(nil, w.Data, answer.Data)
		}
	case scriptErrors[w.Kind] == nil:
		return fmt.Errorf("unknown kind of error %q", w.Kind)
	case errors.Is(err, scriptErrors[w.Kind]):
		return nil
	}
	return fmt.Errorf("want the error %+v, it is %w", *w, err)
}

// orMatch returns err, or where got differs from a pattern.
func orMatch(err error, pattern json.RawMessage, got any) error {
	if err != nil {
		return err
	}
	text, err := json.Marshal(got)
	if err != nil {
		return err
	}
	return conformance.Match(pattern, text)
}
