package actors

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// maxWaiting is how many frames wait for one link here. An honest peer that has heard of nothing
// for so long sends fewer; what is over it is dropped, and sent again.
const maxWaiting = 256

// hostLink is the owner's end of a link: the client of a connection actor here, whose socket is
// elsewhere. Its host has a mutex rather than a mailbox, so that Follow can answer. The
// host reads transcripts, and a disk may take its time: what comes from the peer waits in an inbox,
// so that only this link and its connection's actor wait for that.
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

	waiting  sync.Mutex // for what follows; held for no longer than it takes to append
	inbox    []hostEvent
	handling bool // a goroutine is emptying inbox
}

// hostEvent is something that a host is to hear of.
type hostEvent func(*relay.Host, time.Time)

func newHostLink(p *peers, id relay.LinkID, peer string) *hostLink {
	h := &hostLink{peers: p, id: id, peer: peer}
	h.host = relay.NewHost(time.Now(), relay.HostConfig{
		Link: id, Send: p.sender(peer), Wake: h.wake, Counters: &p.counters, MaxControl: p.maxControl(), Window: p.window(roleHost),
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
func (h *hostLink) do(f hostEvent) {
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

// post has the host hear of something, after what was posted before. It does not wait for the
// host, and drops what is too much, unless that must not be lost.
func (h *hostLink) post(f hostEvent, must bool) {
	h.waiting.Lock()
	defer h.waiting.Unlock()
	if len(h.inbox) >= maxWaiting && !must {
		return
	}
	h.inbox = append(h.inbox, f)
	if !h.handling {
		h.handling = true
		h.peers.engine.dispatch.Schedule(h.handle)
	}
}

// handle empties the inbox.
func (h *hostLink) handle() {
	for {
		h.waiting.Lock()
		events := h.inbox
		h.inbox = nil
		h.handling = len(events) > 0
		h.waiting.Unlock()
		if len(events) == 0 {
			return
		}
		for _, f := range events {
			h.do(f)
		}
	}
}

func (h *hostLink) peerName() string { return h.peer }
func (h *hostLink) tick()            { h.do((*relay.Host).Tick) } // on its timer's goroutine
func (h *hostLink) reconnected()     { h.post((*relay.Host).Reconnected, false) }

func (h *hostLink) frame(f *relay.Frame) {
	h.post(func(x *relay.Host, now time.Time) { x.Receive(now, f) }, false)
}

func (h *hostLink) peerLost(end relay.Ended) {
	h.post(func(x *relay.Host, now time.Time) { x.PeerLost(now, end) }, true)
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
