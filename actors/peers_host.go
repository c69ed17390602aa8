package actors

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// hostLink is the owner's end of a link: the client of a connection actor here, whose socket is
// elsewhere. Its host has a mutex rather than a mailbox, so that Follow can answer. The
// host reads transcripts, and a disk may take its time: what comes from the peer waits in an inbox,
// so that only this link and its connection's actor wait for that. The inbox takes what a guest may have unacknowledged;
// what is over that is dropped, and sent again.
type hostLink struct {
	peers *cluster
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
	cost     int  // of inbox
	handling bool // a goroutine is emptying inbox
}

// hostEvent is something that a host is to hear of.
type hostEvent struct {
	do   func(*relay.Host, time.Time)
	cost int // in bytes
}

func newHostLink(p *cluster, id relay.LinkID, peer string) *hostLink {
	h := &hostLink{peers: p, id: id, peer: peer}
	h.host = relay.NewHost(time.Now(), relay.HostConfig{
		Link: id, Send: p.sender(peer), Wake: h.wake, Counters: &p.counters, MaxControl: p.maxControl(), Window: p.hostWindow(peer),
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
	if h.locked(f) {
		h.peers.leave(h.id, roleHost, h.host.Ended())
	}
}

// locked reports whether the link has just ended.
func (h *hostLink) locked(f func(*relay.Host, time.Time)) (ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.guarded(f, now)
	ended = h.host.Done() && !h.left
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
	return ended
}

// guarded runs f with the host. A panic ends the link, and not the pod: what a peer sends is handled here.
func (h *hostLink) guarded(f func(*relay.Host, time.Time), now time.Time) {
	defer func() {
		if r := recover(); r != nil {
			h.peers.engine.metrics.panics.WithLabelValues("connection").Inc()
			h.peers.log.Error("panic in a link", "peer", h.peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			h.host.Fail(now)
		}
	}()
	f(h.host, now)
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
// host, and drops what is too much, unless it costs nothing.
func (h *hostLink) post(cost int, do func(*relay.Host, time.Time)) {
	h.waiting.Lock()
	defer h.waiting.Unlock()
	if h.cost+cost > h.peers.maxControl() && cost > 0 {
		return
	}
	h.inbox = append(h.inbox, hostEvent{do, cost})
	h.cost += cost
	if !h.handling {
		h.handling = true
		h.peers.engine.dispatch.Schedule(h.handle)
	}
}

// next takes what came first out of the inbox, nil if nothing is there.
func (h *hostLink) next() func(*relay.Host, time.Time) {
	h.waiting.Lock()
	defer h.waiting.Unlock()
	if h.handling = len(h.inbox) > 0; !h.handling {
		h.inbox = nil // its array keeps the size of the longest queue there was
		return nil
	}
	e := h.inbox[0]
	h.inbox[0] = hostEvent{}
	h.inbox = h.inbox[1:]
	h.cost -= e.cost
	return e.do
}

// handle empties the inbox.
func (h *hostLink) handle() {
	for f := h.next(); f != nil; f = h.next() {
		h.do(f)
	}
}

func (h *hostLink) peerName() string { return h.peer }
func (h *hostLink) tick()            { h.do((*relay.Host).Tick) } // on its timer's goroutine
func (h *hostLink) reconnected()     { h.post(relay.FrameCost, (*relay.Host).Reconnected) }

func (h *hostLink) frame(f *relay.Frame) {
	h.post(relay.FrameCost+proto.Size(f), func(x *relay.Host, now time.Time) { x.Receive(now, f) })
}

func (h *hostLink) peerLost(end relay.Ended) {
	h.post(0, func(x *relay.Host, now time.Time) { x.PeerLost(now, end) })
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
