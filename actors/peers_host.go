package actors

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// hostLink is the owner's end of a link: the client of a connection actor here, whose socket is
// elsewhere. It has a mutex rather than a mailbox, so that Follow can answer and
// output is read on the goroutine that asks for it.
type hostLink struct {
	peers *peers
	id    relay.LinkID
	peer  string

	mu    sync.Mutex
	host  *relay.Host
	conn  *Connection
	timer *time.Timer
	woken atomic.Bool
	left  bool
}

func newHostLink(p *peers, id relay.LinkID, peer string) *hostLink {
	h := &hostLink{peers: p, id: id, peer: peer}
	h.host = relay.NewHost(time.Now(), relay.HostConfig{
		Link: id, Send: p.sender(peer), Wake: h.wake, Counters: &p.counters, MaxControl: p.maxControl(),
		Connect: func(o relay.Opening) {
			h.conn = p.engine.Connect(ConnectRequest{
				Subject: o.Subject, Remote: o.Remote, SessionID: o.Session, EndsWithConnection: o.EndsWithConnection, guest: peer,
			}, h)
		},
		Request: func(id wire.ID, params any) { h.conn.Request(id, params) },
		Closed:  func(cause wire.Cause, delivered map[string]int64) { h.conn.Closed(cause, delivered) },
	})
	return h
}

// do runs f with the host, and looks after what it leaves: a timer, or the end.
func (h *hostLink) do(f func(*relay.Host, time.Time)) {
	h.mu.Lock()
	now := time.Now()
	f(h.host, now)
	ended := h.host.Done() && !h.left
	h.left = h.left || ended
	next := h.host.Next()
	switch {
	case h.left || next.IsZero():
		stopTimer(h.timer)
	case h.timer == nil:
		h.timer = time.AfterFunc(next.Sub(now), h.tick)
	default:
		h.timer.Reset(next.Sub(now))
	}
	h.mu.Unlock()
	if ended {
		h.peers.leave(h.id, roleHost, h.host.Ended())
	}
}

// wake is called from transcripts, on any goroutine, and perhaps from within do.
func (h *hostLink) wake() {
	if h.woken.CompareAndSwap(false, true) {
		h.peers.engine.dispatch.Schedule(func() {
			h.woken.Store(false)
			h.do((*relay.Host).Wake)
		})
	}
}

func (h *hostLink) peerName() string { return h.peer }
func (h *hostLink) tick()            { h.do((*relay.Host).Tick) }
func (h *hostLink) reconnected()     { h.do((*relay.Host).Reconnected) }

func (h *hostLink) frame(f *relay.Frame) {
	h.do(func(x *relay.Host, now time.Time) { x.Receive(now, f) })
}

func (h *hostLink) peerLost(end relay.Ended) {
	h.do(func(x *relay.Host, now time.Time) { x.PeerLost(now, end) })
}

// Reply implements Client.
func (h *hostLink) Reply(id wire.ID, result any, err *wire.Error) {
	h.do(func(x *relay.Host, now time.Time) { x.Reply(now, id, result, err) })
}

// Notify implements Client.
func (h *hostLink) Notify(method string, params any) {
	h.do(func(x *relay.Host, now time.Time) { x.Notify(now, method, params) })
}

// Follow implements Client.
func (h *hostLink) Follow(feed Feed) (taken bool) {
	h.do(func(x *relay.Host, now time.Time) { taken = x.Follow(now, feed) })
	return taken
}

// Disconnect implements Client.
func (h *hostLink) Disconnect(cause wire.Cause) {
	h.do(func(x *relay.Host, now time.Time) { x.Disconnect(now, cause) })
}
