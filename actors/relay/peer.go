package relay

import (
	"cmp"
	"slices"
	"time"
)

const (
	// HeartbeatEvery is how often a pod tells its peers that it is alive.
	HeartbeatEvery = time.Second
	// DeadAfter is how long a peer may be silent although it is asked to answer: four heartbeats. A
	// client learns of the death of its owner within 5 s, and a pod that stands still for 2 s does not
	// count as dead.
	DeadAfter = 4 * time.Second
	// FirstContactTimeout replaces DeadAfter for a peer that has never been heard. Such a peer can
	// answer only once it knows where this pod is, and the directory that it reads may be late: by 15
	// s after an outage of the API server, and by 45 s if its watch is dead.
	FirstContactTimeout = time.Minute
	// askAfter is how long a peer may be silent before it is asked to answer at once, and askEvery is
	// the interval between further requests. Without them, an outage of 2 s could look like a death,
	// since the first heartbeat after it may come as late as HeartbeatEvery.
	askAfter = 1500 * time.Millisecond
	askEvery = 500 * time.Millisecond

	// maxIncarnations is how many earlier incarnations of a peer are remembered. Their late envelopes
	// are ignored.
	maxIncarnations = 8
	// resetsPerSecond and resetBurst bound the Resets to one peer. After a restart or a partition, the
	// other end of each link gets one, and a peer that keeps sending regardless gets no more than
	// this.
	resetsPerSecond = 200
	resetBurst      = 400
	// maxPeers bounds the peers that are remembered although they are not listed and have no links.
	maxPeers = 1024
)

// PeerState says whether a peer is alive.
type PeerState int

const (
	// PeerIsUnknown: the peer has not been heard yet.
	PeerIsUnknown PeerState = iota
	// PeerIsAlive: the peer was heard within DeadAfter.
	PeerIsAlive
	// PeerIsDead: the peer was not heard within DeadAfter, or never within FirstContactTimeout. It
	// still gets heartbeats, and may come back.
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

// PeerInfo is what a Table knows about a peer.
type PeerInfo struct {
	Name        string
	State       PeerState
	Incarnation Incarnation // zero: it has not been heard
	Heard       time.Time   // the last time
	Sessions    int         // from its last heartbeat, and those placed on it since
	MaxSessions int
	Refused     int64         // sessions and executions, since it started
	Started     int64         // commands, likewise
	StartTime   time.Duration // from the requests for these until they ran, in all
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
	earlier     []earlierIncarnation // oldest first
	heard       time.Time            // the last time; zero: never
	asked       time.Time            // when the wait for it began
	askAt       time.Time            // do not ask again before

	count    uint64 // of the last heartbeat
	load     *Heartbeat
	reserved int // sessions placed on it since that heartbeat

	resets   float64 // that may be sent now
	resetsAt time.Time
}

// earlierIncarnation is an incarnation that another one has replaced.
type earlierIncarnation struct {
	id    Incarnation
	spoke time.Time // the last time since it was replaced; zero: never
}

func newPeer(now time.Time, name string) *peer {
	return &peer{name: name, asked: now, resets: resetBurst, resetsAt: now}
}

// replaced returns the earlier incarnation with the given id, or nil.
func (p *peer) replaced(id Incarnation) *earlierIncarnation {
	for i := range p.earlier {
		if p.earlier[i].id == id {
			return &p.earlier[i]
		}
	}
	return nil
}

// restart switches to a new incarnation, or back to one that was wrongly declared dead.
func (p *peer) restart(id Incarnation) {
	p.earlier = slices.DeleteFunc(p.earlier, func(e earlierIncarnation) bool { return e.id == id })
	if (p.incarnation != Incarnation{}) {
		p.earlier = append(p.earlier, earlierIncarnation{id: p.incarnation})
		if len(p.earlier) > maxIncarnations {
			p.earlier = slices.Delete(p.earlier, 0, 1)
		}
	}
	p.incarnation, p.count, p.load, p.reserved = id, 0, nil, 0
}

// learn records a heartbeat, unless a newer one has arrived.
func (p *peer) learn(h *Heartbeat) {
	if h.GetCount() > p.count {
		p.count, p.load, p.reserved = h.GetCount(), h, 0
	}
}

func (p *peer) deadAt() time.Time {
	if p.heard.IsZero() {
		return p.asked.Add(FirstContactTimeout)
	}
	return p.waitingSince().Add(DeadAfter)
}

// waitingSince returns when the peer was last heard or when the wait for it began, whichever is
// later.
func (p *peer) waitingSince() time.Time {
	if p.asked.After(p.heard) {
		return p.asked
	}
	return p.heard
}

// asks reports whether the peer is asked to answer when it is silent. A dead peer gets heartbeats
// instead, and answers those.
func (p *peer) asks() bool { return p.wanted() && p.state != PeerIsDead }

// askDue returns when the peer is asked next.
func (p *peer) askDue() time.Time {
	due := p.waitingSince().Add(askAfter)
	if p.askAt.After(due) {
		return p.askAt
	}
	return due
}

// wanted reports whether this pod sends the peer heartbeats.
func (p *peer) wanted() bool { return p.listed || p.links > 0 }

// mayReset takes one Reset from the peer's allowance.
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

func (p *peer) info() PeerInfo {
	return PeerInfo{
		Name: p.name, State: p.state, Incarnation: p.incarnation, Heard: p.heard, Links: p.links,
		Sessions: int(p.load.GetSessions()) + p.reserved, MaxSessions: int(p.load.GetMaxSessions()),
		Draining: p.load.GetDraining(), Refused: int64(p.load.GetRefused()),
		Started: int64(p.load.GetStarted()), StartTime: time.Duration(p.load.GetStartSeconds() * float64(time.Second)),
	}
}

// Peer returns what the Table knows about a peer.
func (t *Table) Peer(name string) PeerInfo {
	p := t.peers[name]
	if p == nil {
		return PeerInfo{Name: name}
	}
	return p.info()
}

// Peers returns what the Table knows about all peers, sorted by name.
func (t *Table) Peers() []PeerInfo {
	var all []PeerInfo
	for _, p := range t.sorted() {
		all = append(all, p.info())
	}
	return all
}

// Reserve counts a session that is about to be placed on a peer. The count lasts until the peer's
// next heartbeat.
func (t *Table) Reserve(name string) {
	if p := t.peers[name]; p != nil {
		p.reserved++
	}
}

// Placement returns the peers that may take a new session: listed, alive and not draining. Those
// with the most room come first. Those believed to be full come last, because the belief may be out
// of date.
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
