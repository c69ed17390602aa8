package actors

import (
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is what a connection does when its session is, or is to be, on another pod.

// proxyLink is this pod's end of a link whose session is elsewhere. It belongs to its
// connection's actor; what comes from other goroutines is sent there as a linkEvent.
type proxyLink struct {
	conn  *connection
	peers *cluster
	id    relay.LinkID
	peer  string

	proxy   *relay.Proxy
	timer   *time.Timer
	woken   atomic.Bool
	refused bool // it opened no session
	left    bool // it has ended and is forgotten
	reads   bool // it counts among those whose client may have output to read
}

// join makes a link to a peer. It returns nil if the peer is dead.
func (c *connection) join(peer string, o relay.OpenParams) *proxyLink {
	g := &proxyLink{conn: c, peers: c.engine.cluster, id: relay.NewLinkID(), peer: peer}
	if !g.peers.join(g.id, g) {
		return nil
	}
	g.reads = true
	g.peers.reading.Add(1)
	g.proxy = relay.NewProxy(time.Now(), relay.ProxyConfig{
		Link: g.id, Open: o, Client: c.client, Send: g.peers.sender(peer), Wake: g.wake, Counters: &g.peers.counters,
		MaxControl: g.peers.maxControl(), Window: g.peers.proxyWindow,
		Opened:  func(string) { c.remote = g },
		Refused: func(*wire.Error, wire.Cause) { g.refused = true },
	})
	c.links = append(c.links, g)
	return g
}

func (g *proxyLink) post(do func(*relay.Proxy, time.Time)) {
	g.peers.engine.system.Root.Send(g.conn.self, linkEvent{link: g, do: do})
}

// wake is called from the gateway's writer, when it has read.
func (g *proxyLink) wake() {
	if g.woken.CompareAndSwap(false, true) {
		g.post(func(x *relay.Proxy, now time.Time) {
			g.woken.Store(false)
			x.Wake(now)
		})
	}
}

func (g *proxyLink) peerName() string { return g.peer }
func (g *proxyLink) tick()            { g.post((*relay.Proxy).Tick) }
func (g *proxyLink) reconnected()     { g.post((*relay.Proxy).Reconnected) }

func (g *proxyLink) frame(f *relay.Frame) {
	g.post(func(x *relay.Proxy, now time.Time) { x.Receive(now, f) })
}

func (g *proxyLink) peerLost(end relay.Ended) {
	g.post(func(x *relay.Proxy, now time.Time) { x.PeerLost(now, end) })
}

func (g *proxyLink) request(msg clientRequest) {
	g.do(func(x *relay.Proxy, now time.Time) { x.Request(now, msg.id, msg.params) })
}

// do runs f with the proxy, and looks after what it leaves: a timer, or the end.
func (g *proxyLink) do(f func(*relay.Proxy, time.Time)) {
	if g.left {
		return
	}
	now := time.Now()
	f(g.proxy, now)
	next := g.proxy.Next()
	switch {
	case g.proxy.Done():
		g.leave()
	case next.IsZero():
		stopTimer(g.timer)
	case g.timer == nil:
		g.timer = time.AfterFunc(next.Sub(now), g.tick)
	default:
		g.timer.Reset(next.Sub(now))
	}
}

func (g *proxyLink) leave() {
	if g.left {
		return
	}
	g.left = true
	stopTimer(g.timer)
	g.peers.leave(g.id, roleProxy, g.proxy.Ended())
	if g.refused {
		g.forget()
	}
}

// forget is called when the client has nothing of the link to read any more, once at least.
func (g *proxyLink) forget() {
	if g.reads {
		g.reads = false
		g.peers.reading.Add(-1)
	}
}

// linkEvent handles what came for a link, and what follows from it for the connection.
func (c *connection) linkEvent(ctx actor.Context, msg linkEvent) {
	g := msg.link
	wasOpen, wasRefused := c.remote != nil, g.refused
	g.do(msg.do)
	switch {
	case c.remote == g && !wasOpen:
		c.engine.cluster.metrics.placed.WithLabelValues(placedThere).Inc()
		c.opened()
	case g.refused && !wasRefused:
		outcome := placedRefused
		if g.left && g.proxy.Ended() != relay.EndedDone {
			outcome = placedLost
		}
		c.engine.cluster.metrics.placed.WithLabelValues(outcome).Inc()
		if !c.gone {
			c.askNext(ctx)
		}
	}
	c.stopIfDone(ctx)
}

// opened passes on what waited for the session.
func (c *connection) opened() {
	c.attaching = false
	waiting := c.backlog
	c.backlog = nil
	for _, r := range waiting {
		c.remote.request(r)
	}
}

// mayPlace reports whether a session may be opened on another pod. What came
// from another pod is decided here, so that no pod sends a client in circles.
func (c *connection) mayPlace() bool { return c.engine.cluster != nil && c.req.proxyPod == "" }

// placeElsewhere asks the peers for a session, those with most room first.
func (c *connection) placeElsewhere(ctx actor.Context) {
	c.candidates = c.engine.cluster.candidates()
	c.askNext(ctx)
}

// askNext asks the next peer. When all have refused, it is this pod's turn again: a
// session may have ended, and one that is detached and idle gives way now.
func (c *connection) askNext(ctx actor.Context) {
	for len(c.candidates) > 0 {
		peer := c.candidates[0]
		c.candidates = c.candidates[1:]
		c.engine.cluster.reserve(peer)
		g := c.join(peer, relay.OpenParams{Subject: c.req.Subject, Remote: c.req.Remote, EndsWithConnection: c.req.EndsWithConnection})
		if g != nil {
			g.do(func(*relay.Proxy, time.Time) {})
			return
		}
	}
	c.engine.cluster.metrics.placed.WithLabelValues(placedNowhere).Inc()
	ctx.Send(c.engine.manager, c.openSession(ctx, false))
}

// unresolvedTimeout is how long resume waits for a directory that does not know yet, or for a first sign of
// the owner, and unresolvedRetry how often it looks.
const (
	unresolvedTimeout = 3 * time.Second
	unresolvedRetry   = 100 * time.Millisecond
)

// resumeElsewhere re-attaches to a session that another pod owns. It returns false if the
// session is, or would be, this pod's.
func (c *connection) resumeElsewhere(ctx actor.Context, msg resumeElsewhere) bool {
	pod, _, ok := ownerOf(c.req.SessionID)
	if !c.mayPlace() || !ok || pod == c.engine.pod {
		return false
	}
	stopTimer(c.patience) // resume has come
	var g *proxyLink
	refusal, cause := sessionLost(), wire.CauseSessionLost
	switch knowledge := c.engine.cluster.whereIs(pod); {
	case knowledge == peers.Undecided && time.Now().Before(msg.until):
		c.patience = c.engine.after(unresolvedRetry, ctx.Self(), msg)
		return true
	case knowledge == peers.Undecided: // the session may live, so the client is to come again
		refusal, cause = ownerNotFound(), wire.CauseClientGone
	case knowledge == peers.Known:
		g = c.join(pod, relay.OpenParams{
			Subject: c.req.Subject, Remote: c.req.Remote, Session: c.req.SessionID, EndsWithConnection: c.req.EndsWithConnection,
			ResumeID: msg.request.id, Resume: msg.params,
		})
	}
	if g == nil {
		c.attaching = false
		c.client.Reply(msg.request.id, nil, refusal)
		c.client.Disconnect(cause)
		return true
	}
	c.remote = g
	g.do(func(*relay.Proxy, time.Time) {})
	c.opened()
	return true
}

// closeLinks tells the owner that the socket is gone. The actor stays until the owner has heard of it.
func (c *connection) closeLinks(msg socketClosed) {
	for _, g := range c.links {
		g.do(func(x *relay.Proxy, now time.Time) { x.Closed(now, msg.cause, msg.delivered) })
	}
}

// stopIfDone ends a connection whose socket is gone, once its links are.
func (c *connection) stopIfDone(ctx actor.Context) {
	for _, g := range c.links {
		if !g.left {
			return
		}
	}
	if c.gone {
		ctx.Stop(ctx.Self())
	}
}

// abandonLinks is part of cleanup: the socket is gone. After a panic links are left that nobody looks after any
// more. A peer that does not get the farewell learns it from its next probe.
func (c *connection) abandonLinks() {
	for _, g := range c.links {
		g.do(func(x *relay.Proxy, now time.Time) { x.Closed(now, wire.CauseInternal, nil) })
		g.leave()
		g.forget()
	}
}
