package gateway

import (
	"errors"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// breakable is a network connection whose writes fail once it has carried as many bytes as it may.
// Reads go on.
type breakable struct {
	net.Conn
	left atomic.Int64
}

func (c *breakable) Write(p []byte) (int, error) {
	if c.left.Add(-int64(len(p))) < 0 {
		return 0, errors.New("broken")
	}
	return c.Conn.Write(p)
}

type breakableListener struct{ net.Listener }

func (l breakableListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &breakable{Conn: conn}
	c.left.Store(math.MaxInt64)
	return c, nil
}

// startBreakable starts a server whose connections can be broken.
func startBreakable(t *testing.T) *fixture {
	t.Helper()
	return startBehind(t, nil, func(l net.Listener) net.Listener { return breakableListener{l} })
}

// breakConn lets a connection carry that many more bytes.
func breakConn(t *testing.T, e *fakeConn, left int64) {
	t.Helper()
	s, ok := e.client.(*socket)
	if !ok {
		t.Fatalf("the engine's client is a %T", e.client)
	}
	c, ok := s.conn.Conn.(*breakable)
	if !ok {
		t.Fatalf("the connection is a %T", s.conn.Conn)
	}
	c.left.Store(left)
}

// TestFlushThatFailsIsNotClaimed: a short output and its completion wait in the cork. When the
// flush fails, neither was delivered, and the session must be kept for a client that reads them.
func TestFlushThatFailsIsNotClaimed(t *testing.T) {
	f := startBreakable(t)
	out := newOutputs(t).create("x")
	out.write("hello\n")
	out.complete()
	_, e := f.connect(t)
	breakConn(t, e, 0)
	e.client.Follow(out.feed(0))
	end := e.end(t)
	if got, ok := end.delivered["x"]; !ok || got != 0 {
		t.Errorf("ended by %s, delivered %v, want x at 0", end.cause, end.delivered)
	}
}

// TestFeedBehindAFailedWriteIsReported: a feed that the writer did not come to has delivered what
// came before it.
func TestFeedBehindAFailedWriteIsReported(t *testing.T) {
	f := startBreakable(t)
	out := newOutputs(t).create("x")
	out.write("hello\n")
	out.complete()
	_, e := f.connect(t)
	breakConn(t, e, 0)
	c, _ := e.client.(*socket)
	c.mu.Lock() // both in one round
	c.queue = append(c.queue, item{method: "big", result: strings.Repeat("x", 2*corkLimit)})
	feed := out.feed(3)
	c.queue = append(c.queue, item{feed: &feed})
	c.signal()
	c.mu.Unlock()
	end := e.end(t)
	if got, ok := end.delivered["x"]; !ok || got != 3 {
		t.Errorf("ended by %s, delivered %v, want x at 3", end.cause, end.delivered)
	}
	if end.cause == wire.CauseClientDone {
		t.Error("a broken connection counts as a client that is done")
	}
}

// TestDeliveredIsWhatMessagesCarried: a message takes less than was pulled for it. What it left
// over has not been delivered, or a client that resumes would miss it.
func TestDeliveredIsWhatMessagesCarried(t *testing.T) {
	f := startBreakable(t)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 3*pullSize))
	c, e := f.connect(t)
	breakConn(t, e, wire.MaxOutputMessage+wire.MaxOutputMessage/2)
	e.client.Follow(out.feed(0))
	received := c.recv().Output.Offset
	if end := e.end(t); received == 0 || end.delivered["x"] != received {
		t.Errorf("delivered %v, the client has %d", end.delivered, received)
	}
}

// TestCompletedWithSurvivorsIsRead: surviving processes may still print, but the client has read
// the end of the execution, so it need not come back.
func TestCompletedWithSurvivorsIsRead(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	c, e := f.connect(t)
	e.client.Follow(out.feed(0))
	out.write("hello\n")
	out.Mark(&wire.Completed{ExecutionID: out.id, Status: wire.StatusCompleted, Reason: wire.ReasonExited})
	for c.recv().Method != wire.MethodCompleted {
	}
	e.client.Notify("after", nil) // written in a round after the one with the mark, which has been settled then
	for c.recv().Method != "after" {
	}
	_ = c.ws.CloseNow()
	if end := e.end(t); len(end.delivered) != 0 {
		t.Errorf("ended by %s, delivered %v, want none to be unread", end.cause, end.delivered)
	}
}
