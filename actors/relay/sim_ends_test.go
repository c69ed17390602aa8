package relay

import (
	"bytes"
	"sort"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file drives the protocol of a pod, as the engine does: proxies, origins, their
// timers and the table.

// simProxy is a proxy and its timer.
type simProxy struct {
	pod         *simPod
	owner       *simPod
	id          LinkID
	proxy       *Proxy
	due         time.Time
	sock        *socket
	life        int         // of the owner, when it was asked
	incarnation Incarnation // of the owner, as its pod knew it
}

// origin is the connection at the other end, if it lives or has ended by itself.
func (g *simProxy) origin() *simConn {
	if h := g.owner.origins[g.id]; h != nil {
		return h.conn
	}
	return nil
}

// checkEnded knows when a proxy may end so.
func (g *simProxy) checkEnded() {
	w, p := g.pod.w, g.pod
	switch why := g.proxy.Ended(); {
	case why == EndedPeerDead:
		w.checkMayBeDead(p, g.owner)
	case why == EndedPeerRestarted && g.owner.up && g.owner.incarnation == g.incarnation &&
		!w.now.Before(p.misled[g.owner.index]):
		w.failf("%s takes %s for restarted", p.name, g.owner.name)
	case why == EndedReset && g.owner.life == g.life && w.ends[g.id] == "":
		w.failf("a proxy was reset, and its origin did not end")
	case why == EndedProtocol || why == EndedSilent || why == EndedOverflow && w.maxControl == DefaultMaxControl:
		w.failf("a proxy ended: %s", why)
	}
}

func (p *simPod) newProxy(owner *simPod, s *socket, o OpenParams) *simProxy {
	w := p.w
	g := &simProxy{
		pod: p, owner: owner, id: w.random16(), sock: s, life: owner.life,
		incarnation: p.table.Peer(owner.name).Incarnation,
	}
	if !p.table.Add(w.now, g.id, owner.name) {
		w.checkMayBeDead(p, owner)
		return nil
	}
	p.proxies[g.id] = g
	g.proxy = NewProxy(w.now, ProxyConfig{
		Link: g.id, Open: o, Sink: s, Window: func() int { return w.share(len(p.proxies)) }, MaxControl: w.maxControl,
		Counters: &w.counters,
		Send:     func(f *Frame) { p.sends(owner, p.table.Wrap(f)) },
		Wake:     func() { p.after(w.upTo(100*time.Microsecond), func() { g.call(func() { g.proxy.Wake(w.now) }) }) },
		Opened:   s.opened,
		Refused:  func(err *wire.Error, cause wire.Cause) { s.refused(g, err, cause) },
	})
	g.proxy.link.maxBody = w.maxBody
	g.settle()
	return g
}

func (g *simProxy) call(f func()) {
	f()
	g.settle()
}

// settle arms the timer, forgets a proxy that is done, and looks at the bounds.
func (g *simProxy) settle() {
	p, w := g.pod, g.pod.w
	if g.proxy.Done() {
		if p.proxies[g.id] == g {
			delete(p.proxies, g.id)
			p.table.Remove(w.now, g.id)
			w.logf("%s: proxy %v is done: %s", p.name, g.id.String()[:6], g.proxy.Ended())
			g.checkEnded()
		}
		return
	}
	unread := 0
	for _, g := range p.proxies {
		unread += int(g.proxy.came - g.proxy.window.done.Load())
	}
	if bound := w.shares(len(p.proxies), 2000); unread > bound {
		w.failf("%d proxies hold %d, more than %d", len(p.proxies), unread, bound)
	}
	next := g.proxy.Next()
	if next.IsZero() || next.Equal(g.due) {
		return
	}
	g.due = next
	p.after(max(0, next.Sub(w.now)), func() {
		if g.due.Equal(next) {
			g.due = time.Time{}
			g.call(func() { g.proxy.Tick(w.now) })
		}
	})
}

// share is the window of one of n links of a pod, and shares what all may hold, each that much
// over.
func (w *world) share(n int) int { return share(w.mostWindow, w.window, w.mostWindow, n) }

func (w *world) shares(n, over int) (bound int) {
	for r := range n {
		bound += w.share(r+1) + over
	}
	return bound
}

func (w *world) checkMayBeDead(p, owner *simPod) {
	if !w.mayBeDead(p, owner) {
		w.failf("%s takes %s for dead, which lives", p.name, owner.name)
	}
}

// simOrigin is an origin and its timer.
type simOrigin struct {
	pod    *simPod
	peer   *simPod
	id     LinkID
	origin *Origin
	due    time.Time
	conn   *simConn
}

func (p *simPod) newOrigin(peer *simPod, id LinkID) *simOrigin {
	w := p.w
	h := &simOrigin{pod: p, peer: peer, id: id}
	h.origin = NewOrigin(w.now, OriginConfig{
		Link: id, Window: func() int { return w.share(len(p.origins)) }, MaxControl: w.maxControl, Counters: &w.counters,
		Send: func(f *Frame) { p.sends(peer, p.table.Wrap(f)) },
		Wake: func() { p.after(w.upTo(100*time.Microsecond), func() { h.call(func() { h.origin.Wake(w.now) }) }) },
		Connect: func(o OpenParams) {
			if w.connects[id] == p.incarnation {
				w.failf("link %v opened twice", id)
			}
			w.connects[id] = p.incarnation
			h.conn = p.connect(h, o)
		},
		Request: func(id wire.ID, params any) { h.conn.request(id, params) },
		Closed:  func(cause wire.Cause, delivered map[string]int64) { h.conn.originClosed(cause, delivered) },
	})
	h.origin.link.maxBody = w.maxBody
	p.origins[id] = h
	return h
}

func (h *simOrigin) call(f func()) {
	f()
	h.settle()
}

func (h *simOrigin) settle() {
	p, w := h.pod, h.pod.w
	if h.origin.Done() {
		if p.origins[h.id] == h {
			delete(p.origins, h.id)
			p.table.Remove(w.now, h.id)
			w.ends[h.id] = h.origin.Ended()
			w.logf("%s: origin %v is done: %s", p.name, h.id.String()[:6], h.origin.Ended())
			if h.conn == nil || !h.conn.told {
				w.failf("an origin is done, and the engine was not told")
			}
			if why := h.origin.Ended(); why == EndedProtocol || why == EndedOverflow && w.maxControl == DefaultMaxControl {
				w.failf("an origin ended: %s", why)
			}
		}
		return
	}
	data := 0
	for _, h := range p.origins {
		data += h.origin.link.data
	}
	if bound := w.shares(len(p.origins), 4000+maxOutput/w.maxBody*FrameCost); data > bound {
		w.failf("%d origins hold %d, more than %d", len(p.origins), data, bound)
	}
	if over := int64(h.origin.sent - h.origin.limit); over > 1000 {
		w.failf("an origin sent %d more than it may", over)
	}
	if g := h.peer.proxies[h.id]; g != nil && h.origin.link.gone == h.origin.link.last && !g.proxy.link.frozen &&
		g.proxy.came != h.origin.sent {
		w.failf("an origin has sent %d, and its proxy got %d", h.origin.sent, g.proxy.came)
	}
	if h.origin.link.control > w.maxControl {
		w.failf("an origin holds %d of control", h.origin.link.control)
	}
	next := h.origin.Next()
	if next.IsZero() || next.Equal(h.due) {
		return
	}
	h.due = next
	p.after(max(0, next.Sub(w.now)), func() {
		if h.due.Equal(next) {
			h.due = time.Time{}
			h.call(func() { h.origin.Tick(w.now) })
		}
	})
}

// takes handles an envelope.
func (p *simPod) takes(e *Envelope, held Held) {
	w := p.w
	p.hears(e)
	routed, events := p.table.Route(w.now, e)
	p.handle(events)
	p.armTable()
	id, f := routed.Link, routed.Frame
	switch routed.Verdict {
	case OpenOrigin:
		h := p.newOrigin(w.pod(e.GetFrom()), id)
		if !p.table.Add(w.now, id, e.GetFrom()) {
			w.failf("a peer that was just heard is dead")
		}
		h.call(func() { h.origin.Receive(w.now, f) })
	case Deliver:
		if g := p.proxies[id]; g != nil {
			g.call(func() { g.proxy.Receive(w.now, f, held) })
		} else if h := p.origins[id]; h != nil {
			h.call(func() { h.origin.Receive(w.now, f) })
		} else {
			w.failf("a link that is in the table and nowhere else")
		}
	}
}

// handle does what the table asks for.
func (p *simPod) handle(events []Event) {
	for _, e := range events {
		switch e := e.(type) {
		case Send:
			p.sends(p.w.pod(e.Peer), e.Envelope)
		case LinkLost:
			p.linkLost(e.Link, e.Peer, e.Cause)
		}
	}
}

func (p *simPod) linkLost(id LinkID, peer string, why Ended) {
	w := p.w
	w.logf("%s: link %v is lost: %s", p.name, id.String()[:6], why)
	p.after(w.upTo(100*time.Microsecond), func() {
		if g := p.proxies[id]; g != nil {
			g.call(func() { g.proxy.PeerLost(w.now, why) })
		}
		if h := p.origins[id]; h != nil {
			h.call(func() { h.origin.PeerLost(w.now, why) })
		}
	})
}

func (p *simPod) sortedProxies() []*simProxy {
	all := make([]*simProxy, 0, len(p.proxies))
	for _, g := range p.proxies {
		all = append(all, g)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].id[:], all[j].id[:]) < 0 })
	return all
}

func (p *simPod) sortedOrigins() []*simOrigin {
	all := make([]*simOrigin, 0, len(p.origins))
	for _, h := range p.origins {
		all = append(all, h)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].id[:], all[j].id[:]) < 0 })
	return all
}
