package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// rawClient is a TCP connection after the WebSocket handshake, for clients that misbehave.
// extra is sent in the same packet as the handshake.
func (f *fixture) rawClient(t testing.TB, extra string) net.Conn {
	t.Helper()
	return f.rawClientAt(t, "/ws", extra)
}

func (f *fixture) rawClientAt(t testing.TB, path, extra string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + extra))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %s", resp.Status)
	}
	return conn
}

func (f *fixture) closedBy(cause wire.Cause) float64 {
	return value(f.gateway.metrics.closed.WithLabelValues(string(cause)))
}

// Only 1000 says that the client is done; any other end keeps the session for the client's return.
func TestHowAClientLeaves(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		name  string
		leave func(*websocket.Conn)
		cause wire.Cause
	}{
		{"1000", func(ws *websocket.Conn) { _ = ws.Close(websocket.StatusNormalClosure, "") }, wire.CauseClientDone},
		{"1001", func(ws *websocket.Conn) { _ = ws.Close(websocket.StatusGoingAway, "") }, wire.CauseClientGone},
		{"4000", func(ws *websocket.Conn) { _ = ws.Close(4000, "later") }, wire.CauseClientGone},
		{"no status", func(ws *websocket.Conn) { _ = ws.Close(websocket.StatusNoStatusRcvd, "") }, wire.CauseClientGone},
		{"cut", func(ws *websocket.Conn) { _ = ws.CloseNow() }, wire.CauseClientGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.closedBy(c.cause)
			cl, e := f.connect(t)
			go c.leave(cl.ws)
			if end := e.end(t); end.cause != c.cause {
				t.Errorf("cause %s, want %s", end.cause, c.cause)
			}
			if got := f.closedBy(c.cause) - before; got != 1 {
				t.Errorf("counted %v times", got)
			}
		})
	}
}

// 1000 means done also when the server is busy sending, where its writer finds the closed socket
// first.
func TestClientDoneWhileOutputFlows(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	out := outs.create("loud")
	out.write(strings.Repeat("x", 64<<20))
	for i := range 10 {
		var e *fakeConn
		if i%2 == 0 {
			var c *client
			c, e = f.connect(t)
			e.client.Follow(out.feed(0))
			c.recv()
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
		} else {
			// Closes in order and leaves at once, with output unread: the server's writes are
			// reset.
			conn := f.rawClient(t, "")
			e = f.accepted(t)
			e.client.Follow(out.feed(0))
			if _, err := io.CopyN(io.Discard, conn, 1<<20); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8})
			_ = conn.Close()
		}
		end := e.end(t)
		if end.cause != wire.CauseClientDone {
			t.Fatalf("cause %s", end.cause)
		}
		// A lower bound: of the round that the close broke nothing is claimed.
		if got, ok := end.delivered["loud"]; !ok || got > out.End() {
			t.Errorf("client %d: delivered %v", i, end.delivered)
		}
	}
}

func TestBigFrameClosesWith1009(t *testing.T) {
	f := start(t, nil)
	f.engine.handle = answerAll
	c, e := f.connect(t)
	at := `{"jsonrpc":"2.0","id":1,"method":"status","params":{"x":"`
	c.send(at + strings.Repeat("x", defaultMaxMessage-len(at)-3) + `"}}`)
	c.want(`{"jsonrpc":"2.0","id":1,"result":{}}`)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	_ = c.ws.Write(ctx, websocket.MessageText, make([]byte, 2<<20))
	if ce := c.wantClose(1009); !strings.Contains(ce.Reason, "max-message") {
		t.Errorf("reason %q", ce.Reason)
	}
	if end := e.end(t); end.cause != wire.CauseTooBig {
		t.Errorf("cause %s", end.cause)
	}
}

func TestHalfOpenSocketDiesByPingTimeout(t *testing.T) {
	const interval = 50 * time.Millisecond
	f := start(t, func(c *Config) { c.PingInterval = interval })
	f.rawClient(t, "")
	began := time.Now()
	end := f.accepted(t).end(t)
	if end.cause != wire.CausePingTimeout {
		t.Errorf("cause %s", end.cause)
	}
	if took := time.Since(began); took < 2*interval-interval/10 || took > 40*interval {
		t.Errorf("after %v, want about %v", took, 2*interval)
	}
}

// testInterval is long enough for a pong under the race detector on a busy machine.
const testInterval = 150 * time.Millisecond

