package actors

import (
	"io"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// stuckCursor is a transcript on a disk that does not answer.
type stuckCursor struct {
	reading chan<- struct{}
	answer  <-chan struct{}
}

func (c *stuckCursor) Next([]byte) (transcript.Piece, error) {
	c.reading <- struct{}{}
	<-c.answer
	return transcript.Piece{}, io.EOF
}

func (c *stuckCursor) Offset() int64 { return 0 }
func (c *stuckCursor) Close()        {}

// TestSlowDiskHoldsUpItsLinkOnly: while the output of one link is read, heartbeats and the frames of all others are taken from the
// same peer, which would be called dead otherwise. What comes for that link meanwhile is bounded, and heard of afterwards.
func TestSlowDiskHoldsUpItsLinkOnly(t *testing.T) {
	s := newService(t, 2, nil)
	join := func(c *testClient, connected *wire.Connected) *testClient {
		far := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
		far.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
		far.answered(t, "1")
		return far
	}
	first := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := first.settled(t)
	far := join(first, connected)
	var slow *hostLink
	for _, l := range s.pods[0].peers.ends() {
		slow = l.(*hostLink)
	}
	second := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ = second.settled(t)
	other := join(second, connected)

	reading, answer := make(chan struct{}, 1), make(chan struct{})
	go slow.Follow(Feed{ExecutionID: "x", Open: func(func()) (Cursor, error) {
		return &stuckCursor{reading, answer}, nil
	}})
	<-reading
	far.conn.Request(wire.ID("2"), &wire.StatusParams{}) // is received on the goroutine that all links share
	eventually(t, 5*time.Second, "the request waits", func() bool {
		slow.waiting.Lock()
		defer slow.waiting.Unlock()
		return slow.handling
	})
	other.conn.Request(wire.ID("3"), &wire.StatusParams{})
	other.answered(t, "3")
	for range 10 * maxWaiting {
		slow.frame(&relay.Frame{})
		slow.reconnected()
	}
	slow.waiting.Lock()
	if n := len(slow.inbox); n > maxWaiting {
		t.Errorf("%d events wait", n)
	}
	slow.waiting.Unlock()

	close(answer)
	far.answered(t, "2")
	s.meet()
	s.stop(first, second, far, other)
}
