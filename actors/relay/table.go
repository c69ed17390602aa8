package relay

import (
	"slices"
	"strings"
	"time"
)

// Self is who a pod is.
type Self struct {
	Pod         string
	Incarnation Incarnation
}

// TableConfig is what a table needs.
type TableConfig struct {
	// Send sends to a peer. It must not block, and may lose what it sends.
	Send func(peer string, e *Envelope)
	// Load returns what heartbeats say of this pod. Count is filled in.
	Load func() *Heartbeat
	// Lost is called for each link whose peer is dead or another process now. The link is no longer in
	// the table: pass on PeerLost.
	Lost func(link LinkID, peer string, why Ended)
	// State is called when a peer's state changes. May be nil.
	State func(peer string, state PeerState)
	// Counters may be nil.
	Counters *Counters
}

// Table knows the peers of a pod and the links to them: it sends heartbeats,
// notices who is dead, and says to which link an envelope belongs. Its methods
// but Wrap are for one goroutine at a time, and do not block.
type Table struct {
	self  Self
	cfg   TableConfig
	peers map[string]*peer
	links map[LinkID]*peer
	past  tombstones

	count    uint64    // of heartbeats
	beat     time.Time // when the next is due
	lastTick time.Time
}

// NewTable makes a table that knows nobody.
func NewTable(self Self, cfg TableConfig) *Table {
	if cfg.Counters == nil {
		cfg.Counters = new(Counters)
	}
	return &Table{self: self, cfg: cfg, peers: map[string]*peer{}, links: map[LinkID]*peer{}}
}

// Verdict says what is to be done with an envelope.
type Verdict int

const (
	// Ignore: the table has dealt with it.
	Ignore Verdict = iota
	// Deliver the frame to the proxy or origin of the link.
	Deliver
	// OpenOrigin: make an origin of the link, Add it, and deliver the frame to it.
	OpenOrigin
)

// Wrap puts a frame into an envelope. It may be called from any goroutine.
func (t *Table) Wrap(f *Frame) *Envelope {
	e := t.envelope()
	e.Kind = &Envelope_Frame{f}
	return e
}

func (t *Table) envelope() *Envelope {
	return &Envelope{Version: Version, From: t.self.Pod, Incarnation: t.self.Incarnation[:]}
}

// SetPeers says to whom heartbeats are sent. A peer that is no longer among them is
// forgotten when it has no links; until then, only its silence ends them.
func (t *Table) SetPeers(now time.Time, names []string) {
	was := make(map[*peer]bool, len(t.peers))
	for _, p := range t.peers {
		was[p], p.listed = p.listed, false
	}
	for _, name := range names {
		if name == t.self.Pod {
			continue
		}
		p := t.peer(now, name)
		if !was[p] && p.links == 0 {
			p.asked = now
			if p.state == PeerIsDead {
				t.become(p, PeerIsUnknown) // it is said to be back
			}
		}
		p.listed = true
	}
	t.beat = now // for the new ones
}

// peer returns the peer of that name, of whom nothing may be known yet.
func (t *Table) peer(now time.Time, name string) *peer {
	p := t.peers[name]
	if p == nil {
		p = newPeer(now, name)
		t.peers[name] = p
	}
	return p
}

// forget drops the peers that nobody asks for, when nothing late can come from their earlier lives.
func (t *Table) forget(now time.Time) {
	for name, p := range t.peers {
		if !p.wanted() && (now.Sub(p.lastSign()) > tombstoneTTL || len(t.peers) > maxPeers) {
			delete(t.peers, name)
		}
	}
}

// Add enters a link of a proxy or origin. It returns false, and enters nothing, if the peer is dead.
func (t *Table) Add(now time.Time, link LinkID, name string) bool {
	p := t.peer(now, name)
	if p.state == PeerIsDead {
		return false
	}
	if t.links[link] == nil {
		t.links[link] = p
		p.links++
	}
	return true
}

// Remove takes out a link that has ended. A late Open of it does not open it again.
func (t *Table) Remove(now time.Time, link LinkID) {
	p := t.links[link]
	if p == nil {
		return
	}
	t.remove(now, link, p)
}

func (t *Table) remove(now time.Time, link LinkID, p *peer) {
	delete(t.links, link)
	p.links--
	t.past.add(now, link)
}

// lose ends all links to a peer.
func (t *Table) lose(now time.Time, p *peer, why Ended) {
	if p.links == 0 {
		return
	}
	var lost []LinkID
	for link, of := range t.links {
		if of == p {
			lost = append(lost, link)
		}
	}
	// In an order that does not change, so that a simulation replays.
	slices.SortFunc(lost, func(a, b LinkID) int { return slices.Compare(a[:], b[:]) })
	for _, link := range lost {
		t.remove(now, link, p)
	}
	for _, link := range lost {
		t.cfg.Lost(link, p.name, why)
	}
}

