package troupe_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

func statusCode(c wire.Cause) websocket.StatusCode { return websocket.StatusCode(c.Code()) }

// dropOnce ends the connection, unanswered, at the first request of a method.
func dropOnce(method string) func(*fakeConn, fakeRequest) bool {
	var dropped atomic.Bool
	return func(c *fakeConn, m fakeRequest) bool {
		if m.Method == method && dropped.CompareAndSwap(false, true) {
			_ = c.ws.CloseNow()
			return true
		}
		return false
	}
}

func TestUnansweredRequests(t *testing.T) {
	ctx := t.Context()
	for _, tc := range []struct {
		name, method string
		do           func(*troupe.Client, *troupe.Execution) error
		again        bool
	}{
		{"cancel", wire.MethodControl, func(_ *troupe.Client, e *troupe.Execution) error { return e.Cancel(ctx) }, true},
		{"pause", wire.MethodControl, func(_ *troupe.Client, e *troupe.Execution) error { return e.Pause(ctx) }, true},
		{
			"status", wire.MethodStatus,
			func(c *troupe.Client, _ *troupe.Execution) error { _, err := c.Status(ctx); return err }, true,
		},
		{
			"kill", wire.MethodSignal, func(_ *troupe.Client, e *troupe.Execution) error { return e.Signal(ctx, "SIGKILL") },
			true,
		},
		{
			"signal", wire.MethodSignal, func(_ *troupe.Client, e *troupe.Execution) error { return e.Signal(ctx, "INT") },
			false,
		},
		{
			"input", wire.MethodInput,
			func(_ *troupe.Client, e *troupe.Execution) error { _, err := e.Input(ctx, []byte("x")); return err }, true,
		},
		{"eof", wire.MethodInput, func(_ *troupe.Client, e *troupe.Execution) error { return e.CloseInput(ctx) }, true},
		{"close", wire.MethodClose, func(c *troupe.Client, _ *troupe.Execution) error { return c.Close() }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &fakeServer{hang: true, request: dropOnce(tc.method)}
			c := dial(t, s.start(t), troupe.Options{})
			e, err := c.Execute(ctx, wire.ExecuteParams{Command: "x", Stdin: true})
			if err != nil {
				t.Fatal(err)
			}
			err = tc.do(c, e)
			want := 1
			if tc.again {
				want = 2
			}
			if n := s.count(tc.method); n != want {
				t.Errorf("sent %d times, want %d", n, want)
			}
			if tc.again && err != nil || !tc.again && !errors.Is(err, troupe.ErrUnknownOutcome) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

// A server that cannot recognize repeated input is not sent any. Input then says how far it got:
// the chunk before the loss arrived, the lost one is in doubt.
func TestInputInDoubtAtAnOldServer(t *testing.T) {
	s := &fakeServer{hang: true, old: true}
	n := 0
	s.request = func(c *fakeConn, m fakeRequest) bool {
		if m.Method != wire.MethodInput {
			return false
		}
		if n++; n == 2 {
			_ = c.ws.CloseNow()
			return true
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "cat", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Input(t.Context(), make([]byte, 100_000))
	var ie *troupe.InputError
	if !errors.As(err, &ie) || ie.Delivered != 64<<10 || ie.InDoubt != 100_000-64<<10 {
		t.Errorf("err = %v (%+v)", err, ie)
	}
}

func TestTooLargeRequestIsNotSent(t *testing.T) {
	s := &fakeServer{limits: wire.Limits{MaxMessage: 1000}}
	c := dial(t, s.start(t), troupe.Options{})
	_, err := c.Execute(t.Context(), wire.ExecuteParams{Command: string(make([]byte, 1000))})
	if !errors.Is(err, troupe.ErrTooLarge) || s.count(wire.MethodExecute) != 0 {
		t.Errorf("err = %v, %d sent", err, s.count(wire.MethodExecute))
	}
}

func TestDialRefusals(t *testing.T) {
	full := &wire.Error{
		Code: wire.CodeSessionLimit, Message: "no session is free",
		Data: &wire.ErrorData{Limit: "max-sessions", Value: 100},
	}
	refuse := func(times int) *fakeServer {
		s := &fakeServer{}
		s.upgrade = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n >= times {
				return false
			}
			ws, err := websocket.Accept(w, r, nil)
			if err == nil {
				c := &fakeConn{s: s, ws: ws, ctx: context.Background()}
				c.refuse(wire.NullID, full)
				_ = ws.Close(websocket.StatusTryAgainLater, "")
			}
			return true
		}
		return s
	}
	t.Run("limit", func(t *testing.T) {
		_, err := troupe.Dial(t.Context(), refuse(1).start(t), impatient)
		if wire.CodeOf(err) != wire.CodeSessionLimit {
			t.Errorf("err = %v", err)
		}
	})
	t.Run("limit, retried", func(t *testing.T) {
		opt := impatient
		opt.DialRetry = 10 * time.Second
		c := dial(t, refuse(3).start(t), opt)
		if c.ID() != fakeSession {
			t.Errorf("session %q", c.ID())
		}
	})
	t.Run("401", func(t *testing.T) {
		s := &fakeServer{}
		s.upgrade = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "token expired", http.StatusUnauthorized)
			return true
		}
		opt := impatient
		opt.DialRetry = time.Hour // must not be used
		_, err := troupe.Dial(t.Context(), s.start(t), opt)
		var he *troupe.HandshakeError
		if !errors.As(err, &he) || he.StatusCode != 401 || he.Body != "token expired" {
			t.Errorf("err = %v", err)
		}
	})
}

func TestTokenTravelsInTheHeader(t *testing.T) {
	s := &fakeServer{}
	var got atomic.Value
	s.upgrade = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		got.Store(r.Header.Get("Authorization") + " " + r.URL.RawQuery)
		return false
	}
	dial(t, s.start(t), troupe.Options{Token: "s3cret"})
	if got.Load() != "Bearer s3cret frames=binary" {
		t.Errorf("got %q", got.Load())
	}
}

// TestSessionOptionsAreAskedForOnce: with the new session, and not when it is resumed, which a server refuses.
func TestSessionOptionsAreAskedForOnce(t *testing.T) {
	s := &fakeServer{}
	queries := make(chan string, 2)
	s.upgrade = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		queries <- r.URL.RawQuery
		return false
	}
	c := dial(t, s.start(t), troupe.Options{Session: wire.SessionOptions{
		Name: "nightly", Labels: map[string]string{"team": "build", "a/b": "c"}, ResumeWindow: 90500 * time.Millisecond,
	}})
	const asked = "frames=binary&label=a%2Fb%3Dc&label=team%3Dbuild&name=nightly&resume_window=90.5"
	if got := <-queries; got != asked {
		t.Errorf("got %q, want %q", got, asked)
	}
	s.cut()
	if got := <-queries; got != "frames=binary&session="+c.ID() {
		t.Errorf("to resume: %q", got)
	}
	_, err := troupe.Dial(t.Context(), "ws://localhost:1/ws", troupe.Options{Session: wire.SessionOptions{Name: "A"}})
	if err == nil || !strings.Contains(err.Error(), `name "A"`) {
		t.Errorf("a name that no server takes: %v", err)
	}
}

