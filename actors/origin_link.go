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
// on another pod. Its origin has a mutex rather than a mailbox, because Follow has to return an
// answer.
//
// The origin reads transcripts, and a disk may be slow. So events wait in an inbox, and only this
// link and its connection's actor wait for the disk. The inbox takes as much as a proxy may have
// unacknowledged; it drops frames beyond that, and the proxy sends them again.
type originLink struct {
	cluster *cluster
	id      relay.LinkID
	peer    string

	mu      sync.Mutex
	origin  *relay.Origin
	conn    *Connection
	timer   *time.Timer
	woken   atomic.Bool // a call of Wake is on its way
	removed bool        // it has ended

	inboxMu  sync.Mutex // for what follows; never held for longer than it takes to append
	inbox    []linkEvent
	cost     int  // of inbox, in bytes
	handling bool // a goroutine is emptying inbox
}

func newOriginLink(p *cluster, id relay.LinkID, peer string) *originLink {
	h := &originLink{cluster: p, id: id, peer: peer}
	h.origin = relay.NewOrigin(time.Now(), relay.OriginConfig{
		Link: id, Send: p.sender(peer), Wake: h.wake, Counters: &p.counters,
		MaxControl: p.maxControl(), Budget: p.budget, Window: p.originWindow(peer),
		Connect: func(o relay.OpenParams) {
			h.conn = p.engine.Connect(ConnectRequest{
				Subject: o.Subject, Remote: o.Remote, SessionID: o.Session, EndsWithConnection: o.EndsWithConnection,
				Options: o.Options, proxyPod: peer,
			}, h)
		},
		Request: func(id wire.ID, params any) { h.conn.Request(id, params) },
		Closed:  func(cause wire.Cause, delivered map[string]int64) { h.conn.Closed(cause, delivered) },
	})
	return h
}

// do runs f with the origin. Then it sets the timer for what the origin has to do next, or removes
// the link if it has ended.
func (h *originLink) do(f func(*relay.Origin, time.Time)) {
	if h.locked(f) {
		h.cluster.remove(h.id, roleOrigin, h.origin.Ended())
	}
}

// locked reports whether the link has just ended.
func (h *originLink) locked(f func(*relay.Origin, time.Time)) (ended bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.guarded(f, now)
	ended = h.origin.Done() && !h.removed
	h.removed = h.removed || ended
	next := h.origin.Next()
	switch {
	case h.removed || next.IsZero():
		stopTimer(h.timer)
	case h.timer == nil:
		h.timer = time.AfterFunc(next.Sub(now), func() { h.handle(linkDue{}) })
	default:
		h.timer.Reset(next.Sub(now))
	}
	return ended
}

// guarded runs f with the origin. A panic ends the link, and not the pod: this code handles what a
// peer has sent.
func (h *originLink) guarded(f func(*relay.Origin, time.Time), now time.Time) {
	defer func() {
		if r := recover(); r != nil {
			h.cluster.engine.metrics.panics.WithLabelValues("connection").Inc()
			h.cluster.log.Error("panic in a link", "peer", h.peer, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			h.origin.Fail(now)
		}
	}()
	f(h.origin, now)
}

// handle has the origin handle an event now.
func (h *originLink) handle(event linkEvent) {
	h.do(func(o *relay.Origin, now time.Time) {
		switch e := event.(type) {
		case linkFrame:
			o.Receive(now, e.frame)
			e.free()
		case linkPeerLost:
			o.PeerLost(now, e.cause)
		case linkReconnected:
			o.Reconnected(now)
		case linkWoken:
			h.woken.Store(false)
			o.Wake(now)
		case linkDue:
			o.Tick(now)
		}
	})
}

// wake is called by transcripts, on any goroutine, perhaps from within do.
func (h *originLink) wake() {
	if h.woken.CompareAndSwap(false, true) {
		h.cluster.engine.dispatch.Schedule(func() { h.handle(linkWoken{}) })
	}
}

func (h *originLink) peerName() string { return h.peer }

// costOf returns what an event costs in an inbox, in bytes. An event that costs nothing is never
// dropped.
func costOf(event linkEvent) int {
	switch e := event.(type) {
	case linkFrame:
		return relay.FrameCost + proto.Size(e.frame)
	case linkPeerLost:
		return 0
	}
	return relay.FrameCost
}

// post has the origin handle an event after those posted before. It does not wait for the origin,
// and drops events when the inbox is full.
func (h *originLink) post(event linkEvent) {
	cost := costOf(event)
	h.inboxMu.Lock()
	defer h.inboxMu.Unlock()
	if cost > 0 && (h.cost+cost > h.cluster.maxControl() || !h.cluster.budget.Resize(h.cost, h.cost+cost)) {
		return
	}
	h.inbox = append(h.inbox, event)
	h.cost += cost
	if !h.handling {
		h.handling = true
		h.cluster.engine.dispatch.Schedule(h.empty)
	}
}

// take returns the first event of the inbox, nil if there is none.
func (h *originLink) take() linkEvent {
	h.inboxMu.Lock()
	defer h.inboxMu.Unlock()
	if h.handling = len(h.inbox) > 0; !h.handling {
		h.inbox, h.cost = nil, 0 // its array keeps the size of the longest queue there was
		return nil
	}
	event := h.inbox[0]
	h.inbox[0] = nil
	h.inbox = h.inbox[1:]
	cost := costOf(event)
	h.cluster.budget.Resize(h.cost, h.cost-cost)
	h.cost -= cost
	return event
}

// empty handles the events of the inbox until there are none.
func (h *originLink) empty() {
	for event := h.take(); event != nil; event = h.take() {
		h.handle(event)
	}
}

// Reply implements Sink.
func (h *originLink) Reply(id wire.ID, result any, err *wire.Error) {
	h.do(func(o *relay.Origin, now time.Time) { o.Reply(now, id, result, err) })
}

// Notify implements Sink.
func (h *originLink) Notify(method string, params any) {
	h.do(func(o *relay.Origin, now time.Time) { o.Notify(now, method, params) })
}

// Follow implements Sink.
func (h *originLink) Follow(feed Feed) (taken bool) {
	h.do(func(o *relay.Origin, now time.Time) { taken = o.Follow(now, feed) })
	return taken
}

// Disconnect implements Sink.
func (h *originLink) Disconnect(cause wire.Cause) {
	h.do(func(o *relay.Origin, now time.Time) { o.Disconnect(now, cause) })
}
