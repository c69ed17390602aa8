package relay

import (
	"cmp"
	"slices"
	"time"
)

const (
	// HeartbeatEvery is how often a pod says to its peers that it lives.
	HeartbeatEvery = time.Second
	// DeadAfter is how long nothing may be heard of a peer that is asked: four heartbeats. A client learns
	// of its owner's death within 5 s, and a pod that stands still for 2 s is not dead.
	DeadAfter = 4 * time.Second
	// FirstContactTimeout is the same for a peer that was never heard. That it lives shows only when it knows where this
	// pod is, and what it reads the directory from may be late: by 15 s after an API server was down, by 45 s
	// if its watch is dead.
	FirstContactTimeout = time.Minute
	// askAfter is how long a peer may be silent before it is asked for a sign at once, and again every askEvery: the
	// first heartbeat after an outage may be late by HeartbeatEvery, which would make an outage of 2 s look like death.
	askAfter = 1500 * time.Millisecond
	askEvery = 500 * time.Millisecond

	// livesKept is how many earlier incarnations of a peer are remembered, whose late envelopes are ignored while the last one lives.
	livesKept = 8
	// resetsPerSecond and resetBurst bound the Resets to one peer: after a restart or a partition each link's
	// other end is told once, and a peer that goes on all the same costs no more than this.
	resetsPerSecond = 200
	resetBurst      = 400
	// resetAgain is how long a link's other end is not told again: it asks no sooner than firstRetry.
	resetAgain = 200 * time.Millisecond
	// maxPeers bounds the peers that are remembered though nobody asks for them.
	maxPeers = 1024
	// tombstoneTTL is how long an ended link is remembered. A late Open comes from a connection that was reset,
	// which is closed within seconds.
	tombstoneTTL = time.Minute
	// maxTombstones bounds the memory of that, at about 1 MiB.
	maxTombstones = 16 << 10
)

// PeerState says whether a peer lives.
type PeerState int

const (
	// PeerIsUnknown: it was not heard of yet.
	PeerIsUnknown PeerState = iota
	// PeerIsAlive: it was heard within DeadAfter.
	PeerIsAlive
	// PeerIsDead: it was not, or not within FirstContactTimeout if it never was before. It is asked all the same, and may come back.
	PeerIsDead
)

func (s PeerState) String() string {
	switch s {
	case PeerIsAlive:
		return "alive"
	case PeerIsDead:
		return "dead"
	}
	return "unknown"
}

// PeerInfo is what is known of a peer.
type PeerInfo struct {
	Name        string
	State       PeerState
	Incarnation Incarnation // zero: not heard of
	Heard       time.Time   // last
	Sessions    int         // as it said last, and those that were placed there since
	MaxSessions int
	Draining    bool
	Links       int // to it
}

// peer is another pod.
type peer struct {
	name        string
	listed      bool // in the directory
	links       int
	state       PeerState
	incarnation Incarnation
	lives       []life    // earlier ones, oldest first
	heard       time.Time // zero: never
	asked       time.Time // since when it is
	askAt       time.Time // not again before

	count    uint64 // of the last heartbeat
	load     *Heartbeat
	reserved int // sessions placed there since

	resets   float64 // that may be sent
	resetsAt time.Time
}

// life is an earlier incarnation of a peer.
type life struct {
	incarnation Incarnation
	spoke       time.Time // last, since it is over; zero: never
}

// earlier returns the earlier life with that incarnation, or nil.
func (p *peer) earlier(incarnation Incarnation) *life {
	for i := range p.lives {
		if p.lives[i].incarnation == incarnation {
			return &p.lives[i]
		}
	}
	return nil
}

func newPeer(now time.Time, name string) *peer {
	return &peer{name: name, asked: now, resets: resetBurst, resetsAt: now}
}

// restart begins the peer's next life, or one that was buried alive.
func (p *peer) restart(incarnation Incarnation) {
	p.lives = slices.DeleteFunc(p.lives, func(l life) bool { return l.incarnation == incarnation })
	if (p.incarnation != Incarnation{}) {
		p.lives = append(p.lives, life{incarnation: p.incarnation})
		if len(p.lives) > livesKept {
			p.lives = slices.Delete(p.lives, 0, 1)
		}
	}
	p.incarnation, p.count, p.load, p.reserved = incarnation, 0, nil, 0
}

