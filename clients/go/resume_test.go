package troupe_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// noise is n bytes that repeat nowhere, so that a misplaced piece shows.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = rng.Read(b)
	return b
}

// cutConn dies after so many bytes, in the middle of a frame as a network does.
type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	if int64(len(p)) >= c.left {
		_, _ = c.Conn.Write(p[:c.left])
		_ = c.Conn.Close()
		return 0, net.ErrClosed
	}
	c.left -= int64(len(p))
	return c.Conn.Write(p)
}

// collect reads an execution to its end. Gaps and warnings go to other.
func collect(t testing.TB, e *troupe.Execution) (data []byte, other []troupe.Event) {
	t.Helper()
	for {
		ev, err := e.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return data, other
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(data), err)
		}
		if out, ok := ev.(*troupe.Output); ok {
			data = append(data, out.Data...)
			if out.Offset != e.Offset() {
				t.Fatalf("offset %d, execution says %d", out.Offset, e.Offset())
			}
			continue
		}
		other = append(other, ev)
	}
}

// The package promises that cuts at any byte, and a server that repeats some of what it sent,
// change nothing in the output that it delivers.
func TestRejoinedOutputIsIdentical(t *testing.T) {
	const cuts = 50
	script := noise(10<<20, 1)
	rng := rand.New(rand.NewPCG(7, 11))
	s := &fakeServer{script: script, overlap: 100_000}
	s.wrap = func(n int, c net.Conn) net.Conn {
		if n >= cuts {
			return c
		}
		// base64 makes 14 MB of it; a connection also repeats the overlap.
		return &cutConn{Conn: c, left: 300 + rng.Int64N(2*(14<<20)/cuts+140_000)}
	}
	c := dial(t, s.start(t), troupe.Options{DialRetry: 10 * time.Second})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "noise"})
	if err != nil {
		t.Fatal(err)
	}
	got, other := collect(t, e)
	if !bytes.Equal(got, script) {
		t.Errorf("%d bytes arrived that differ from the %d sent", len(got), len(script))
	}
	if len(other) != 1 {
		t.Errorf("events besides output: %v, want Completed alone", other)
	}
	if n := s.conns.Load(); n < 10 {
		t.Errorf("only %d connections: the cuts did not happen", n)
	}
	t.Logf("%d connections", s.conns.Load())
}

// The server cuts the connection between messages, once after each number of pieces.
func TestCutBetweenPieces(t *testing.T) {
	script := noise(20_000, 2)
	s := &fakeServer{script: script, piece: 1000}
	s.output = func(n int, out *wire.Output) *wire.Output {
		if out.Offset == int64(n+1)*1000 {
			s.cut()
		}
		return out
	}
	var asked atomic.Value // what the last resume asked for
	s.request = func(_ *fakeConn, m fakeRequest) bool {
		if m.Method == wire.MethodResume {
			asked.Store(string(m.Params))
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	var stdout, stderr bytes.Buffer
	done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "x"}, &stdout, &stderr)
	if err != nil || done.OutputBytes != 20_000 {
		t.Fatalf("%+v, %v", done, err)
	}
	var wantOut, wantErr []byte
	for i := 0; i < len(script); i += 2000 {
		wantOut = append(wantOut, script[i:i+1000]...)
		wantErr = append(wantErr, script[i+1000:i+2000]...)
	}
	if !bytes.Equal(stdout.Bytes(), wantOut) || !bytes.Equal(stderr.Bytes(), wantErr) {
		t.Error("streams differ")
	}
	if params, _ := asked.Load().(string); !strings.Contains(params, `"x":1`) { // 10000 or more
		t.Errorf("the last resume was %s: it must go on where the output stopped", params)
	}
}

