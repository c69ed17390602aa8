//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/gateway"
)

// engine plays the actors' part under the real gateway: its "commands" are the
// cases of execution.run.
type engine struct {
	refuse *wire.Error // new sessions

	mu       sync.Mutex
	sessions map[string]*session
}

type session struct {
	mu    sync.Mutex
	execs map[string]*execution
}

// execution is its own transcript: pieces, read by any number of cursors.
type execution struct {
	id     string
	params wire.ExecuteParams
	kill   chan string // CANCEL or KILL
	input  chan wire.InputParams
	// resumed has capacity 1: a client has come back.
	resumed chan struct{}

	mu     sync.Mutex
	pieces []transcript.Piece
	end    int64
	done   *wire.Completed
	notify []func()
}

type engineConn struct {
	e      *engine
	client actors.Sink
	id     string
	s      *session // nil until attached
}

func (e *engine) Stats() actors.Stats { return actors.Stats{MaxSessions: 100} }

func (e *engine) Connect(req actors.ConnectRequest, client actors.Sink) gateway.Connection {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &engineConn{e: e, client: client, id: req.SessionID}
	switch {
	case req.SessionID != "":
	case e.refuse != nil:
		client.Reply(nil, nil, e.refuse)
		client.Disconnect(wire.CauseSessionLimit)
	default:
		c.id = "pod." + strconv.Itoa(len(e.sessions))
		c.s = &session{execs: make(map[string]*execution)}
		e.sessions[c.id] = c.s
		client.Notify(wire.MethodConnected, &wire.Connected{
			SessionID: c.id, ResumeToken: "token of " + c.id,
			Limits: wire.Limits{ResumeWindow: 300},
		})
	}
	return c
}

func (c *engineConn) Closed(cause wire.Cause, _ map[string]int64) {
	if cause == wire.CauseClientDone && c.s != nil {
		c.e.endSession(c.id)
	}
}

func (e *engine) endSession(id string) {
	e.mu.Lock()
	s := e.sessions[id]
	delete(e.sessions, id)
	e.mu.Unlock()
	if s == nil {
		return
	}
	for _, x := range s.all() {
		x.tell("KILL")
	}
}

func (e *engine) open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sessions)
}

func (s *session) all() map[string]*execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*execution, len(s.execs))
	for id, x := range s.execs {
		all[id] = x
	}
	return all
}

func (c *engineConn) Request(id wire.ID, params any) {
	if p, ok := params.(*wire.ResumeParams); ok {
		c.resume(id, p)
		return
	}
	switch p := params.(type) {
	case *wire.ExecuteParams:
		c.execute(id, *p)
	case *wire.ControlParams:
		c.s.all()[p.ExecutionID].tell(p.Type)
		c.client.Reply(id, &wire.ControlResult{Status: "canceled", ExecutionID: p.ExecutionID}, nil)
	case *wire.SignalParams:
		c.s.all()[p.ExecutionID].tell(strings.TrimPrefix(p.Signal, "SIG"))
		c.client.Reply(id, struct{}{}, nil)
	case *wire.InputParams:
		c.s.all()[p.ExecutionID].input <- *p
		c.client.Reply(id, struct{}{}, nil)
	case *wire.CloseParams:
		c.client.Reply(id, struct{}{}, nil)
		c.e.endSession(c.id)
		c.client.Disconnect(wire.CauseSessionEnded)
	default:
		c.client.Reply(id, &wire.StatusResult{SessionID: c.id, Executions: c.s.status()}, nil)
	}
}

func (s *session) status() map[string]wire.ExecutionStatus {
	status := make(map[string]wire.ExecutionStatus)
	for id, x := range s.all() {
		x.mu.Lock()
		state := wire.StateRunning
		if x.done != nil {
			state = wire.StateExited
			if x.params.OnExit == wire.ExitKeep {
				state = wire.StateKept
			}
		}
		status[id] = wire.ExecutionStatus{State: state, Offset: x.end}
		x.mu.Unlock()
	}
	return status
}

