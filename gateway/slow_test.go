package gateway

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/wire"
)

// slowClient is a raw connection whose kernel holds little.
func (f *fixture) slowClient(t *testing.T) net.Conn {
	t.Helper()
	conn := f.rawClient(t, "")
	if err := conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readSlowly reads everything up to the close frame, and pauses before each piece.
func readSlowly(conn net.Conn, piece int, pause time.Duration, cause wire.Cause) ([]byte, error) {
	var all []byte
	buf := make([]byte, piece)
	for !bytes.HasSuffix(all, []byte(closeReasons[cause])) {
		time.Sleep(pause)
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			return all, err
		}
	}
	return all, conn.Close()
}

// moby#45689: a reader that is slower than the server's timeouts gets everything, as long as it
// takes some of it within each. Here both one write and what follows Disconnect take longer.
func TestFlushGoesOnWhileTheClientReads(t *testing.T) {
	const timeout = 250 * time.Millisecond
	f := start(t, func(c *Config) { c.WriteTimeout = timeout })
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("0123456789abcde\n", 1<<20/16))
	out.complete()
	conn := f.slowClient(t)
	e := f.accepted(t)
	e.client.Notify("big", strings.Repeat("b", 2<<20))
	e.client.Follow(out.feed(0))
	e.client.Disconnect(wire.CauseDraining)
	began := time.Now()
	all, err := readSlowly(conn, 256<<10, 20*time.Millisecond, wire.CauseDraining)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(all), err)
	}
	if took := time.Since(began); took < 3*timeout {
		t.Errorf("it was read within %v, which shows nothing", took)
	}
	if n := bytes.Count(all, []byte("0123456789abcde")); n != 1<<20/16 || !bytes.Contains(all, []byte(`"process.completed"`)) {
		t.Errorf("got %d lines of %d, and %d bytes in all", n, 1<<20/16, len(all))
	}
	if end := e.end(t); end.cause != wire.CauseDraining || len(end.delivered) != 0 {
		t.Errorf("ended by %s, delivered %v", end.cause, end.delivered)
	}
}

// A client that takes nothing is not waited for longer than the write timeout.
func TestFlushEndsWhenTheClientTakesNothing(t *testing.T) {
	f := start(t, func(c *Config) { c.WriteTimeout = 200 * time.Millisecond })
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 32<<20))
	f.slowClient(t)
	e := f.accepted(t)
	e.client.Follow(out.feed(0))
	e.client.Disconnect(wire.CauseSessionEnded)
	if end := e.end(t); end.delivered["x"] == 0 || end.delivered["x"] == out.End() {
		t.Errorf("ended by %s, delivered %v", end.cause, end.delivered)
	}
}

// With a window, it is the acks that show that the client goes on.
func TestFlushGoesOnWhileTheClientAcknowledges(t *testing.T) {
	f := start(t, func(c *Config) { c.WriteTimeout = 300 * time.Millisecond })
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 64<<10))
	out.complete()
	c, e := f.connect(t)
	e.client.Follow(windowed(out.feed(0), 4096))
	e.client.Disconnect(wire.CauseDraining)
	for at := int64(4096); at < out.End(); at += 4096 {
		c.upTo(at)
		time.Sleep(50 * time.Millisecond)
		c.ack("x", at, false)
	}
	c.upTo(out.End())
	if m := c.recv(); m.Method != wire.MethodCompleted {
		t.Errorf("got %s", m.Method)
	}
	c.wantClose(wire.CauseDraining.Code())

	other, e2 := f.connect(t)
	e2.client.Follow(windowed(out.feed(0), 4096))
	e2.client.Disconnect(wire.CauseDraining)
	other.upTo(4096)
	other.wantClose(wire.CauseDraining.Code()) // no ack came
	if end := e2.end(t); end.delivered["x"] != 0 {
		t.Errorf("delivered %v, nothing was acknowledged", end.delivered)
	}
}

// tcpPair returns the two ends of a connection, the first as the gateway has it.
func tcpPair(t *testing.T) (*netConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	_ = far.(*net.TCPConn).SetReadBuffer(16 << 10)
	return &netConn{Conn: near, metrics: newMetrics(nil), timeout: time.Second}, far.(*net.TCPConn)
}

