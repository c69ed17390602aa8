package actors

import (
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// proxyLink is this pod's end of a link to the session of another pod. It belongs to its
// connection's actor; post sends what happens on other goroutines there, as a linkMessage.
type proxyLink struct {
	conn    *connection
	cluster *cluster
	id      relay.LinkID
	peer    string

	proxy   *relay.Proxy
	timer   *time.Timer
	woken   atomic.Bool // a linkWoken is on its way
	refused bool        // it opened no session
	removed bool        // it has ended, and the cluster has removed it
	reads   bool        // it counts among the cluster's readers
}

// join makes a link to a peer. It returns nil if the peer is dead.
func (c *connection) join(peer string, o relay.OpenParams) *proxyLink {
	g := &proxyLink{conn: c, cluster: c.engine.cluster, id: relay.NewLinkID(), peer: peer}
	if !g.cluster.join(g.id, g) {
		return nil
	}
	g.reads = true
	g.cluster.readers.Add(1)
	now := time.Now()
	g.proxy = relay.NewProxy(now, relay.ProxyConfig{
		Link: g.id, Open: o, Sink: c.sink, Send: g.cluster.sender(peer), Wake: g.wake, Counters: &g.cluster.counters,
		MaxControl: g.cluster.maxControl(), Budget: g.cluster.budget, Window: g.cluster.proxyWindow,
		Opened:  func(string) { c.remote = g },
		Refused: func(*wire.Error, wire.Cause) { g.refused = true },
	})
	c.links = append(c.links, g)
	g.update(now)
	return g
}

func (g *proxyLink) peerName() string { return g.peer }

// post has the actor handle an event.
func (g *proxyLink) post(event linkEvent) {
	g.cluster.engine.system.Root.Send(g.conn.self, linkMessage{link: g, event: event})
}

// wake is called by the gateway's writer, when it has read output.
func (g *proxyLink) wake() {
	if g.woken.CompareAndSwap(false, true) {
		g.post(linkWoken{})
	}
}

func (g *proxyLink) handle(event linkEvent) {
	if g.removed {
		return
	}
	now := time.Now()
	switch e := event.(type) {
	case linkFrame:
		g.proxy.Receive(now, e.frame, e.held)
		e.free()
	case linkPeerLost:
		g.proxy.PeerLost(now, e.cause)
	case linkReconnected:
		g.proxy.Reconnected(now)
	case linkWoken:
		g.woken.Store(false)
		g.proxy.Wake(now)
	case linkDue:
		g.proxy.Tick(now)
	}
	g.update(now)
}

// request passes a request of the client on.
func (g *proxyLink) request(msg clientRequest) {
	if g.removed {
		return
	}
	now := time.Now()
	g.proxy.Request(now, msg.id, msg.params)
	g.update(now)
}

// close tells the peer that the socket is gone.
func (g *proxyLink) close(cause wire.Cause, delivered map[string]int64) {
	if g.removed {
		return
	}
	now := time.Now()
	g.proxy.Closed(now, cause, delivered)
	g.update(now)
}

// update sets the timer for what the proxy has to do next, or removes the link if it has ended.
func (g *proxyLink) update(now time.Time) {
	next := g.proxy.Next()
	switch {
	case g.proxy.Done():
		g.remove()
	case next.IsZero():
		stopTimer(g.timer)
	case g.timer == nil:
		g.timer = time.AfterFunc(next.Sub(now), func() { g.post(linkDue{}) })
	default:
		g.timer.Reset(next.Sub(now))
	}
}

func (g *proxyLink) remove() {
	if g.removed {
		return
	}
	g.removed = true
	stopTimer(g.timer)
	g.cluster.remove(g.id, roleProxy, g.proxy.Ended())
	if g.refused {
		g.stopReading()
	}
}

// stopReading is called, at least once, when the client has no output of the link left to read.
func (g *proxyLink) stopReading() {
	if g.reads {
		g.reads = false
		g.cluster.readers.Add(-1)
	}
}
