package gateway

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// brokenConn is a network connection that is gone: whatever is written fails.
type brokenConn struct{ net.Conn }

func (brokenConn) Write([]byte) (int, error) { return 0, errors.New("broken") }

// breakConn breaks the server's end of a connection, and leaves the reader's.
func breakConn(t *testing.T, e *fakeConn) {
	t.Helper()
	c, ok := e.client.(*socket)
	if !ok {
		t.Fatalf("the engine's client is a %T", e.client)
	}
	c.conn.mu.Lock()
	c.conn.Conn = brokenConn{c.conn.Conn}
	c.conn.mu.Unlock()
}

// TestFlushThatFailsIsNotClaimed: a short output and its completion wait in the cork. When the
// flush fails, neither was delivered, and the session must be kept for a client that reads them.
func TestFlushThatFailsIsNotClaimed(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write("hello\n")
	out.complete()
	_, e := f.connect(t)
	breakConn(t, e)
	e.client.Follow(out.feed(0))
	end := e.end(t)
	if got, ok := end.delivered["x"]; !ok || got != 0 {
		t.Errorf("ended by %s, delivered %v, want x at 0", end.cause, end.delivered)
	}
}

// TestFeedBehindAFailedWriteIsReported: a feed that the writer did not come to has delivered what
// came before it.
func TestFeedBehindAFailedWriteIsReported(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write("hello\n")
	out.complete()
	_, e := f.connect(t)
	breakConn(t, e)
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

// shortConn is a network connection that breaks after some bytes.
type shortConn struct {
	net.Conn
	left int
}

func (c *shortConn) Write(p []byte) (int, error) {
	if c.left < len(p) {
		return 0, errors.New("broken")
	}
	c.left -= len(p)
	return c.Conn.Write(p)
}

// TestDeliveredIsWhatMessagesCarried: a message takes less than was pulled for it. What it left
// over has not been delivered, or a client that resumes would miss it.
func TestDeliveredIsWhatMessagesCarried(t *testing.T) {
	f := start(t, nil)
	out := newOutputs(t).create("x")
	out.write(strings.Repeat("x", 3*pullSize))
	c, e := f.connect(t)
	conn := e.client.(*socket).conn
	conn.mu.Lock()
	conn.Conn = &shortConn{conn.Conn, wire.MaxOutputMessage + wire.MaxOutputMessage/2}
	conn.mu.Unlock()
	e.client.Follow(out.feed(0))
	received := c.recv().Output.Offset
	if end := e.end(t); received == 0 || end.delivered["x"] != received {
		t.Errorf("delivered %v, the client has %d", end.delivered, received)
	}
}

// TestCompletedWithSurvivorsIsRead: the output of what is kept goes on, but its end has been read,
// so the client need not come back.
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