// A close with something unread makes Linux reset the connection, and what the kernel still had to
// send is lost.
func TestCloseDoesNotReset(t *testing.T) {
	for name, closeIt := range map[string]func(*netConn){
		"close": func(c *netConn) { _ = c.Close() },
		"abort": func(c *netConn) { c.abort() },
	} {
		near, far := tcpPair(t)
		if _, err := far.Write(bytes.Repeat([]byte("unread"), 10_000)); err != nil {
			t.Fatal(err)
		}
		sent, err := near.Write(make([]byte, 512<<10))
		if err != nil {
			t.Fatal(err)
		}
		for len(peek(t, near)) == 0 {
			time.Sleep(time.Millisecond)
		}
		if near.unsent() == 0 {
			t.Fatal("the kernel has sent everything, which shows nothing")
		}
		closeIt(near)
		got, err := io.Copy(io.Discard, far)
		if err != nil || got != int64(sent) {
			t.Errorf("%s: the client got %d bytes of %d, %v", name, got, sent, err)
		}
	}
}

// peek returns what has arrived and was not read.
func peek(t *testing.T, c *netConn) []byte {
	t.Helper()
	buf := make([]byte, 16)
	n := 0
	c.onSocket(func(fd int) {
		var err error
		if n, _, err = unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT|unix.MSG_PEEK); err != nil {
			n = 0
		}
	})
	return buf[:n]
}

// The close waits for a client that is still reading what was written to it, and for no other.
func TestCloseWaitsForWhatIsUnderWay(t *testing.T) {
	near, far := tcpPair(t)
	s := &socket{g: &Gateway{}, conn: near, readerDone: make(chan struct{})}
	s.g.cfg.WriteTimeout = 300 * time.Millisecond
	const size = 1 << 20
	if _, err := near.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	waited := make(chan int, 1)
	go func() {
		s.awaitSent()
		waited <- near.unsent()
	}()
	for n := 0; n < size; n += 64 << 10 {
		time.Sleep(50 * time.Millisecond)
		if _, err := io.CopyN(io.Discard, far, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	if left := <-waited; left != 0 {
		t.Errorf("%d bytes are still under way", left)
	}
	if _, err := near.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.awaitSent() // nobody reads
	if took := time.Since(began); took > 10*s.g.cfg.WriteTimeout {
		t.Errorf("waited %v for a client that takes nothing", took)
	}
	close(s.readerDone)
	began = time.Now()
	s.awaitSent()
	if took := time.Since(began); took > s.g.cfg.WriteTimeout {
		t.Errorf("waited %v for a client that has closed", took)
	}
}

// A ping waits behind output. A client that is still reading that is not silent.
func TestSlowReaderIsNotSilent(t *testing.T) {
	near, far := tcpPair(t)
	s := idleSocket(t)
	s.conn = near
	tick := func(want wire.Cause) {
		t.Helper()
		s.sent = 1 // no notification is due
		near.heard.Store(clock() - int64(2*s.g.cfg.PingInterval))
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		if s.tick(timer); s.ending != want {
			t.Fatalf("ended by %q, want %q", s.ending, want)
		}
	}
	read := func(n int64) {
		t.Helper()
		before := near.unsent()
		if _, err := io.CopyN(io.Discard, far, n); err != nil {
			t.Fatal(err)
		}
		for near.unsent() >= before {
			time.Sleep(time.Millisecond)
		}
	}
	if _, err := near.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	s.takesBacklog() // it was sent before the last tick
	read(512 << 10)
	tick("")
	read(512 << 10)
	tick("")
	tick(wire.CausePingTimeout) // it took pings only
}

// Pings of a client are answered by the writer, which waits for a slow client as it should; the
// library would give up after 5 s.
func TestPingsAreAnswered(t *testing.T) {
	f := start(t, nil)
	c, _ := f.connect(t)
	go func() { _, _, _ = c.ws.Read(context.Background()) }()
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		if err := c.ws.Ping(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	_ = c.ws.Close(websocket.StatusNormalClosure, "")
}