// A client that answers pings and says nothing else is alive.
func TestSilentClientStays(t *testing.T) {
	f := start(t, func(c *Config) { c.PingInterval = testInterval })
	c, e := f.connect(t)
	go func() {
		for {
			if _, _, err := c.ws.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	select {
	case end := <-e.ended:
		t.Fatalf("ended by %s", end.cause)
	case <-time.After(6 * testInterval):
	}
}

// A client that never reads costs one write timeout and bounded memory.
func TestReaderThatNeverReads(t *testing.T) {
	f := start(t, func(c *Config) { c.WriteTimeout = 200 * time.Millisecond })
	outs := newOutputs(t)
	out := outs.create("loud")
	out.write(strings.Repeat("x", 64<<20))
	out.complete()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f.rawClient(t, "")
	e := f.accepted(t)
	e.client.Follow(out.feed(0))
	end := e.end(t)
	runtime.ReadMemStats(&after)
	if end.cause != wire.CauseWriteTimeout {
		t.Errorf("cause %s", end.cause)
	}
	if got := end.delivered["loud"]; got <= 0 || got >= out.End() {
		t.Errorf("delivered %d of %d", got, out.End())
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// The server does not claim a completion that it has not written: the execution stays in delivered.
func TestDelivered(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	c, e := f.connect(t)
	finished, running, unopened := outs.create("finished"), outs.create("running"), outs.create("unopened")
	finished.write("done\n")
	finished.complete()
	running.write("so far\n")
	unopened.write("12345")
	e.client.Follow(finished.feed(0))
	e.client.Follow(running.feed(3))
	c.recv()
	for c.recv().Output == nil {
	}
	_ = c.ws.CloseNow()
	end := e.end(t)
	if len(end.delivered) != 1 || end.delivered["running"] != running.End() {
		t.Errorf("delivered %v", end.delivered)
	}
}

func TestNotificationsLeftUnreadEndTheConnection(t *testing.T) {
	f := start(t, nil)
	f.rawClient(t, "")
	e := f.accepted(t)
	big := strings.Repeat("x", 1000)
	for range 100_000 {
		e.client.Notify("x", big)
		select {
		case end := <-e.ended:
			if end.cause != wire.CauseSlowConsumer {
				t.Errorf("cause %s", end.cause)
			}
			return
		default:
		}
	}
	if end := e.end(t); end.cause != wire.CauseSlowConsumer {
		t.Errorf("cause %s", end.cause)
	}
}

// A client that sends without reading is pushed back by TCP, and loses nothing.
func TestPipeliningIsPushedBack(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	const total = 3 * MaxInFlight
	go func() {
		for range total {
			if c.ws.Write(context.Background(), websocket.MessageText,
				[]byte(`{"jsonrpc":"2.0","id":1,"method":"control","params":{"type":"PAUSE"}}`)) != nil {
				return
			}
		}
	}()
	var first []fakeRequest
	for range MaxInFlight {
		first = append(first, e.next(t))
	}
	select {
	case <-e.requests:
		t.Fatalf("more than %d requests in flight", MaxInFlight)
	case <-time.After(50 * time.Millisecond): // nothing can be waited for that must not happen
	}
	for _, r := range first {
		e.client.Reply(r.id, struct{}{}, nil)
	}
	go func() {
		for range total - MaxInFlight {
			e.client.Reply((<-e.requests).id, struct{}{}, nil)
		}
	}()
	for range total {
		if m := c.recv(); m.Err != nil {
			t.Fatal(m.Err)
		}
	}
}

// While the reader is held back it does not hear pongs. That is the server's doing, not silence.
func TestHeldBackClientIsNotSilent(t *testing.T) {
	f := start(t, func(c *Config) { c.PingInterval = testInterval })
	c, e := f.connect(t)
	for range MaxInFlight {
		c.send(`{"jsonrpc":"2.0","id":1,"method":"status"}`)
	}
	go func() {
		for {
			if _, _, err := c.ws.Read(context.Background()); err != nil {
				return
			}
		}
	}()
	select {
	case end := <-e.ended:
		t.Fatalf("ended by %s", end.cause)
	case <-time.After(6 * testInterval):
	}
}

func TestDisconnectSendsWhatIsQueuedAndCloses(t *testing.T) {
	f := start(t, nil)
	outs := newOutputs(t)
	for _, cause := range wire.Causes() {
		c, e := f.connect(t)
		out := outs.create("x-" + string(cause))
		out.write(strings.Repeat("0123456789\n", 20_000))
		out.complete()
		e.client.Notify("before", nil)
		e.client.Follow(out.feed(0))
		e.client.Disconnect(cause)
		e.client.Notify("after", nil)
		if m := c.recv(); m.Method != "before" {
			t.Fatalf("%s: got %+v", cause, m)
		}
		if cause == wire.CauseWriteTimeout {
			// After a write that was cut in the middle no close frame can follow, so none is tried.
			_ = c.ws.CloseNow()
			e.end(t)
			continue
		}
		if got := c.receive(out.id, ""); int64(len(got)) != out.End() {
			t.Errorf("%s: %d bytes", cause, len(got))
		}
		if ce := c.wantClose(cause.Code()); ce.Reason != closeReasons[cause] || ce.Reason == "" || len(ce.Reason) > 123 {
			t.Errorf("%s: reason %q", cause, ce.Reason)
		}
		if end := e.end(t); end.cause != cause || len(end.delivered) != 0 {
			t.Errorf("%s: ended by %s, delivered %v", cause, end.cause, end.delivered)
		}
	}
}

// The closing handshake with a peer that is gone takes seconds: the engine must not wait for it.
func TestDisconnectOfADeadPeerBlocksNobody(t *testing.T) {
	f := start(t, nil)
	f.rawClient(t, "")
	e := f.accepted(t)
	began := time.Now()
	e.client.Disconnect(wire.CauseSessionEnded)
	e.end(t)
	if took := time.Since(began); took > closeTimeout/2 {
		t.Errorf("the engine learned of the end after %v", took)
	}
	e.client.Reply(wire.ID("1"), nil, nil) // late calls are harmless
	e.client.Notify("x", nil)
	e.client.Disconnect(wire.CauseInternal)
}

func TestPanicClosesOneConnectionWith1011(t *testing.T) {
	logs := &logLines{}
	f := start(t, func(c *Config) { c.Logger = logs.logger() })
	f.engine.handle = func(c *fakeConn, r fakeRequest) {
		if _, ok := r.params.(*wire.ControlParams); ok {
			panic("boom")
		}
		answerAll(c, r)
	}
	bystander, _ := f.connect(t)
	c, e := f.connect(t)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"control","params":{"type":"PAUSE"}}`)
	c.wantClose(1011)
	if end := e.end(t); end.cause != wire.CauseInternal {
		t.Errorf("cause %s", end.cause)
	}
	if !strings.Contains(logs.String(), "boom") || !strings.Contains(logs.String(), "ends_test.go") {
		t.Error("the log lacks the panic or its stack")
	}
	bystander.send(`{"jsonrpc":"2.0","id":1,"method":"status"}`)
	bystander.want(`{"jsonrpc":"2.0","id":1,"result":{}}`)
}

func TestGatewayCloseTellsClients(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	closed := make(chan error, 1)
	go func() { closed <- f.gateway.Close(context.Background()) }()
	c.wantClose(1012)
	if end := e.end(t); end.cause != wire.CauseDraining {
		t.Errorf("cause %s", end.cause)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, h := f.dial(t, "/ws", nil); h.status != http.StatusServiceUnavailable || h.header.Get("Retry-After") == "" {
		t.Errorf("a client after Close: %+v", h)
	}
	if n := value(f.gateway.metrics.refused.WithLabelValues(refusedStopping)); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	if n := value(f.gateway.metrics.connections); n != 0 {
		t.Errorf("%v connections open", n)
	}
}

func TestGatewayCloseCutsOffTheDeaf(t *testing.T) {
	f := start(t, nil)
	f.rawClient(t, "")
	e := f.accepted(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := f.gateway.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > closeTimeout/2 {
		t.Errorf("Close took %v", took)
	}
	e.end(t)
}

func TestTooManyConnections(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxConnections = 1 })
	c, e := f.connect(t)
	if _, h := f.dial(t, "/ws", nil); h.status != http.StatusServiceUnavailable {
		t.Fatalf("a second connection: %+v", h)
	}
	if n := value(f.gateway.metrics.refused.WithLabelValues(refusedFull)); n != 1 {
		t.Errorf("%v refusals counted", n)
	}
	_ = c.ws.Close(websocket.StatusNormalClosure, "")
	e.end(t)
	for deadline := time.Now().Add(testTimeout); ; {
		if ws, _ := f.dial(t, "/ws", nil); ws != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the place was not freed")
		}
	}
}
