package relay

import (
	"slices"
	"strings"
	"time"
)

// Self identifies a pod.
type Self struct {
	Pod         string
	Incarnation Incarnation
}

// TableConfig is what a table needs.
type TableConfig struct {
	// Load returns this pod's load for a heartbeat. The table fills in the rest.
	Load func() *Heartbeat
	// Counters may be nil.
	Counters *Counters
}

// Table knows the peers of a pod and the links to them. It makes heartbeats, notices which peers
// are dead, and says which link an envelope belongs to. It takes no action itself: its methods
// return the actions to take, as events.
//
// The methods, except Wrap, are for one goroutine at a time.
type Table struct {
	self       Self
	cfg        TableConfig
	peers      map[string]*peer
	links      map[LinkID]*peer
	tombstones tombstones
	events     []Event // of the call in progress

	count    uint64    // of heartbeats
	beat     time.Time // when the next is due
	lastTick time.Time
}

// NewTable makes a table without peers.
func NewTable(self Self, cfg TableConfig) *Table {
	if cfg.Counters == nil {
		cfg.Counters = new(Counters)
	}
	return &Table{self: self, cfg: cfg, peers: map[string]*peer{}, links: map[LinkID]*peer{}}
}

// Event is an action to take, in the order in which the events are returned: a Send, a LinkLost or
// a PeerChanged.
type Event interface{ event() }

type (
	// Send asks for an envelope to be sent to a peer. It may be lost.
	Send struct {
		Peer     string
		Envelope *Envelope
	}
	// LinkLost says that the peer of a link is dead or has been replaced by another process. The table
	// has removed the link. The caller tells the link's proxy or origin with PeerLost.
	LinkLost struct {
		Link  LinkID
		Peer  string
		Cause Ended
	}
	// PeerChanged says that the state of a peer has changed.
	PeerChanged struct {
		Peer  string
		State PeerState
	}
)

func (Send) event()        {}
func (LinkLost) event()    {}
func (PeerChanged) event() {}

func (t *Table) emit(e Event) { t.events = append(t.events, e) }

// take returns the events of the call that is ending.
func (t *Table) take() []Event {
	events := t.events
	t.events = nil
	return events
}

// Verdict says what to do with a frame.
type Verdict int

const (
	// Ignore: there is no frame, or the table has dealt with it.
	Ignore Verdict = iota
	// Deliver the frame to the proxy or origin of the link.
	Deliver
	// OpenOrigin: make an origin of the link, Add it, and deliver the frame to it.
	OpenOrigin
	// Asked: answer the query.
	Asked
	// Answered: the answer belongs to a query of this pod, perhaps.
	Answered
)

// Routed is a frame from an envelope, and its destination. Link and Frame are set with Deliver and OpenOrigin.
type Routed struct {
	Verdict Verdict
	Link    LinkID
	Frame   *Frame
	Query   *Query  // with Asked
	Answer  *Answer // with Answered
}

// Wrap puts a frame into an envelope. It may be called from any goroutine.
func (t *Table) Wrap(f *Frame) *Envelope {
	e := t.envelope()
	e.Kind = &Envelope_Frame{f}
	return e
}

// Ask puts a query into an envelope. It may be called from any goroutine.
func (t *Table) Ask(q *Query) *Envelope {
	e := t.envelope()
	e.Kind = &Envelope_Query{q}
	return e
}

// Answer puts an answer into as many envelopes as it needs. It may be called from any goroutine.
func (t *Table) Answer(id QueryID, data []byte) []*Envelope {
	var all []*Envelope
	for part := uint32(0); ; part++ {
		n := min(len(data), maxBody)
		e := t.envelope()
		e.Kind = &Envelope_Answer{&Answer{Id: id[:], Part: part, Data: data[:n], Last: n == len(data)}}
		all = append(all, e)
		if data = data[n:]; len(data) == 0 {
			return all
		}
	}
}

func (t *Table) envelope() *Envelope {
	return &Envelope{Version: Version, From: t.self.Pod, Incarnation: t.self.Incarnation[:]}
}

// SetPeers replaces the peers that get heartbeats. A peer that is no longer listed is forgotten
// when it has no links; until then, only its silence ends them.
func (t *Table) SetPeers(now time.Time, names []string) []Event {
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
				t.become(p, PeerIsUnknown) // the directory says that it is back
			}
		}
		p.listed = true
	}
	t.beat = now // for the new ones
	return t.take()
}

// peer returns the named peer, creating it if needed.
func (t *Table) peer(now time.Time, name string) *peer {
	p := t.peers[name]
	if p == nil {
		p = newPeer(now, name)
		t.peers[name] = p
	}
	return p
}

// forget drops the peers that get no heartbeats, once no late envelope of an earlier incarnation
// can arrive.
func (t *Table) forget(now time.Time) {
	for name, p := range t.peers {
		if !p.wanted() && (now.Sub(p.waitingSince()) > tombstoneTTL || len(t.peers) > maxPeers) {
			delete(t.peers, name)
		}
	}
}

// Add enters a link of a proxy or origin. If the peer is dead, it returns false and enters nothing.
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

// Remove removes a link that has ended. A late Open does not open the link again.
func (t *Table) Remove(now time.Time, link LinkID) {
	if p := t.links[link]; p != nil {
		t.remove(now, link, p)
	}
}

