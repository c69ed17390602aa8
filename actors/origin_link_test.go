package actors

import (
	"io"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
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

// served opens a session on the first pod, and attaches a client through the second.
func (s *service) served(t *testing.T) (near, remote *testClient) {
	t.Helper()
	near = connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := near.settled(t)
	remote = connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	remote.answered(t, "1")
	return near, remote
}

// origins returns the first pod's.
func (s *service) origins() (all []*originLink) {
	for _, l := range s.pods[0].cluster.allLinks() {
		all = append(all, l.(*originLink))
	}
	return all
}

// TestSlowDiskHoldsUpItsLinkOnly: while the output of one link is read, the pod still takes
// heartbeats and the frames of all other links from the same peer, which would otherwise be called
// dead. Frames that arrive for that link meanwhile are bounded, and are handled afterwards.
func TestSlowDiskHoldsUpItsLinkOnly(t *testing.T) {
	s := newService(t, 2, nil)
	first, remote := s.served(t)
	slow := s.origins()[0]
	second, other := s.served(t)

	reading, answer := make(chan struct{}, 1), make(chan struct{})
	go slow.Follow(Feed{ExecutionID: "x", Open: func(func()) (Cursor, error) {
		return &stuckCursor{reading, answer}, nil
	}})
	<-reading
	remote.conn.Request(wire.ID("2"), &wire.StatusParams{}) // is received on the goroutine that all links share
	eventually(t, 5*time.Second, "the request waits", func() bool {
		slow.inboxMu.Lock()
		defer slow.inboxMu.Unlock()
		return slow.handling
	})
	other.conn.Request(wire.ID("3"), &wire.StatusParams{})
	other.answered(t, "3")
	const size = 40 << 10
	most := s.pods[0].cluster.maxControl()
	for range 2 * most / size {
		slow.post(linkFrame{frame: &relay.Frame{
			Seq: 1 << 40, Body: &relay.Frame_Request{Request: &relay.Request{Params: make([]byte, size)}}, // too early
		}})
		slow.post(linkReconnected{})
	}
	slow.inboxMu.Lock()
	if slow.cost > most || slow.cost < most-2*size {
		t.Errorf("%d events of %d bytes wait, of at most %d", len(slow.inbox), slow.cost, most)
	}
	slow.inboxMu.Unlock()

	close(answer)
	remote.answered(t, "2")
	s.meet()
	s.stop(first, second, remote, other)
}

// endlessCursor always has more.
type endlessCursor struct{ offset int64 }

func (c *endlessCursor) Next(buf []byte) (transcript.Piece, error) {
	c.offset += int64(len(buf))
	return transcript.Piece{Data: buf, Offset: c.offset}, nil
}

func (c *endlessCursor) Offset() int64 { return c.offset }
func (c *endlessCursor) Close()        {}

// TestStandstillOfAPeerLosesNothing: what dozens of commands print while the pod of their clients
// stands still waits for it.
func TestStandstillOfAPeerLosesNothing(t *testing.T) {
	s := newService(t, 2, nil)
	var clients []*testClient
	for range 64 {
		near, remote := s.served(t)
		remote.mute = true
		clients = append(clients, near, remote)
	}
	still := s.pods[1].cluster
	still.mu.Lock() // no envelope is taken
	for _, h := range s.origins() {
		h.Follow(Feed{ExecutionID: "x", Open: func(func()) (Cursor, error) { return new(endlessCursor), nil }})
	}
	// This waits as long as it takes, but ends before the pod would be called dead.
	owner, enough := s.pods[0].cluster, congested
	waited := 0
	for until := time.Now().Add(relay.DeadAfter - time.Second); waited < enough && time.Now().Before(until); {
		waited = owner.transport.Queued("pod-1")
		time.Sleep(time.Millisecond)
	}
	still.mu.Unlock()
	if waited < enough {
		t.Errorf("%d bytes waited: too few to show anything", waited)
	}
	s.meet()
	if n := metricValue(t, owner.metrics.Lost.WithLabelValues("queue_full")); n != 0 {
		t.Errorf("%v envelopes were lost", n)
	}
	if n := owner.counters.Resends.Load(); n != 0 {
		t.Errorf("%d frames were sent again", n)
	}
	s.stop(clients...)
}

// TestPanicInALinkEndsTheLink: and nothing else, since what peers send leads there.
func TestPanicInALinkEndsTheLink(t *testing.T) {
	s := newService(t, 2, nil)
	near, remote := s.served(t)
	h := s.origins()[0]
	h.post(linkFrame{}) // nothing checks for that
	eventually(t, 5*time.Second, "the client is disconnected", func() bool { _, ended := remote.hasEnded(); return ended })
	eventually(t, 5*time.Second, "the link is gone", func() bool { return len(s.origins()) == 0 })
	other, again := s.served(t)
	s.meet()
	s.stop(near, remote, other, again)
}

// TestUnreadOutputCountsWhileThereIsASocket: the client of a link that has ended may have all of
// its window unread, while others come.
func TestUnreadOutputCountsWhileThereIsASocket(t *testing.T) {
	s := newService(t, 2, nil)
	near, remote := s.served(t)
	remote.pulls.Add(1) // its socket is still being written to
	p := s.pods[1].cluster
	p.allLinks()[0].post(linkPeerLost{relay.EndedPeerDead})
	eventually(t, 5*time.Second, "the link is gone", func() bool { return p.held.proxies.Load() == 0 })
	if n := p.readers.Load(); n != 1 {
		t.Errorf("%d clients read", n)
	}
	remote.pulls.Done()
	eventually(t, 5*time.Second, "nobody reads", func() bool { return p.readers.Load() == 0 })
	s.stop(near, remote)
}