func TestPingIsAnswered(t *testing.T) {
	s := &fakeServer{}
	ponged := make(chan struct{})
	s.request = func(c *fakeConn, m fakeRequest) bool {
		switch m.Method {
		case wire.MethodStatus:
			c.notify(wire.MethodPing, struct{}{})
		case wire.MethodPong:
			close(ponged)
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ponged
}

// The client leaves a server that is connected but sends nothing, not even pongs.
func TestSilentServerIsLeft(t *testing.T) {
	s := &fakeServer{script: noise(1000, 9)}
	s.wrap = func(n int, c net.Conn) net.Conn {
		if n == 0 {
			return &muteConn{Conn: c, left: 700}
		}
		return c
	}
	notices := make(chan troupe.Notice, 10)
	c := dial(t, s.start(t), troupe.Options{
		KeepaliveTimeout: 150 * time.Millisecond,
		OnNotice:         func(n troupe.Notice) { notices <- n },
	})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := collect(t, e); !bytes.Equal(got, s.script) {
		t.Errorf("%d bytes", len(got))
	}
	if n := <-notices; n.Kind != troupe.NoticeLost {
		t.Errorf("first notice %+v", n)
	}
}

// muteConn swallows what is written after so many bytes.
type muteConn struct {
	net.Conn
	left int
}

func (c *muteConn) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// The client keeps a quiet server that answers WebSocket pings.
func TestQuietServerIsKept(t *testing.T) {
	s := &fakeServer{hang: true}
	c := dial(t, s.start(t), troupe.Options{KeepaliveTimeout: 400 * time.Millisecond})
	time.Sleep(1600 * time.Millisecond) // several times KeepaliveTimeout: nothing must happen in it
	if _, err := c.Status(t.Context()); err != nil || s.conns.Load() != 1 {
		t.Errorf("%v on %d connections", err, s.conns.Load())
	}
}

// pipeClient makes handshakes over net.Pipe, so that synctest's clock runs them.
func pipeClient(serve func(n int, c net.Conn)) *http.Client {
	n := 0
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			if serve == nil {
				return nil, errors.New("refused")
			}
			go serve(n, far)
			n++
			return near, nil
		},
	}}
}

// Reconnection backs off exponentially and ends with the resume window.
func TestBackoffEndsWithTheResumeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{limits: wire.Limits{ResumeWindow: 60}, hang: true, started: make(map[string]bool)}
		var tries []time.Duration
		begin := time.Now()
		first := make(chan net.Conn, 1)
		hc := pipeClient(func(n int, c net.Conn) {
			if n > 0 {
				tries = append(tries, time.Since(begin))
				_ = c.Close()
				return
			}
			first <- c
			l := &oneListener{c: make(chan net.Conn, 1)}
			l.c <- c
			srv := &http.Server{Handler: http.HandlerFunc(s.serve)}
			_ = srv.Serve(l)
		})
		c, err := troupe.Dial(t.Context(), "ws://troupe.test/ws", troupe.Options{HTTPClient: hc})
		if err != nil {
			t.Fatal(err)
		}
		_ = (<-first).Close()
		<-c.Done()
		if !errors.Is(c.Err(), troupe.ErrUnreachable) {
			t.Errorf("end: %v", c.Err())
		}
		if d := time.Since(begin); d < 60*time.Second || d > 61*time.Second {
			t.Errorf("gave up after %s, want the resume window of 60 s", d)
		}
		// 60 s at 2.5 s each on average once the ceiling of 5 s is reached.
		if len(tries) < 15 || len(tries) > 60 {
			t.Errorf("%d tries", len(tries))
		}
		for i := 1; i < len(tries); i++ {
			if gap := tries[i] - tries[i-1]; gap > 5*time.Second {
				t.Errorf("waited %s before try %d", gap, i)
			}
		}
		synctest.Wait()
	})
}

// oneListener gives one connection and then ends.
type oneListener struct{ c chan net.Conn }

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return &net.TCPAddr{} }
