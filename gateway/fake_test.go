package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// testTimeout is how long a test waits for what must happen.
const testTimeout = 10 * time.Second

// fakeEngine is a scripted engine: tests answer requests by hand, or with handle.
type fakeEngine struct {
	conns  chan *fakeConn
	handle func(c *fakeConn, r fakeRequest) // called for each request instead of c.requests

	mu    sync.Mutex
	stats actors.Stats
}

type fakeConn struct {
	engine   *fakeEngine
	req      actors.ConnectRequest
	client   actors.Sink
	requests chan fakeRequest
	claims   chan wire.AckParams // acks that the gateway sent in the client's place; further ones are dropped
	ended    chan fakeEnd        // holds one; a second end would block the writer, and goleak would tell
}

type fakeRequest struct {
	id     wire.ID
	params any
}

type fakeEnd struct {
	cause     wire.Cause
	delivered map[string]int64
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{conns: make(chan *fakeConn, 10_000), stats: actors.Stats{MaxSessions: 100}}
}

func (e *fakeEngine) Connect(req actors.ConnectRequest, client actors.Sink) Connection {
	c := &fakeConn{
		engine: e, req: req, client: client, ended: make(chan fakeEnd, 1), claims: make(chan wire.AckParams, 16),
	}
	if e.handle == nil {
		c.requests = make(chan fakeRequest, 1000)
	}
	e.conns <- c
	return c
}

func (e *fakeEngine) Stats() actors.Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

func (c *fakeConn) Request(id wire.ID, params any) {
	r := fakeRequest{id, params}
	if ack, ok := params.(*wire.AckParams); ok && len(id) == 0 {
		select {
		case c.claims <- *ack:
		default:
		}
		return
	}
	if c.engine.handle != nil {
		c.engine.handle(c, r)
		return
	}
	c.requests <- r
}

func (c *fakeConn) Closed(cause wire.Cause, delivered map[string]int64) {
	c.ended <- fakeEnd{cause, delivered}
}

// next waits for a request.
func (c *fakeConn) next(t testing.TB) fakeRequest {
	t.Helper()
	select {
	case r := <-c.requests:
		return r
	case <-time.After(testTimeout):
		t.Fatal("no request reached the engine")
		return fakeRequest{}
	}
}

// end waits for Closed.
func (c *fakeConn) end(t testing.TB) fakeEnd {
	t.Helper()
	select {
	case e := <-c.ended:
		return e
	case <-time.After(testTimeout):
		t.Fatal("the engine was not told that the connection ended")
		return fakeEnd{}
	}
}

// fixture is a gateway on loopback.
type fixture struct {
	engine  *fakeEngine
	gateway *Gateway
	server  *httptest.Server
	url     string // ws://…
}

func start(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	return startBehind(t, change, func(l net.Listener) net.Listener { return l })
}

// startBehind is start with a listener of the test's own around the server's.
func startBehind(t testing.TB, change func(*Config), wrap func(net.Listener) net.Listener) *fixture {
	t.Helper()
	cfg := Config{Engine: newFakeEngine(), Auth: NoAuth{}, Version: "test"}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{gateway: g, server: httptest.NewUnstartedServer(g.Handler())}
	f.engine, _ = cfg.Engine.(*fakeEngine)
	f.server.Config = NewHTTPServer(g.Handler(), nil)
	f.server.Listener = Limit(wrap(f.server.Listener), ListenerConfig{})
	f.server.Start()
	f.url = "ws" + strings.TrimPrefix(f.server.URL, "http")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_ = g.Close(ctx) // cutting off what a test left open is meant
		f.server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

// client is the far end of a socket.
type client struct {
	t  testing.TB
	ws *websocket.Conn
}

// handshake is what a server answered to one.
type handshake struct {
	status int
	header http.Header
	body   string
}

// dial opens a WebSocket at path, or finds out why not: then ws is nil.
func (f *fixture) dial(t testing.TB, path string, options *websocket.DialOptions) (*websocket.Conn, handshake) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, f.url+path, options)
	if resp == nil {
		t.Fatal(err)
	}
	h := handshake{status: resp.StatusCode, header: resp.Header}
	if err == nil {
		ws.SetReadLimit(-1)
		t.Cleanup(func() { _ = ws.CloseNow() })
		return ws, h
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // the library kept the beginning of it
	h.body = string(body)
	return nil, h
}

