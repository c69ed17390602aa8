package troupe_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fakeSession = "pod-0.0123456789abcdef"
	fakeToken   = "resume-secret"
)

// fakeServer is a scripted troupe: one session whose executions all print script, and take any
// input. The fields are set before it is used.
type fakeServer struct {
	secure   bool   // it speaks TLS
	old      bool   // it knows no acks, windows, binary messages and offsets of input
	script   []byte // of every execution
	piece    int    // bytes per process.output; 0: 64 KiB
	encoding wire.Encoding
	overlap  int64 // a resumed transcript begins that many bytes too early
	limits   wire.Limits
	hang     bool // executions never complete

	// upgrade sees the n-th handshake, from 0; true: it answered.
	upgrade func(n int, w http.ResponseWriter, r *http.Request) bool
	// request sees each request; true: it answered, or did not on purpose.
	request func(c *fakeConn, m fakeRequest) bool
	// output may change a piece before it is sent, or return nil to drop it.
	output func(n int, out *wire.Output) *wire.Output
	// wrap wraps each accepted socket.
	wrap func(n int, c net.Conn) net.Conn

	http   *httptest.Server
	conns  atomic.Int64              // handshakes seen
	closes chan websocket.StatusCode // that clients sent

	mu       sync.Mutex
	started  map[string]bool
	sockets  []net.Conn
	stdin    map[string][]byte // of each execution
	acks     []wire.AckParams
	unsent   int64    // the most that lay between what was sent and what was acknowledged
	methods  []string // of every request
	sessions int      // opened
}

type fakeRequest struct {
	ID     wire.ID         `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`

	binary bool // it came as a binary message, in Params
}

// fakeConn is one connection of a fakeServer.
type fakeConn struct {
	s      *fakeServer
	n      int
	ws     *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc
	binary bool // asked for
	wg     sync.WaitGroup
	mu     sync.Mutex
	credit *sync.Cond           // acked has changed, or ctx has ended
	follow map[string]*fakeFeed // by execution
}

// fakeFeed is a stream of output. fakeConn.mu guards acked.
type fakeFeed struct {
	id            string
	number        uint16
	window, acked int64
	sent          int64 // position up to which output was sent
	completed     bool  // the end was sent
	stop          context.CancelFunc
	done          chan struct{}
}

