package relay

import (
	"bytes"
	"sort"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file drives the protocol of a pod, as the engine does: guests, hosts, their
// timers and the table.

// simGuest is a guest and its timer.
type simGuest struct {
	pod   *simPod
	owner *simPod
	id    LinkID
	guest *Guest
	due   time.Time
	sock  *socket
	life  int  // of the owner, when it was asked
	boot  Boot // of the owner, as its pod knew it
}

// host is the connection at the other end, if it lives or has ended by itself.
func (g *simGuest) host() *simConn {
	if h := g.owner.hosts[g.id]; h != nil {
		return h.conn
	}
	return nil
}

// checkEnded knows when a guest may end so.
func (g *simGuest) checkEnded() {
	w, p := g.pod.w, g.pod
	switch why := g.guest.Ended(); {
	case why == EndedPeerDead:
		w.checkMayBeDead(p, g.owner)
	case why == EndedPeerRestarted && g.owner.up && g.owner.boot == g.boot && !w.now.Before(p.misled[g.owner.index]):
		w.failf("%s takes %s for restarted", p.name, g.owner.name)
	case why == EndedReset && g.owner.life == g.life && w.ends[g.id] == "":
		w.failf("a guest was reset, and its host did not end")
	case why == EndedProtocol || why == EndedSilent || why == EndedOverflow && w.maxControl == DefaultMaxControl:
		w.failf("a guest ended: %s", why)
	}
}

func (p *simPod) newGuest(owner *simPod, s *socket, o Opening) *simGuest {
	w := p.w
	g := &simGuest{pod: p, owner: owner, id: w.random16(), sock: s, life: owner.life, boot: p.table.Peer(owner.name).Boot}
	if !p.table.Add(w.now, g.id, owner.name) {
		w.checkMayBeDead(p, owner)
		return nil
	}
	p.guests[g.id] = g
	g.guest = NewGuest(w.now, GuestConfig{
		Link: g.id, Open: o, Client: s, Window: func() int { return w.share(len(p.guests)) }, MaxControl: w.maxControl, Counters: &w.counters,
		Send:    func(f *Frame) { p.sends(owner, p.table.Wrap(f)) },
		Wake:    func() { p.after(w.upTo(100*time.Microsecond), func() { g.call(func() { g.guest.Wake(w.now) }) }) },
		Opened:  s.opened,
		Refused: func(err *wire.Error, cause wire.Cause) { s.refused(g, err, cause) },
	})
	g.guest.link.maxBody = w.maxBody
	g.settle()
	return g
}

func (g *simGuest) call(f func()) {
	f()
	g.settle()
}

// settle arms the timer, forgets a guest that is done, and looks at the bounds.
func (g *simGuest) settle() {
	p, w := g.pod, g.pod.w
	if g.guest.Done() {
		if p.guests[g.id] == g {
			delete(p.guests, g.id)
			p.table.Remove(w.now, g.id)
			w.logf("%s: guest %v is done: %s", p.name, g.id.String()[:6], g.guest.Ended())
			g.checkEnded()
		}
		return
	}
	unread := 0
	for _, g := range p.guests {
		unread += int(g.guest.came - g.guest.window.done.Load())
	}
	if bound := w.shares(len(p.guests), 2000); unread > bound {
		w.failf("%d guests hold %d, more than %d", len(p.guests), unread, bound)
	}
	next := g.guest.Next()
	if next.IsZero() || next.Equal(g.due) {
		return
	}
	g.due = next
	p.after(max(0, next.Sub(w.now)), func() {
		if g.due.Equal(next) {
			g.due = time.Time{}
			g.call(func() { g.guest.Tick(w.now) })
		}
	})
}

// share is the window of one of n links of a pod, and shares what all may hold, each that much over.
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

// simHost is a host and its timer.
type simHost struct {
	pod  *simPod
	peer *simPod
	id   LinkID
	host *Host
	due  time.Time
	conn *simConn
}

func (p *simPod) newHost(peer *simPod, id LinkID) *simHost {
	w := p.w
	h := &simHost{pod: p, peer: peer, id: id}
	h.host = NewHost(w.now, HostConfig{
		Link: id, Window: func() int { return w.share(len(p.hosts)) }, MaxControl: w.maxControl, Counters: &w.counters,
		Send: func(f *Frame) { p.sends(peer, p.table.Wrap(f)) },
		Wake: func() { p.after(w.upTo(100*time.Microsecond), func() { h.call(func() { h.host.Wake(w.now) }) }) },
		Connect: func(o Opening) {
			if w.connects[id] == p.boot {
				w.failf("link %v opened twice", id)
			}
			w.connects[id] = p.boot
			h.conn = p.connect(h, o)
		},
		Request: func(id wire.ID, params any) { h.conn.request(id, params) },
		Closed:  func(cause wire.Cause, delivered map[string]int64) { h.conn.hostClosed(cause, delivered) },
	})
	h.host.link.maxBody = w.maxBody
	p.hosts[id] = h
	return h
}

func (h *simHost) call(f func()) {
	f()
	h.settle()
}

func (h *simHost) settle() {
	p, w := h.pod, h.pod.w
	if h.host.Done() {
		if p.hosts[h.id] == h {
			delete(p.hosts, h.id)
			p.table.Remove(w.now, h.id)
			w.ends[h.id] = h.host.Ended()
			w.logf("%s: host %v is done: %s", p.name, h.id.String()[:6], h.host.Ended())
			if h.conn == nil || !h.conn.told {
				w.failf("a host is done, and the engine was not told")
			}
			if why := h.host.Ended(); why == EndedProtocol || why == EndedOverflow && w.maxControl == DefaultMaxControl {
				w.failf("a host ended: %s", why)
			}
		}
		return
	}
	data := 0
	for _, h := range p.hosts {
		data += h.host.link.data
	}
	if bound := w.shares(len(p.hosts), 4000+maxOutput/w.maxBody*FrameCost); data > bound {
		w.failf("%d hosts hold %d, more than %d", len(p.hosts), data, bound)
	}
	if over := int64(h.host.sent - h.host.limit); over > 1000 {
		w.failf("a host sent %d more than it may", over)
	}
	if g := h.peer.guests[h.id]; g != nil && h.host.link.gone == h.host.link.last && !g.guest.link.frozen && g.guest.came != h.host.sent {
		w.failf("a host has sent %d, and its guest got %d", h.host.sent, g.guest.came)
	}
	if h.host.link.control > w.maxControl {
		w.failf("a host holds %d of control", h.host.link.control)
	}
	next := h.host.Next()
	if next.IsZero() || next.Equal(h.due) {
		return
	}
	h.due = next
	p.after(max(0, next.Sub(w.now)), func() {
		if h.due.Equal(next) {
			h.due = time.Time{}
			h.call(func() { h.host.Tick(w.now) })
		}
	})
}

// takes handles an envelope.
func (p *simPod) takes(e *Envelope) {
	w := p.w
	p.hears(e)
	verdict, id, f := p.table.Route(w.now, e)
	p.armTable()
	switch verdict {
	case OpenHost:
		h := p.newHost(w.pod(e.GetFrom()), id)
		if !p.table.Add(w.now, id, e.GetFrom()) {
			w.failf("a peer that was just heard is dead")
		}
		h.call(func() { h.host.Receive(w.now, f) })
	case Deliver:
		if g := p.guests[id]; g != nil {
			g.call(func() { g.guest.Receive(w.now, f) })
		} else if h := p.hosts[id]; h != nil {
			h.call(func() { h.host.Receive(w.now, f) })
		} else {
			w.failf("a link that is in the table and nowhere else")
		}
	}
}

func (p *simPod) linkLost(id LinkID, peer string, why Ended) {
	w := p.w
	w.logf("%s: link %v is lost: %s", p.name, id.String()[:6], why)
	p.after(w.upTo(100*time.Microsecond), func() {
		if g := p.guests[id]; g != nil {
			g.call(func() { g.guest.PeerLost(w.now, why) })
		}
		if h := p.hosts[id]; h != nil {
			h.call(func() { h.host.PeerLost(w.now, why) })
		}
	})
}

func (p *simPod) sortedGuests() []*simGuest {
	all := make([]*simGuest, 0, len(p.guests))
	for _, g := range p.guests {
		all = append(all, g)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].id[:], all[j].id[:]) < 0 })
	return all
}

func (p *simPod) sortedHosts() []*simHost {
	all := make([]*simHost, 0, len(p.hosts))
	for _, h := range p.hosts {
		all = append(all, h)
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].id[:], all[j].id[:]) < 0 })
	return all
}