// connect opens a WebSocket, and returns both ends.
func (f *fixture) connect(t testing.TB) (*client, *fakeConn) {
	t.Helper()
	ws, h := f.dial(t, "/ws", nil)
	if ws == nil {
		t.Fatalf("handshake: %+v", h)
	}
	return &client{t, ws}, f.accepted(t)
}

func (f *fixture) accepted(t testing.TB) *fakeConn {
	t.Helper()
	select {
	case c := <-f.engine.conns:
		return c
	case <-time.After(testTimeout):
		t.Fatal("the connection did not reach the engine")
		return nil
	}
}

func (c *client) send(frame string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	typ, frame, err := c.ws.Read(ctx)
	if err == nil && typ != websocket.MessageText {
		c.t.Errorf("a frame that is not text: %v", typ)
	}
	return frame, err
}

// recv reads one message.
func (c *client) recv() wire.Message {
	c.t.Helper()
	frame, err := c.read()
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := wire.DecodeServerMessage(frame)
	if err != nil {
		c.t.Fatalf("%v: %s", err, frame)
	}
	return m
}

// want reads one message and compares it with its JSON.
func (c *client) want(frame string) {
	c.t.Helper()
	got, err := c.read()
	if err != nil {
		c.t.Fatalf("%v, want %s", err, frame)
	}
	if string(got) != frame {
		c.t.Fatalf("got  %s\nwant %s", got, frame)
	}
}

// wantClose reads up to the close frame, which must be the next.
func (c *client) wantClose(code int) websocket.CloseError {
	c.t.Helper()
	frame, err := c.read()
	var ce websocket.CloseError
	if !errors.As(err, &ce) || int(ce.Code) != code {
		c.t.Fatalf("got %.200s %v, want close code %d", frame, err, code)
	}
	return ce
}

// outputs makes transcripts.
type outputs struct {
	t     testing.TB
	store *transcript.Store
}

func newOutputs(t testing.TB) *outputs {
	t.Helper()
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return &outputs{t, store}
}

// output is a transcript with its stdout.
type output struct {
	*transcript.Transcript
	id     string
	stdout *transcript.Writer
}

func (o *outputs) create(id string) *output {
	tr := o.store.Create(id, transcript.Options{Limit: 1 << 30})
	return &output{tr, id, tr.Writer(transcript.Stdout, transcript.WriterConfig{WholeRunes: true})}
}

func (o *output) write(s string) { _, _ = o.stdout.Write([]byte(s)) }

// complete ends the output as the engine does.
func (o *output) complete() {
	o.stdout.Close()
	o.Mark(&wire.Completed{
		ExecutionID: o.id, Status: wire.StatusCompleted, Reason: wire.ReasonExited,
		OutputBytes: o.End(),
	})
	o.Seal()
}

func (o *output) feed(after int64) actors.Feed {
	return actors.Feed{ExecutionID: o.id, Open: func(notify func()) (actors.Cursor, error) {
		cursor, err := o.Cursor(after, notify)
		if err != nil {
			return nil, err
		}
		return cursor, nil
	}}
}

// script is a cursor that gives the pieces it was made of, and at the end io.EOF,
// or ErrWait if it waits.
type script struct {
	pieces []transcript.Piece
	waits  bool
	notify func()
	offset int64
	closed atomic.Bool
}

// pause is a piece at which a script has nothing for once.
var pause = transcript.Piece{Truncated: true}

func (s *script) feed(id string) actors.Feed {
	return actors.Feed{ExecutionID: id, Open: func(notify func()) (actors.Cursor, error) {
		s.notify = notify
		return s, nil
	}}
}

func (s *script) Next(buf []byte) (transcript.Piece, error) {
	if len(s.pieces) == 0 {
		if s.waits {
			return transcript.Piece{}, transcript.ErrWait
		}
		return transcript.Piece{}, io.EOF
	}
	p := s.pieces[0]
	if p.Truncated && p.Data == nil {
		s.pieces = s.pieces[1:]
		s.notify()
		return p, transcript.ErrWait
	}
	if p.Data != nil {
		n := copy(buf, p.Data)
		s.offset += int64(n)
		s.pieces[0].Data = p.Data[n:]
		p.Data, p.Offset = buf[:n], s.offset
		if len(s.pieces[0].Data) > 0 {
			return p, nil
		}
	}
	s.offset += p.Gap
	p.Offset = s.offset
	s.pieces = s.pieces[1:]
	return p, nil
}

func (s *script) Offset() int64 { return s.offset }
func (s *script) Close()        { s.closed.Store(true) }

// logLines collects structured log records as JSON.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// get fetches a page.
func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