func (c *engineConn) resume(id wire.ID, p *wire.ResumeParams) {
	c.e.mu.Lock()
	s := c.e.sessions[c.id]
	c.e.mu.Unlock()
	if s == nil || p.ResumeToken != "token of "+c.id {
		c.client.Reply(id, nil, wire.Errorf(wire.CodeNoSession, "no such session"))
		return
	}
	c.s = s
	c.client.Reply(id, &wire.ResumeResult{SessionID: c.id, Executions: s.status(), Limits: wire.Limits{ResumeWindow: 300}},
		nil)
	for xid, x := range s.all() {
		if after, ok := p.Executions[xid]; ok || p.Executions == nil {
			c.client.Follow(x.feed(after))
			select {
			case x.resumed <- struct{}{}:
			default:
			}
		}
	}
}

func (c *engineConn) execute(id wire.ID, p wire.ExecuteParams) {
	if p.Argv[0] == "missing" {
		c.client.Reply(id, nil, &wire.Error{
			Code: wire.CodeStartFailed, Message: "missing: command not found",
			Data: &wire.ErrorData{ExitCode: 127},
		})
		return
	}
	x := &execution{
		id: p.ExecutionID, params: p, kill: make(chan string, 4), input: make(chan wire.InputParams, 64),
		resumed: make(chan struct{}, 1),
	}
	c.s.mu.Lock()
	c.s.execs[x.id] = x
	c.s.mu.Unlock()
	c.client.Reply(id, &wire.ExecuteResult{Status: "started", ExecutionID: x.id}, nil)
	c.client.Follow(x.feed(0))
	go c.run(x)
}

// run runs the command, as on a server that is stopping if it is so called: its
// session ends with it. A "broken" one's connection ends as in a restart, and
// the session waits for the client.
func (c *engineConn) run(x *execution) {
	switch x.params.Argv[0] {
	case "drained":
		c.client.Notify(wire.MethodDraining, &wire.Draining{DeadlineSeconds: 300})
		x.run()
		c.e.endSession(c.id)
		c.client.Disconnect(wire.CauseDraining)
	case "broken":
		c.client.Disconnect(wire.CauseDraining)
		<-x.resumed
		x.write(transcript.Stdout, "whole\n")
		x.run()
	default:
		x.run()
	}
}

// run is the command.
func (x *execution) run() {
	done := wire.Completed{ExecutionID: x.id, Status: wire.StatusCompleted, Reason: wire.ReasonExited}
	args := append(x.params.Argv, "", "", "", "")[1:]
	switch x.params.Argv[0] {
	case "print": // STDOUT STDERR CODE
		x.write(transcript.Stdout, args[0])
		x.write(transcript.Stderr, args[1])
		done.ExitCode, _ = strconv.Atoi(args[2])
	case "env":
		x.write(transcript.Stdout, x.params.Cwd+" "+x.params.Env["A"])
	case "cat":
		for p := range x.input {
			x.write(transcript.Stdout, decode(p))
			if p.EOF {
				break
			}
		}
	case "hang": // what it takes to end it
		x.write(transcript.Stdout, "hanging\n")
		for how := ""; how != args[0] && how != "KILL"; {
			how = <-x.kill
			x.write(transcript.Stdout, how+"\n")
		}
		done.Reason, done.ExitCode = wire.ReasonCanceled, -15
	case "lossy":
		x.mark(&wire.Warning{ExecutionID: x.id, Code: wire.WarnTranscriptWrite, Message: "no space left: lines are dropped"})
		done.DroppedBytes, done.DroppedLines, done.TruncatedLines, done.TruncatedBytes = 100, 3, 2, 50
	case "ends": // REASON CODE
		done.Reason = wire.Reason(args[0])
		done.ExitCode, _ = strconv.Atoi(args[1])
		done.Error = wire.Errorf(wire.CodeInternal, "because")
	}
	x.mu.Lock()
	done.OutputBytes = x.end
	x.done = &done
	x.pieces = append(x.pieces, transcript.Piece{Mark: &done, Offset: x.end})
	x.wakeLocked()
	x.mu.Unlock()
}