func (t *Table) remove(now time.Time, link LinkID, p *peer) {
	delete(t.links, link)
	p.links--
	t.tombstones.add(now, link)
}

// lose removes all links to a peer.
func (t *Table) lose(now time.Time, p *peer, cause Ended) {
	if p.links == 0 {
		return
	}
	var lost []LinkID
	for link, of := range t.links {
		if of == p {
			lost = append(lost, link)
		}
	}
	// A fixed order makes simulations reproducible.
	slices.SortFunc(lost, func(a, b LinkID) int { return slices.Compare(a[:], b[:]) })
	for _, link := range lost {
		t.remove(now, link, p)
		t.emit(LinkLost{Link: link, Peer: p.name, Cause: cause})
	}
}

// Route takes an envelope that has arrived. It learns what the envelope says about its sender, and
// says where the frame in it belongs. Handle the events before the frame.
func (t *Table) Route(now time.Time, e *Envelope) (Routed, []Event) {
	routed := t.route(now, e)
	return routed, t.take()
}

func (t *Table) route(now time.Time, e *Envelope) Routed {
	if Check(e) != nil || e.GetFrom() == t.self.Pod {
		t.cfg.Counters.Violations.Add(1)
		return Routed{}
	}
	p := t.peer(now, e.GetFrom())
	if !t.heard(now, p, Incarnation(e.GetIncarnation())) {
		t.cfg.Counters.Stale.Add(1)
		return Routed{}
	}
	switch kind := e.GetKind().(type) {
	case *Envelope_Heartbeat:
		p.learn(kind.Heartbeat)
		if kind.Heartbeat.GetAsk() {
			t.sendHeartbeat(p, false)
		}
	case *Envelope_Frame:
		return t.routeFrame(now, p, kind.Frame)
	case *Envelope_Query:
		return Routed{Verdict: Asked, Query: kind.Query}
	case *Envelope_Answer:
		return Routed{Verdict: Answered, Answer: kind.Answer}
	default:
		t.cfg.Counters.Unknown.Add(1)
	}
	return Routed{}
}

// heard records a sign of life. It returns false if it comes from an incarnation that is over.
//
// Incarnations have no order. A late envelope of an incarnation that was never heard before looks
// like a restart, and replaces the live incarnation. The live one is accepted again when the other
// has been silent long enough for the peer to be dead, and the live one has been heard since.
func (t *Table) heard(now time.Time, p *peer, id Incarnation) bool {
	if e := p.replaced(id); e != nil {
		goesOn := e.spoke.After(p.heard)
		e.spoke = now
		if !goesOn || p.state != PeerIsDead {
			return false
		}
	}
	if p.incarnation != id {
		restarted := p.incarnation != Incarnation{}
		p.restart(id)
		if restarted {
			t.lose(now, p, EndedPeerRestarted)
		}
	}
	p.heard = now
	t.become(p, PeerIsAlive)
	return true
}

func (t *Table) become(p *peer, state PeerState) {
	if p.state != state {
		p.state = state
		t.emit(PeerChanged{Peer: p.name, State: state})
	}
}

func (t *Table) routeFrame(now time.Time, p *peer, f *Frame) Routed {
	link := LinkID(f.GetLink())
	switch of := t.links[link]; {
	case of == p:
		return Routed{Verdict: Deliver, Link: link, Frame: f}
	case of != nil:
		t.cfg.Counters.Violations.Add(1) // it belongs to another pod
		return Routed{}
	}
	if _, opens := f.Body.(*Frame_Open); opens && f.Seq == 1 && !t.tombstones.has(now, link) {
		return Routed{Verdict: OpenOrigin, Link: link, Frame: f}
	}
	t.refuse(now, p, link, f)
	return Routed{}
}

// Refuse answers an Open, for which Route returned OpenOrigin and the caller has no room, with a
// Reset. A late copy of it does not open the link either.
func (t *Table) Refuse(now time.Time, link LinkID, from string) []Event {
	t.refuse(now, t.peer(now, from), link, &Frame{Seq: 1})
	return t.take()
}

// refuse answers a frame of an unknown link with a Reset. A Reset asks for no answer, and refuse
// never answers an Ack or a Reset, so two pods cannot keep exchanging messages about a link that
// neither has.
func (t *Table) refuse(now time.Time, p *peer, link LinkID, f *Frame) {
	_, probe := f.Body.(*Frame_Probe)
	if f.Seq == 0 && !probe {
		return
	}
	if !p.mayReset(now) || !t.tombstones.mayReset(now, link) {
		return
	}
	t.cfg.Counters.Resets.Add(1)
	t.emit(Send{p.name, t.Wrap(&Frame{Link: link[:], Body: &Frame_Reset_{&Reset{}}})})
}

// Tick makes heartbeats, and finds out which peers are dead.
func (t *Table) Tick(now time.Time) []Event {
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
	return t.take()
}

// awoke restarts the wait for all peers if this process did not run for a while. It asked no peer
// in that time, so none has failed to answer.
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
		Refused: load.GetRefused(), Started: load.GetStarted(), StartSeconds: load.GetStartSeconds(), Ask: ask,
	}}
	t.emit(Send{p.name, e})
}

// sorted returns the peers sorted by name.
func (t *Table) sorted() []*peer {
	all := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return strings.Compare(a.name, b.name) })
	return all
}

// Next returns when Tick must be called next.
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