func (s *fakeServer) start(t testing.TB) string {
	t.Helper()
	if s.piece == 0 {
		s.piece = 64 << 10
	}
	if s.encoding == "" {
		s.encoding = wire.EncodingBase64
	}
	s.started, s.stdin = make(map[string]bool), make(map[string][]byte)
	s.closes = make(chan websocket.StatusCode, 1)
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.Listener = &wrapListener{Listener: s.http.Listener, s: s}
	if s.secure {
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	t.Cleanup(s.http.Close)
	return "ws" + strings.TrimPrefix(s.http.URL, "http") + "/ws"
}

type wrapListener struct {
	net.Listener
	s *fakeServer
	n int
}

func (l *wrapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	l.s.sockets = append(l.s.sockets, c)
	l.s.mu.Unlock()
	if l.s.wrap != nil {
		c = l.s.wrap(l.n, c)
	}
	l.n++
	return c, nil
}

// cut closes every socket there is, without a word.
func (s *fakeServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sockets {
		_ = c.Close()
	}
	s.sockets = nil
}

func (s *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	n := int(s.conns.Add(1)) - 1
	if s.upgrade != nil && s.upgrade(n, w, r) {
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	ws.SetReadLimit(16 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	c := &fakeConn{s: s, n: n, ws: ws, ctx: ctx, cancel: cancel, follow: make(map[string]*fakeFeed)}
	c.credit = sync.NewCond(&c.mu)
	c.binary = !s.old && r.URL.Query().Get("frames") == "binary"
	context.AfterFunc(ctx, c.credit.Broadcast)
	if r.URL.Query().Get("session") == "" {
		s.mu.Lock()
		s.sessions++
		s.mu.Unlock()
		c.notify(wire.MethodConnected, wire.Connected{
			SessionID: fakeSession, Version: wire.Version, ResumeToken: fakeToken,
			Limits: s.limits, Pod: "pod-0", Capabilities: s.capabilities(),
		})
	}
	c.read()
	cancel()
	_ = ws.CloseNow()
	c.wg.Wait()
}

func (s *fakeServer) capabilities() []string {
	if s.old {
		return nil
	}
	return []string{wire.CapabilityAck, wire.CapabilityRetain, wire.CapabilityBinary, wire.CapabilityInputOffset}
}

func (c *fakeConn) read() {
	for {
		kind, frame, err := c.ws.Read(context.Background())
		if err != nil {
			if code := websocket.CloseStatus(err); code != -1 {
				select {
				case c.s.closes <- code:
				default:
				}
			}
			return
		}
		m := fakeRequest{Method: wire.MethodInput, Params: frame, binary: true}
		if kind == websocket.MessageText {
			m = fakeRequest{}
		}
		if !m.binary && json.Unmarshal(frame, &m) != nil {
			return
		}
		c.s.mu.Lock()
		c.s.methods = append(c.s.methods, m.Method)
		c.s.mu.Unlock()
		if c.s.request != nil && c.s.request(c, m) {
			continue
		}
		c.serve(m)
	}
}

func (c *fakeConn) serve(m fakeRequest) {
	s := c.s
	switch m.Method {
	case wire.MethodExecute:
		var p wire.ExecuteParams
		_ = json.Unmarshal(m.Params, &p)
		s.mu.Lock()
		attached := s.started[p.ExecutionID]
		s.started[p.ExecutionID] = true
		s.mu.Unlock()
		c.reply(m.ID, wire.ExecuteResult{
			Status: "started", ExecutionID: p.ExecutionID, PID: 42, PGID: 42,
			Attached: attached,
		})
		c.stream(p.ExecutionID, 0, p.Window)
	case wire.MethodResume:
		c.resume(m)
	case wire.MethodControl:
		var p wire.ControlParams
		_ = json.Unmarshal(m.Params, &p)
		c.reply(m.ID, wire.ControlResult{Status: strings.ToLower(p.Type) + "d", ExecutionID: p.ExecutionID})
	case wire.MethodInput:
		if m.binary {
			c.takeFrame(m.Params)
			return
		}
		var p wire.InputParams
		_ = json.Unmarshal(m.Params, &p)
		data, _ := base64.StdEncoding.DecodeString(p.Data)
		if s.old {
			p.Offset = nil
		}
		s.take(p.ExecutionID, p.Offset, data)
		c.reply(m.ID, struct{}{})
	case wire.MethodAck:
		var p wire.AckParams
		_ = json.Unmarshal(m.Params, &p)
		c.ack(p)
	case wire.MethodStatus:
		s.mu.Lock()
		r := wire.StatusResult{SessionID: fakeSession, Pod: "pod-0", Executions: make(map[string]wire.ExecutionStatus)}
		for id := range s.started {
			r.Executions[id] = wire.ExecutionStatus{State: wire.StateRunning, PID: 42}
		}
		s.mu.Unlock()
		c.reply(m.ID, r)
	case wire.MethodClose:
		c.reply(m.ID, struct{}{})
		_ = c.ws.Close(websocket.StatusNormalClosure, "")
	case wire.MethodPong:
	default:
		c.reply(m.ID, struct{}{})
	}
}

func (c *fakeConn) resume(m fakeRequest) {
	var p wire.ResumeParams
	_ = json.Unmarshal(m.Params, &p)
	if p.ResumeToken != fakeToken {
		c.refuse(m.ID, wire.Errorf(wire.CodeNoSession, "no such session"))
		return
	}
	r := wire.ResumeResult{SessionID: fakeSession, Executions: make(map[string]wire.ExecutionStatus), Limits: c.s.limits}
	offsets := p.Executions
	c.s.mu.Lock()
	if offsets == nil {
		offsets = make(map[string]int64)
		for id := range c.s.started {
			offsets[id] = 0
		}
	}
	for id := range offsets {
		if c.s.started[id] {
			r.Executions[id] = wire.ExecutionStatus{
				State: wire.StateRunning, PID: 42, PGID: 42, InputOffset: int64(len(c.s.stdin[id])),
			}
		} else {
			r.Unknown = append(r.Unknown, id)
		}
	}
	c.s.mu.Unlock()
	c.reply(m.ID, r)
	for id := range r.Executions {
		c.stream(id, max(0, offsets[id]-c.s.overlap), p.Window)
	}
}

// take appends input to the stdin of an execution, but for what was taken already, and returns how
// much there is.
func (s *fakeServer) take(id string, offset *int64, data []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := int64(len(s.stdin[id]))
	if offset != nil {
		if *offset > have {
			panic("input with a hole")
		}
		data = data[min(have-*offset, int64(len(data))):]
	}
	s.stdin[id] = append(s.stdin[id], data...)
	return have + int64(len(data))
}

func (c *fakeConn) takeFrame(frame []byte) {
	f, err := wire.ParseInputFrame(frame)
	if err != nil {
		panic(err)
	}
	id := c.stdinOf(f.Stream)
	taken := c.s.take(id, &f.Offset, f.Payload)
	c.notify(wire.MethodInputTaken, wire.InputTaken{ExecutionID: id, Offset: taken})
}

func (c *fakeConn) stdinOf(stream uint16) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, f := range c.follow {
		if f.number == stream {
			return id
		}
	}
	panic("input for a stream that was not opened")
}

func (c *fakeConn) ack(p wire.AckParams) {
	c.s.mu.Lock()
	c.s.acks = append(c.s.acks, p)
	c.s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.follow[p.ExecutionID]; f != nil {
		if p.Offset > f.sent || p.Completed && !f.completed {
			panic("an ack of what was not sent on its connection")
		}
		f.acked = max(f.acked, p.Offset)
		c.credit.Broadcast()
	}
}

// stream follows an execution, in place of an earlier follow.
func (c *fakeConn) stream(id string, offset, window int64) {
	ctx, cancel := context.WithCancel(c.ctx)
	f := &fakeFeed{id: id, window: window, acked: offset, sent: offset, stop: cancel, done: make(chan struct{})}
	c.mu.Lock()
	old := c.follow[id]
	f.number = uint16(len(c.follow) + 1)
	c.follow[id] = f
	c.mu.Unlock()
	if old != nil {
		old.stop()
		<-old.done
	}
	if c.binary {
		c.notify(wire.MethodStream, wire.StreamOpened{ExecutionID: id, Stream: f.number, Offset: offset})
	}
	c.wg.Go(func() {
		defer close(f.done)
		defer cancel()
		end := int64(len(c.s.script))
		var buf []byte
		for offset < end && ctx.Err() == nil {
			next := c.awaitCredit(ctx, f, offset)
			if next == offset {
				return
			}
			out := &wire.Output{ExecutionID: id, Type: wire.Stdout, Offset: next}
			if offset/int64(c.s.piece)%2 == 1 {
				out.Type = wire.Stderr
			}
			if c.s.encoding == wire.EncodingBase64 {
				out.Encoding = wire.EncodingBase64
			}
			c.mu.Lock()
			f.sent = next
			c.mu.Unlock()
			if buf = c.send(buf, f.number, out, c.s.script[offset:next]); buf == nil {
				return
			}
			offset = next
		}
		if ctx.Err() == nil && !c.s.hang {
			c.mu.Lock()
			f.completed = true
			c.mu.Unlock()
			c.notify(wire.MethodCompleted, wire.Completed{
				ExecutionID: id, Status: wire.StatusCompleted,
				Reason: wire.ReasonExited, OutputBytes: end,
			})
		}
	})
}

// awaitCredit returns the position up to which the piece at offset may reach; offset if ctx ended.
func (c *fakeConn) awaitCredit(ctx context.Context, f *fakeFeed, offset int64) int64 {
	piece := int64(c.s.piece)
	next := min(offset+piece, int64(len(c.s.script)))
	if f.window == 0 || c.s.old {
		return next
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for f.acked+f.window <= offset && ctx.Err() == nil {
		c.credit.Wait()
	}
	next = max(offset, min(next, f.acked+f.window))
	c.s.mu.Lock()
	c.s.unsent = max(c.s.unsent, next-f.acked)
	c.s.mu.Unlock()
	return next
}

// send writes a piece and returns buf for the next one, or nil once the connection is gone.
func (c *fakeConn) send(buf []byte, number uint16, out *wire.Output, payload []byte) []byte {
	if c.s.output != nil {
		out.Data = string(payload)
		if out = c.s.output(c.n, out); out == nil {
			return []byte{}
		}
		payload = []byte(out.Data)
	}
	if c.binary {
		frame := wire.AppendOutputFrame(buf[:0], &wire.OutputFrame{
			Stream: number, Stderr: out.Type == wire.Stderr, Truncated: out.Truncated, Offset: out.Offset, Gap: out.Gap,
			Payload: payload,
		})
		if c.ws.Write(c.ctx, websocket.MessageBinary, frame) != nil {
			return nil
		}
		return frame
	}
	frame, n := wire.AppendOutput(buf[:0], out, payload, 1<<20)
	if n != len(payload) {
		panic("piece too large")
	}
	if !c.write(frame) {
		return nil
	}
	return frame
}

func (c *fakeConn) write(frame []byte) bool {
	return c.ws.Write(c.ctx, websocket.MessageText, frame) == nil
}

func (c *fakeConn) notify(method string, params any) {
	frame, err := wire.AppendNotification(nil, method, params)
	if err != nil {
		panic(err)
	}
	c.write(frame)
}

func (c *fakeConn) reply(id wire.ID, result any) {
	frame, err := wire.AppendResponse(nil, id, result, nil)
	if err != nil {
		panic(err)
	}
	c.write(frame)
}

func (c *fakeConn) refuse(id wire.ID, e *wire.Error) {
	frame, err := wire.AppendResponse(nil, id, nil, e)
	if err != nil {
		panic(err)
	}
	c.write(frame)
}

// count is how many requests of a method were seen.
func (s *fakeServer) count(method string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.methods {
		if m == method {
			n++
		}
	}
	return n
}

// impatient reconnects at once, so that tests do not wait.
var impatient = troupe.Options{Backoff: troupe.Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond}}

// dial opens a session that ends with the test.
func dial(t testing.TB, url string, opt troupe.Options) *troupe.Client {
	t.Helper()
	if opt.Backoff == (troupe.Backoff{}) {
		opt.Backoff = impatient.Backoff
	}
	c, err := troupe.Dial(t.Context(), url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