// learn takes a heartbeat, unless a newer one has come.
func (p *peer) learn(h *Heartbeat) {
	if h.GetCount() > p.count {
		p.count, p.load, p.reserved = h.GetCount(), h, 0
	}
}

func (p *peer) deadAt() time.Time {
	if p.heard.IsZero() {
		return p.asked.Add(FirstContactTimeout)
	}
	return p.lastSign().Add(DeadAfter)
}

// lastSign is when the peer was heard, or began to be asked, whichever is later.
func (p *peer) lastSign() time.Time {
	if p.asked.After(p.heard) {
		return p.asked
	}
	return p.heard
}

// asks reports whether the peer's silence matters: one that is dead has its heartbeats, and answers them.
func (p *peer) asks() bool { return p.wanted() && p.state != PeerIsDead }

// askDue is when the peer is to be asked for a sign.
func (p *peer) askDue() time.Time {
	due := p.lastSign().Add(askAfter)
	if p.askAt.After(due) {
		return p.askAt
	}
	return due
}

// wanted reports whether anyone asks for the peer.
func (p *peer) wanted() bool { return p.listed || p.links > 0 }

// mayReset takes from the allowance.
func (p *peer) mayReset(now time.Time) bool {
	p.resets = min(resetBurst, p.resets+now.Sub(p.resetsAt).Seconds()*resetsPerSecond)
	p.resetsAt = now
	if p.resets < 1 {
		return false
	}
	p.resets--
	return true
}

func (p *peer) room() int {
	return int(p.load.GetMaxSessions()) - int(p.load.GetSessions()) - p.reserved
}

// Peer returns what is known of a peer.
func (t *Table) Peer(name string) PeerInfo {
	p := t.peers[name]
	if p == nil {
		return PeerInfo{Name: name}
	}
	return p.info()
}

func (p *peer) info() PeerInfo {
	return PeerInfo{
		Name: p.name, State: p.state, Incarnation: p.incarnation, Heard: p.heard, Links: p.links, Draining: p.load.GetDraining(),
		Sessions: int(p.load.GetSessions()) + p.reserved, MaxSessions: int(p.load.GetMaxSessions()),
	}
}

// Peers returns what is known of all of them, by name.
func (t *Table) Peers() []PeerInfo {
	var all []PeerInfo
	for _, p := range t.sorted() {
		all = append(all, p.info())
	}
	return all
}

// Reserve counts a session that is about to be placed on a peer, until its next heartbeat.
func (t *Table) Reserve(name string) {
	if p := t.peers[name]; p != nil {
		p.reserved++
	}
}

// Placement returns the peers that may have room for a session: those that are not dead and do not
// drain, in the order of their room, so that those believed to be full, of which none may be, come last.
func (t *Table) Placement() []string {
	var all []*peer
	for _, p := range t.sorted() {
		if p.listed && p.state == PeerIsAlive && !p.load.GetDraining() {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b *peer) int { return cmp.Compare(b.room(), a.room()) })
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.name
	}
	return names
}

// tombstones remembers links that have ended or were refused.
type tombstones struct {
	when  map[LinkID]time.Time // of the last Reset, or zero
	order []tombstone          // oldest first
}

type tombstone struct {
	link      LinkID
	createdAt time.Time
}

func (g *tombstones) add(now time.Time, link LinkID) {
	g.expire(now)
	if g.when == nil {
		g.when = map[LinkID]time.Time{}
	}
	if _, ok := g.when[link]; ok {
		return
	}
	g.when[link] = time.Time{}
	g.order = append(g.order, tombstone{link, now})
}

func (g *tombstones) expire(now time.Time) {
	n := 0
	for n < len(g.order) && (now.Sub(g.order[n].createdAt) > tombstoneTTL || len(g.order)-n >= maxTombstones) {
		delete(g.when, g.order[n].link)
		n++
	}
	g.order = g.order[n:]
}

func (g *tombstones) has(now time.Time, link LinkID) bool {
	g.expire(now)
	_, ok := g.when[link]
	return ok
}

// mayReset reports whether the link's other end was not told just now. What was refused once stays so.
func (g *tombstones) mayReset(now time.Time, link LinkID) bool {
	g.add(now, link)
	last := g.when[link]
	if !last.IsZero() && now.Sub(last) < resetAgain {
		return false
	}
	g.when[link] = now
	return true
}
