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

// originLink is the owner's end of a link: the client of a connection actor here, whose socket is
// elsewhere. Its origin has a mutex rather than a mailbox, so that Follow can answer. The
// origin reads transcripts, and a disk may take its time: what comes from the peer waits in an inbox,
// so that only this link and its connection's actor wait for that. The inbox takes what a proxy may have unacknowledged;
// what is over that is dropped, and sent again.
type originLink struct {
	peers *cluster
	id    relay.LinkID
	peer  string

	mu     sync.Mutex
	origin *relay.Origin
	conn   *Connection
	timer  *time.Timer
	woken  atomic.Bool
	left   bool

	waiting  sync.Mutex // for what follows; held for no longer than it takes to append
	inbox    []originEvent
	cost     int  // of inbox
	handling bool // a goroutine is emptying inbox
}

// originEvent is something that an origin is to hear of.
type originEvent struct {
	do   func(*relay.Origin, time.Time)
	cost int // in bytes
}

func newOriginLink(p *cluster, id relay.LinkID, peer string) *originLink {
	h := &originLink{peers: p, id: id, peer: peer}
	h.origin = relay.NewOrigin(time.Now(), relay.OriginConfig{
		Link: id, Send: p.sender(peer), Wake: h.wake, Counters: &p.counters, MaxControl: p.maxControl(), Window: p.originWindow(peer),
		Connect: func(o relay.OpenParams) {
			h.conn = p.engine.Connect(ConnectRequest{
				Subject: o.Subject, Remote: o.Remote, SessionID: o.Session, EndsWithConnection: o.EndsWithConnection, proxyPod: peer,
			}, h)
		},
		Request: func(id wire.ID, params any) { h.conn.Request(id, params) },
		Closed:  func(cause wire.Cause, delivered map[string]int64) { h.conn.Closed(cause, delivered) },
	})
	return h
}

// do runs f with the origin, and looks after what it leaves: a timer, or the end.
func (h *originLink) do(f func(*relay.Origin, time.Time)) {
	if h.locked(f) {
		h.peers.leave(h.id, roleOrigin, h.origin.Ended())
	}
}

// locked reports whether the link has just ended.
func (h *originLink) locked(f func(*relay.Origin, time.Time)) (ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.guarded(f, now)
	ended = h.origin.Done() && !h.left
	h.left = h.left || ended
	next := h.origin.Next()
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

// guarded runs f with the origin. A panic ends the link, and not the pod: what a peer sends is handled here.
func (h *originLink) guarded(f func(*relay.Origin, time.Time), now time.Time) {
	defer func() {
		if r := recover(); r != nil {
			h.peers.engine.metrics.panics.WithLabelValues("connection").Inc()
			h.peers.log.Error("panic in a link", "peer", h.peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			h.origin.Fail(now)
		}
	}()
	f(h.origin, now)
}

// wake is called from transcripts, on any goroutine, and perhaps from within do.
func (h *originLink) wake() {
	if h.woken.CompareAndSwap(false, true) {
		h.peers.engine.dispatch.Schedule(func() {
			h.woken.Store(false)
			h.do((*relay.Origin).Wake)
		})
	}
}

// post has the origin hear of something, after what was posted before. It does not wait for the
// origin, and drops what is too much, unless it costs nothing.
func (h *originLink) post(cost int, do func(*relay.Origin, time.Time)) {
	h.waiting.Lock()
	defer h.waiting.Unlock()
	if h.cost+cost > h.peers.maxControl() && cost > 0 {
		return
	}
	h.inbox = append(h.inbox, originEvent{do, cost})
	h.cost += cost
	if !h.handling {
		h.handling = true
		h.peers.engine.dispatch.Schedule(h.handle)
	}
}

// next takes what came first out of the inbox, nil if nothing is there.
func (h *originLink) next() func(*relay.Origin, time.Time) {
	h.waiting.Lock()
	defer h.waiting.Unlock()
	if h.handling = len(h.inbox) > 0; !h.handling {
		h.inbox = nil // its array keeps the size of the longest queue there was
		return nil
	}
	e := h.inbox[0]
	h.inbox[0] = originEvent{}
	h.inbox = h.inbox[1:]
	h.cost -= e.cost
	return e.do
}

// handle empties the inbox.
func (h *originLink) handle() {
	for f := h.next(); f != nil; f = h.next() {
		h.do(f)
	}
}

func (h *originLink) peerName() string { return h.peer }
func (h *originLink) tick()            { h.do((*relay.Origin).Tick) } // on its timer's goroutine
func (h *originLink) reconnected()     { h.post(relay.FrameCost, (*relay.Origin).Reconnected) }

func (h *originLink) frame(f *relay.Frame) {
	h.post(relay.FrameCost+proto.Size(f), func(x *relay.Origin, now time.Time) { x.Receive(now, f) })
}

func (h *originLink) peerLost(end relay.Ended) {
	h.post(0, func(x *relay.Origin, now time.Time) { x.PeerLost(now, end) })
}

// Reply implements Client.
func (h *originLink) Reply(id wire.ID, result any, err *wire.Error) {
	h.do(func(x *relay.Origin, now time.Time) { x.Reply(now, id, result, err) })
}

// Notify implements Client.
func (h *originLink) Notify(method string, params any) {
	h.do(func(x *relay.Origin, now time.Time) { x.Notify(now, method, params) })
}

// Follow implements Client.
func (h *originLink) Follow(feed Feed) (taken bool) {
	h.do(func(x *relay.Origin, now time.Time) { taken = x.Follow(now, feed) })
	return taken
}

// Disconnect implements Client.
func (h *originLink) Disconnect(cause wire.Cause) {
	h.do(func(x *relay.Origin, now time.Time) { x.Disconnect(now, cause) })
}