func TestRepeatedPiecesAreDropped(t *testing.T) {
	script := noise(50_000, 3)
	s := &fakeServer{script: script, piece: 1000}
	twice := false
	s.output = func(_ int, out *wire.Output) *wire.Output {
		// Every piece but the first begins 300 bytes too early.
		if out.Offset > 1000 {
			out.Data = string(script[out.Offset-1300 : out.Offset])
		}
		twice = true
		return out
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := collect(t, e); !bytes.Equal(got, script) || !twice {
		t.Errorf("%d bytes, want the %d sent", len(got), len(script))
	}
}

func TestGapIsReported(t *testing.T) {
	script := noise(10_000, 4)
	s := &fakeServer{script: script, piece: 1000}
	s.output = func(_ int, out *wire.Output) *wire.Output {
		switch {
		case out.Offset == 4000 || out.Offset == 5000:
			return nil
		case out.Offset == 6000:
			out.Gap = 2000
		}
		return out
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
	if err != nil {
		t.Fatal(err)
	}
	got, other := collect(t, e)
	if want := append(bytes.Clone(script[:3000]), script[5000:]...); !bytes.Equal(got, want) {
		t.Error("output around the gap differs")
	}
	gap, ok := other[0].(*troupe.Gap)
	if !ok || *gap != (troupe.Gap{Bytes: 2000, Offset: 5000}) {
		t.Errorf("event %+v, want a gap of 2000 bytes up to 5000", other[0])
	}
	if s.conns.Load() != 1 {
		t.Error("a reported gap must not cost the connection")
	}
}

// The client asks once more for a piece that the server skips without a word.
func TestHoleIsHealedOrReported(t *testing.T) {
	for _, tc := range []struct {
		name   string
		always bool
	}{{"gapRetriedAt", false}, {"reported", true}} {
		t.Run(tc.name, func(t *testing.T) {
			script := noise(10_000, 5)
			s := &fakeServer{script: script, piece: 1000}
			s.output = func(n int, out *wire.Output) *wire.Output {
				if (out.Offset == 4000 || out.Offset == 10_000) && (n == 0 || tc.always) {
					return nil
				}
				return out
			}
			c := dial(t, s.start(t), troupe.Options{})
			_, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, nil, nil)
			var gap *troupe.GapError
			if tc.always {
				if !errors.As(err, &gap) || gap.Bytes != 2000 {
					t.Errorf("err = %v, want a GapError of 2000 bytes", err)
				}
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// In UTF-8, one byte of the transcript may become three bytes of data.
func TestReplacedBytesAreNoHole(t *testing.T) {
	script := []byte("abc\xff\xfedef\n" + strings.Repeat("\x80", 100) + "é\n\xc3")
	s := &fakeServer{script: script, piece: 7, encoding: wire.EncodingUTF8}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", Encoding: wire.EncodingUTF8})
	if err != nil {
		t.Fatal(err)
	}
	_, other := collect(t, e)
	if len(other) != 1 || s.conns.Load() != 1 {
		t.Errorf("events %v on %d connections, want Completed alone on 1", other, s.conns.Load())
	}
}

// The client sends an execute whose answer is lost again, and the command runs once.
func TestExecuteIsSentAgain(t *testing.T) {
	s := &fakeServer{script: noise(5000, 6)}
	var lost atomic.Bool
	s.request = func(c *fakeConn, m fakeRequest) bool {
		if m.Method == wire.MethodExecute && lost.CompareAndSwap(false, true) {
			s.mu.Lock()
			s.started["mine"] = true
			s.mu.Unlock()
			_ = c.ws.CloseNow()
			return true
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := collect(t, e); !bytes.Equal(got, s.script) {
		t.Errorf("%d bytes", len(got))
	}
	if n := s.count(wire.MethodExecute); n != 2 || !e.Result().Attached || s.sessions != 1 {
		t.Errorf("%d executes, attached %v, %d sessions", n, e.Result().Attached, s.sessions)
	}
}

// While the client follows nothing, its resume must not ask for everything.
func TestResumeWithoutExecutionsFollowsNone(t *testing.T) {
	s := &fakeServer{script: noise(5000, 6)}
	resumed := make(chan string, 1)
	s.request = func(_ *fakeConn, m fakeRequest) bool {
		if m.Method == wire.MethodResume {
			resumed <- string(m.Params)
		}
		return false
	}
	c := dial(t, s.start(t), troupe.Options{})
	if _, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	s.cut()
	if got := <-resumed; !strings.Contains(got, `"executions":{}`) {
		t.Errorf("resume with %s", got)
	}
}

func TestEndOfSessionIsTyped(t *testing.T) {
	forbidden := func(w http.ResponseWriter) { http.Error(w, "no longer", http.StatusForbidden) }
	for _, tc := range []struct {
		name    string
		refusal *wire.Error
		http    func(http.ResponseWriter)
		close   wire.Cause
		want    error
	}{
		{name: "no session", refusal: wire.Errorf(wire.CodeNoSession, "no such session"), want: troupe.ErrNoSession},
		{name: "lost", refusal: wire.Errorf(wire.CodeSessionLost, "pod is gone"), want: troupe.ErrSessionLost},
		{name: "close 4006", close: wire.CauseNoSession, want: troupe.ErrNoSession},
		{name: "close 4007", close: wire.CauseSessionLost, want: troupe.ErrSessionLost},
		{name: "close 1000", close: wire.CauseSessionEnded, want: troupe.ErrSessionEnded},
		{name: "http", http: forbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &fakeServer{script: noise(1000, 7), hang: true}
			s.upgrade = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 0 && tc.http != nil {
					tc.http(w)
					return true
				}
				return false
			}
			s.request = func(c *fakeConn, m fakeRequest) bool {
				if m.Method != wire.MethodResume {
					return false
				}
				if tc.refusal != nil {
					c.refuse(m.ID, tc.refusal)
				} else {
					closeAs(c, tc.close)
				}
				return true
			}
			c := dial(t, s.start(t), troupe.Options{})
			e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x"})
			if err != nil {
				t.Fatal(err)
			}
			s.cut()
			_, err = e.Wait(t.Context())
			var refused *troupe.HandshakeError
			switch {
			case tc.want != nil && !errors.Is(err, tc.want):
				t.Errorf("Wait: %v, want %v", err, tc.want)
			case tc.want == nil && (!errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden):
				t.Errorf("Wait: %v, want a HandshakeError of 403", err)
			}
			<-c.Done()
			if _, err := c.Status(t.Context()); !errors.Is(err, c.Err()) {
				t.Errorf("Status after the end: %v", err)
			}
		})
	}
}

// An ingress that drops the route of a service without a ready pod answers 404
// while the only pod restarts: a client that gave up then would lose its session.
func TestMissingRouteIsWaitedFor(t *testing.T) {
	s := &fakeServer{script: noise(100_000, 9), piece: 10_000}
	s.upgrade = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		missing := n == 1 || n == 2
		if missing {
			http.NotFound(w, nil)
		}
		return missing
	}
	c := dial(t, s.start(t), troupe.Options{})
	if _, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	s.cut()
	if _, err := c.Run(t.Context(), wire.ExecuteParams{Command: "x"}, nil, nil); err != nil {
		t.Errorf("after the route came back: %v", err)
	}
}

func closeAs(c *fakeConn, cause wire.Cause) {
	go func() { _ = c.ws.Close(statusCode(cause), "") }()
}

// Detach and Attach move an execution to another client without a seam.
func TestAttachContinuesWhereDetachStopped(t *testing.T) {
	script := noise(300_000, 8)
	s := &fakeServer{script: script, piece: 10_000}
	url := s.start(t)
	c := dial(t, url, troupe.Options{})
	e, err := c.Execute(t.Context(), wire.ExecuteParams{Command: "x", ExecutionID: "job"})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for len(got) < 100_000 {
		ev, err := e.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ev.(*troupe.Output).Data...)
	}
	state := c.Detach()
	if _, err := e.Next(t.Context()); !errors.Is(err, troupe.ErrDetached) {
		t.Errorf("Next after Detach: %v", err)
	}
	if code := <-s.closes; code == 1000 {
		t.Error("close code 1000 would end the session")
	}

	a, err := troupe.Attach(t.Context(), url, state.ID, state.ResumeToken, state.Offsets, impatient)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	rest, _ := collect(t, a.Executions()["job"])
	if !bytes.Equal(append(got, rest...), script) {
		t.Errorf("%d + %d bytes differ from what was sent", len(got), len(rest))
	}
	if _, err := troupe.Attach(t.Context(), url, state.ID, "wrong", nil, impatient); !errors.Is(err, troupe.ErrNoSession) {
		t.Errorf("wrong token: %v", err)
	}
}

// Contexts bound waits, not commands.
func TestContextDoesNotCancelTheCommand(t *testing.T) {
	s := &fakeServer{hang: true}
	c := dial(t, s.start(t), troupe.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	e, err := c.Execute(ctx, wire.ExecuteParams{Command: "sleep"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := e.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := e.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("the session must live on: %v", err)
	}
	if n := s.count(wire.MethodControl); n != 0 {
		t.Errorf("%d control requests", n)
	}
}

// What kept processes write lies behind the end. A client that attaches there is told of the end.
func TestAttachBehindTheEnd(t *testing.T) {
	s := &fakeServer{script: noise(1000, 9), hang: true}
	s.request = func(c *fakeConn, m fakeRequest) bool {
		if m.Method != wire.MethodResume {
			return false
		}
		c.reply(m.ID, wire.ResumeResult{SessionID: fakeSession, Executions: map[string]wire.ExecutionStatus{
			"x": {State: wire.StateKept, Offset: 1000, Completed: &wire.Completed{
				ExecutionID: "x", ExitCode: 6, OutputBytes: 100, Survivors: &wire.Survivors{Kept: true, Count: 1},
			}},
		}})
		c.stream("x", 200, 0)
		return true
	}
	c, err := troupe.Attach(t.Context(), s.start(t), fakeSession, fakeToken, map[string]int64{"x": 200}, impatient)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := c.Executions()["x"]
	if ev, err := e.Next(t.Context()); err != nil || ev.(*troupe.Completed).ExitCode != 6 {
		t.Errorf("first %v, %v", ev, err)
	}
	if ev, err := e.Next(t.Context()); err != nil || !bytes.Equal(ev.(*troupe.Output).Data, s.script[200:]) {
		t.Errorf("then %v, %v", ev, err)
	}
}
