package gateway

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// idleSocket is a connection without a socket, whose goroutines do not run.
func idleSocket(t *testing.T) *socket {
	t.Helper()
	g, err := New(Config{Engine: newFakeEngine(), Auth: NoAuth{}})
	if err != nil {
		t.Fatal(err)
	}
	return newSocket(g, "subject", "remote")
}

// TestReaderStopsAtItsBounds: the reader holds back a client that sends without reading answers, by
// the number and by the size of its requests, and continues after the first answer that is written.
func TestReaderStopsAtItsBounds(t *testing.T) {
	for name, c := range map[string]struct {
		requests, size int
		stops          bool
	}{
		"none":                        {0, 0, false},
		"one less than may be":        {MaxInFlight - 1, 10, false},
		"as many as may be":           {MaxInFlight, 10, true},
		"as many bytes as may be":     {4, maxInFlightBytes / 4, false},
		"one byte more":               {1, maxInFlightBytes + 1, true},
		"more bytes, in few requests": {5, maxInFlightBytes / 4, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := idleSocket(t)
			for range c.requests {
				conn.admit(request{id: wire.ID("1"), method: wire.MethodSignal, size: c.size})
			}
			passed := make(chan struct{}, 1)
			wait := func() {
				go func() {
					conn.awaitCapacity()
					passed <- struct{}{}
				}()
				synctest.Wait()
			}
			wait()
			if stopped := len(passed) == 0; stopped != c.stops {
				t.Errorf("%s: the reader stops: %v, want %v", name, stopped, c.stops)
			}
			if c.stops {
				conn.commit([]item{{answer: true, size: c.size}}, nil)
				synctest.Wait()
				if len(passed) != 1 {
					t.Fatalf("%s: the reader does not go on when an answer was written", name)
				}
				<-passed
				conn.admit(request{size: c.size})
				wait()
			}
			conn.end(wire.CauseClientGone)
			synctest.Wait()
			if len(passed) != 1 {
				t.Errorf("%s: the reader does not go on at the end", name)
			}
		})
	}
}

// TestMessagesThatNeverReachTheEngineCountToo: garbage is answered, so a client that sends nothing
// else is held back too.
func TestMessagesThatNeverReachTheEngineCountToo(t *testing.T) {
	for name, send := range map[string]func(*socket){
		"binary":  func(c *socket) { c.handle(websocket.MessageBinary, nil) },
		"garbage": func(c *socket) { c.handle(websocket.MessageText, []byte("garbage")) },
		"pong":    func(c *socket) { c.handle(websocket.MessageText, []byte(`{"jsonrpc":"2.0","id":1,"method":"pong"}`)) },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := idleSocket(t)
			for range MaxInFlight {
				send(c)
			}
			passed := make(chan struct{}, 1)
			go func() {
				c.awaitCapacity()
				passed <- struct{}{}
			}()
			synctest.Wait()
			if len(passed) != 0 {
				t.Errorf("%s: the reader continues beyond %d", name, MaxInFlight)
			}
			c.end(wire.CauseClientGone)
		})
	}
}

// TestNoticesAreBounded: the first notification over the bound ends the connection. Answers are
// bounded elsewhere.
func TestNoticesAreBounded(t *testing.T) {
	c := idleSocket(t)
	fill := func() {
		t.Helper()
		for range MaxPendingNotifications {
			c.Notify("x", nil)
			c.answer(wire.NullID, 1, nil, nil)
		}
		select {
		case <-c.dead:
			t.Fatal("the connection ended before there was too much")
		default:
		}
	}
	fill()
	c.take() // the writer has them
	fill()
	c.Notify("x", nil)
	select {
	case <-c.dead:
	default:
		t.Fatal("the connection continues with too much")
	}
	if c.ending != wire.CauseSlowConsumer {
		t.Errorf("ended by %s", c.ending)
	}
	if c.end(wire.CauseInternal); c.ending != wire.CauseSlowConsumer {
		t.Errorf("a later cause counts: %s", c.ending)
	}
}

// TestMessageOfTheLongestSizeIsRead: the bound is exact, and the reader does not hold much more
// than it.
func TestMessageOfTheLongestSizeIsRead(t *testing.T) {
	const limit = 1000
	conn := idleSocket(t)
	conn.g.cfg.MaxMessage = limit
	for size, want := range map[int64]error{
		0: nil, limit - 1: nil, limit: nil, limit + 1: errMessageTooBig, 1 << 30: errMessageTooBig,
	} {
		got, err := readAll(nil, io.LimitReader(zeros{}, size), limit, conn)
		if !errors.Is(err, want) || want == nil && int64(len(got)) != size {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
		if cap(got) > SmallMessage {
			t.Errorf("%d bytes: %d are held", size, cap(got))
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestReservations: there are never more sockets than may be, and none while the gateway closes.
func TestReservations(t *testing.T) {
	g, err := New(Config{Engine: newFakeEngine(), Auth: NoAuth{}, MaxConnections: 2})
	if err != nil {
		t.Fatal(err)
	}
	reserve := func(want error) {
		t.Helper()
		if err := g.reserve("subject"); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	reserve(nil)
	reserve(nil)
	reserve(errTooManyConnections)
	g.unreserve("subject")
	reserve(nil)
	reserve(errTooManyConnections)
	g.closing = true
	reserve(errClosing)
	g.unreserve("subject")
	reserve(errClosing)
	if refusalReason(errClosing) != refusedStopping || refusalReason(errTooManyConnections) != refusedFull {
		t.Error("a refusal is counted under the wrong reason")
	}
}

// TestFailedHandshakeGivesItsPlaceBack: a request that is no WebSocket's does not use up the
// connections.
func TestFailedHandshakeGivesItsPlaceBack(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxConnections = 1 })
	for range 3 {
		if status, body := get(t, f.server.URL+"/ws"); status != http.StatusUpgradeRequired {
			t.Errorf("a plain request: %d %s", status, body)
		}
	}
	f.connect(t)
}

// TestNoCloseFrameInsideAMessage: a write that took too long was cut in the middle, so a close
// frame would be part of it.
func TestNoCloseFrameInsideAMessage(t *testing.T) {
	f := start(t, nil)
	c, e := f.connect(t)
	e.client.Disconnect(wire.CauseWriteTimeout)
	frame, err := c.read()
	if code := websocket.CloseStatus(err); err == nil || code != -1 {
		t.Errorf("got %q %v, want the end of the stream", frame, err)
	}
}

// TestDeadClientIsNotWaitedFor: who answers no pings answers no close frame either.
func TestDeadClientIsNotWaitedFor(t *testing.T) {
	f := start(t, nil)
	raw := f.rawClient(t, "")
	e := f.accepted(t)
	began := time.Now()
	e.client.Disconnect(wire.CausePingTimeout)
	if _, err := io.Copy(io.Discard, raw); err != nil {
		t.Log(err) // a reset is an end too
	}
	if took := time.Since(began); took > closeTimeout-time.Second {
		t.Errorf("the socket was closed after %v", took)
	}
}