// Route says what is to be done with an envelope that came, after it has dealt with
// what it says of its sender. Link and frame are set for Deliver and OpenOrigin.
func (t *Table) Route(now time.Time, e *Envelope) (Verdict, LinkID, *Frame) {
	if Check(e) != nil || e.GetFrom() == t.self.Pod {
		t.cfg.Counters.Violations.Add(1)
		return Ignore, LinkID{}, nil
	}
	p := t.peer(now, e.GetFrom())
	if !t.heard(now, p, Incarnation(e.GetIncarnation())) {
		t.cfg.Counters.Stale.Add(1)
		return Ignore, LinkID{}, nil
	}
	switch kind := e.GetKind().(type) {
	case *Envelope_Heartbeat:
		p.learn(kind.Heartbeat)
		if kind.Heartbeat.GetAsk() {
			t.sendHeartbeat(p, false)
		}
	case *Envelope_Frame:
		return t.route(now, p, kind.Frame)
	default:
		t.cfg.Counters.Unknown.Add(1)
	}
	return Ignore, LinkID{}, nil
}

// heard notes a sign of life. It returns false for one from a life that is over.
//
// Boots have no order. A late envelope of a life that was never heard of before looks like a restart, and buries
// the life that goes on; which is heard again when nothing more has come from the dead one, and it has gone on since.
func (t *Table) heard(now time.Time, p *peer, incarnation Incarnation) bool {
	if l := p.earlier(incarnation); l != nil {
		goesOn := l.spoke.After(p.heard)
		l.spoke = now
		if !goesOn || p.state != PeerIsDead {
			return false
		}
	}
	if p.incarnation != incarnation {
		restarted := p.incarnation != Incarnation{}
		p.restart(incarnation)
		if restarted {
			t.lose(now, p, EndedPeerRestarted)
		}
	}
	p.heard = now
	t.become(p, PeerIsAlive)
	return true
}

func (t *Table) become(p *peer, state PeerState) {
	if p.state == state {
		return
	}
	p.state = state
	if t.cfg.State != nil {
		t.cfg.State(p.name, state)
	}
}

func (t *Table) route(now time.Time, p *peer, f *Frame) (Verdict, LinkID, *Frame) {
	link := LinkID(f.GetLink())
	switch of := t.links[link]; {
	case of == p:
		return Deliver, link, f
	case of != nil:
		t.cfg.Counters.Violations.Add(1) // another pod's link
		return Ignore, LinkID{}, nil
	}
	if _, opens := f.Body.(*Frame_Open); opens && f.Seq == 1 && !t.past.has(now, link) {
		return OpenOrigin, link, f
	}
	t.refuse(now, p, link, f)
	return Ignore, LinkID{}, nil
}

// refuse tells who sent a frame of an unknown link. It asks for no answer, and nothing is said to
// an Ack or a Reset, so that two pods never go on about a link that neither has.
func (t *Table) refuse(now time.Time, p *peer, link LinkID, f *Frame) {
	_, probe := f.Body.(*Frame_Probe)
	if f.Seq == 0 && !probe {
		return
	}
	if !p.mayReset(now) || !t.past.mayReset(now, link) {
		return
	}
	t.cfg.Counters.Resets.Add(1)
	t.cfg.Send(p.name, t.Wrap(&Frame{Link: link[:], Body: &Frame_Reset_{&Reset{}}}))
}

// Tick sends heartbeats, and looks who is dead.
func (t *Table) Tick(now time.Time) {
	t.awoke(now)
	due := !now.Before(t.beat)
	if due {
		t.beat = now.Add(HeartbeatEvery)
	}
	for _, p := range t.sorted() {
		switch ask := p.asks() && !now.Before(p.askDue()); {
		case ask:
			p.askAt = now.Add(askEvery)
			t.sendHeartbeat(p, true)
		case due && p.wanted():
			t.sendHeartbeat(p, false)
		}
		if p.state != PeerIsDead && !now.Before(p.deadAt()) {
			t.become(p, PeerIsDead)
			t.lose(now, p, EndedPeerDead)
		}
	}
	t.forget(now)
}

// awoke begins the wait for the peers anew when this process did not run for a while:
// nobody was asked in that time, so nobody has failed to answer.
func (t *Table) awoke(now time.Time) {
	if !t.lastTick.IsZero() && now.Sub(t.lastTick) > 2*HeartbeatEvery {
		for _, p := range t.peers {
			p.asked = now
		}
	}
	t.lastTick = now
}

func (t *Table) sendHeartbeat(p *peer, ask bool) {
	t.count++
	load := t.cfg.Load()
	e := t.envelope()
	e.Kind = &Envelope_Heartbeat{&Heartbeat{
		Count: t.count, Sessions: load.GetSessions(), MaxSessions: load.GetMaxSessions(), Draining: load.GetDraining(),
		Ask: ask,
	}}
	t.cfg.Send(p.name, e)
}

// sorted returns the peers in the order of their names.
func (t *Table) sorted() []*peer {
	all := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	return all
}

// Next returns when Tick is to be called.
func (t *Table) Next() time.Time {
	next := t.beat
	for _, p := range t.peers {
		if p.state != PeerIsDead {
			next = earliest(next, p.deadAt())
		}
		if p.asks() {
			next = earliest(next, p.askDue())
		}
	}
	return next
}