func decode(p wire.InputParams) string {
	b, err := p.Bytes()
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (x *execution) tell(what string) {
	select {
	case x.kill <- what:
	default:
	}
}

func (x *execution) write(s transcript.Stream, text string) {
	if text == "" {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.end += int64(len(text))
	x.pieces = append(x.pieces, transcript.Piece{Stream: s, Data: []byte(text), Offset: x.end})
	x.wakeLocked()
}

func (x *execution) mark(mark any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pieces = append(x.pieces, transcript.Piece{Mark: mark, Offset: x.end})
	x.wakeLocked()
}

func (x *execution) wakeLocked() {
	for _, notify := range x.notify {
		notify()
	}
}

func (x *execution) feed(after int64) actors.Feed {
	return actors.Feed{ExecutionID: x.id, Encoding: x.params.Encoding, Open: func(notify func()) (actors.Cursor, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.notify = append(x.notify, notify)
		return &cursor{x: x, offset: after}, nil
	}}
}

type cursor struct {
	x      *execution
	next   int
	offset int64
}

func (c *cursor) Next(buf []byte) (transcript.Piece, error) {
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	for c.next < len(c.x.pieces) {
		p := c.x.pieces[c.next]
		if p.Mark != nil {
			c.next++
			c.offset = p.Offset
			return p, nil
		}
		unread := p.Data[min(int64(len(p.Data)), max(0, c.offset-p.Offset+int64(len(p.Data)))):]
		if len(unread) == 0 {
			c.next++
			continue
		}
		p.Data = buf[:copy(buf, unread)] // the rest of a large piece follows in the next call
		p.Offset -= int64(len(unread) - len(p.Data))
		c.offset = p.Offset
		return p, nil
	}
	if c.x.done != nil {
		return transcript.Piece{}, io.EOF
	}
	return transcript.Piece{}, transcript.ErrWait
}

func (c *cursor) Offset() int64 { return c.offset }
func (c *cursor) Close()        {}

// fixture is a server, and runs of troupe against it.
type fixture struct {
	t       *testing.T
	engine  *engine
	url     string // empty: --server is not given
	state   string
	signals chan os.Signal
	stdin   string // "" is a terminal
}

func start(t *testing.T, auth gateway.Authenticator) *fixture {
	t.Helper()
	isolate(t)
	e := &engine{sessions: make(map[string]*session)}
	if auth == nil {
		auth = gateway.NoAuth{}
	}
	g, err := gateway.New(gateway.Config{Engine: e, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(g.Handler())
	server.Config = gateway.NewHTTPServer(g.Handler(), nil)
	server.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		server.Close()
	})
	return &fixture{t: t, engine: e, url: server.URL, state: t.TempDir(), signals: make(chan os.Signal)}
}

// output is a writer that a test can wait on.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	grew chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.grew <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// await waits until text was written.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.grew:
		case <-deadline:
			t.Fatalf("no %q in %q", text, o.String())
		}
	}
}

// result of a run.
type result struct {
	code           int
	stdout, stderr *output
	done           chan struct{}
}

// begin starts troupe; its result is whole once done is closed.
func (f *fixture) begin(args ...string) *result {
	r := &result{
		done: make(chan struct{}), stdout: &output{grew: make(chan struct{}, 1)},
		stderr: &output{grew: make(chan struct{}, 1)},
	}
	a := &app{
		stdin: strings.NewReader(f.stdin), stdinPiped: f.stdin != "", stdout: r.stdout, stderr: r.stderr,
		signals: func() <-chan os.Signal { return f.signals },
	}
	line := []string{args[0], "--state-dir", f.state}
	if f.url != "" {
		line = append(line, "--server", f.url)
	}
	args = append(line, args[1:]...)
	go func() {
		defer close(r.done)
		r.code = a.run(args)
	}()
	return r
}

func (f *fixture) run(args ...string) *result {
	f.t.Helper()
	r := f.begin(args...)
	<-r.done
	return r
}

// isolate keeps the tests from the settings of whoever runs them.
func isolate(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("XDG_STATE_HOME", dir)
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "TROUPE_") {
			t.Setenv(name, "")
		}
	}
}
