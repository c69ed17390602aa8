package relay

import (
	"reflect"
	"testing"
	"time"
)

// tableAt is a table with its clock, and what it sent and lost.
type tableAt struct {
	*Table
	now    time.Time
	sent   []*Envelope
	lost   map[LinkID]Ended
	states []PeerState
}

func newTableAt(peers ...string) *tableAt {
	a := &tableAt{now: simStart, lost: map[LinkID]Ended{}}
	a.Table = NewTable(Self{"a", NewIncarnation()}, TableConfig{
		Load: func() *Heartbeat { return &Heartbeat{MaxSessions: 100} },
	})
	a.handle(a.SetPeers(a.now, peers))
	return a
}

func (a *tableAt) handle(events []Event) {
	for _, e := range events {
		switch e := e.(type) {
		case Send:
			a.sent = append(a.sent, e.Envelope)
		case LinkLost:
			a.lost[e.Link] = e.Cause
		case PeerChanged:
			a.states = append(a.states, e.State)
		}
	}
}

// route has the table take an envelope.
func (a *tableAt) route(e *Envelope) Routed {
	routed, events := a.Route(a.now, e)
	a.handle(events)
	return routed
}

// pass lets time pass, with a tick whenever one is due.
func (a *tableAt) pass(d time.Duration) {
	end := a.now.Add(d)
	for next := a.Next(); !next.IsZero() && !next.After(end); next = a.Next() {
		a.now = maxTime(a.now, next)
		a.handle(a.Tick(a.now))
	}
	a.now = end
}

func from(pod string, incarnation Incarnation, f *Frame) *Envelope {
	t := NewTable(Self{pod, incarnation}, TableConfig{})
	if f == nil {
		e := t.envelope()
		e.Kind = &Envelope_Heartbeat{&Heartbeat{Count: 1}}
		return e
	}
	return t.Wrap(f)
}

func TestSilentPeerIsDead(t *testing.T) {
	a := newTableAt("b", "c")
	incarnation, link := NewIncarnation(), NewLinkID()
	a.Add(a.now, link, "b")
	a.route(from("b", incarnation, nil))
	a.pass(DeadAfter - 1)
	if len(a.lost) > 0 {
		t.Fatal("dead before its time")
	}
	a.pass(1)
	if a.lost[link] != EndedPeerDead || a.Peer("b").State != PeerIsDead || a.Add(a.now, NewLinkID(), "b") {
		t.Errorf("after %v: lost %v, state %v", DeadAfter, a.lost, a.Peer("b").State)
	}
	if a.Peer("c").State != PeerIsUnknown {
		t.Error("a peer that may not know yet where this pod is, is dead")
	}
	a.pass(FirstContactTimeout - DeadAfter)
	if a.Peer("c").State != PeerIsDead {
		t.Error("a peer that was never heard of is not dead")
	}
	a.route(from("b", incarnation, nil))
	if a.Peer("b").State != PeerIsAlive || !a.Add(a.now, NewLinkID(), "b") {
		t.Error("a peer that is heard again is dead")
	}
}

// TestAskedPeerAnswersAtOnce: so that an outage of three seconds is not taken for death.
func TestAskedPeerAnswersAtOnce(t *testing.T) {
	a := newTableAt("b")
	a.route(from("b", NewIncarnation(), nil))
	a.pass(3 * time.Second)
	asks := 0
	var ask *Envelope
	for _, e := range a.sent {
		if e.GetHeartbeat().GetAsk() {
			asks++
			ask = e
		}
	}
	if asks != 4 { // at 1.5, 2, 2.5 and 3 s
		t.Errorf("asked %d times in 3 s", asks)
	}
	b := newTableAt("a")
	b.self.Pod = "b"
	b.route(ask)
	if len(b.sent) != 1 || b.sent[0].GetHeartbeat() == nil || b.sent[0].GetHeartbeat().GetAsk() {
		t.Errorf("answered with %v", b.sent)
	}
}

func TestSleeperDoesNotBlameOthers(t *testing.T) {
	a := newTableAt("b")
	a.route(from("b", NewIncarnation(), nil))
	a.pass(time.Second)
	a.now = a.now.Add(time.Minute)
	a.handle(a.Tick(a.now))
	if a.Peer("b").State != PeerIsAlive {
		t.Error("a peer is dead because this pod stood still")
	}
	a.pass(DeadAfter)
	if a.Peer("b").State != PeerIsDead {
		t.Error("a peer that does not answer is not dead")
	}
}

func TestRestartEndsLinksOnce(t *testing.T) {
	a := newTableAt("b")
	first, second, link := NewIncarnation(), NewIncarnation(), NewLinkID()
	a.route(from("b", first, nil))
	a.Add(a.now, link, "b")
	a.route(from("b", second, nil))
	if a.lost[link] != EndedPeerRestarted {
		t.Errorf("lost %v", a.lost)
	}
	newer := NewLinkID()
	a.Add(a.now, newer, "b")
	routed := a.route(from("b", first, &Frame{Link: newer[:], Seq: 1}))
	if routed.Verdict != Ignore || len(a.lost) != 1 || a.cfg.Counters.Stale.Load() != 1 {
		t.Error("a late envelope of the earlier life counts")
	}
}

// TestWronglyDeclaredDeadIsHeardAgain: the first envelope of an incarnation that is over may arrive after those of the
// next one, and look like a restart. The one that is alive, and looks as if it were over, is accepted again when the
// other is silent; from then on, late envelopes of the other are ignored.
func TestWronglyDeclaredDeadIsHeardAgain(t *testing.T) {
	a := newTableAt("b")
	over, lives := NewIncarnation(), NewIncarnation()
	a.route(from("b", lives, nil))
	a.route(from("b", over, nil)) // cannot be told from a restart
	for range 2 * int(DeadAfter/HeartbeatEvery) {
		a.pass(HeartbeatEvery)
		a.route(from("b", lives, nil))
	}
	if info := a.Peer("b"); info.State != PeerIsAlive || info.Incarnation != lives {
		t.Errorf("the peer is %v", info)
	}
	a.route(from("b", over, nil))
	a.pass(DeadAfter + HeartbeatEvery)
	a.route(from("b", over, nil)) // later than anything comes, and alone
	if info := a.Peer("b"); info.Incarnation != lives {
		t.Errorf("a life that is over counts: %v", info)
	}
}

// TestUnknownLinksAreRefusedWithoutEnd: frames of a link that is not here are answered, but never so that two pods go on about it.
func TestUnknownLinksAreRefusedWithoutEnd(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	data := &Frame{Link: link[:], Seq: 2, Body: &Frame_Request{&Request{}}}
	for range 1000 {
		a.route(from("b", incarnation, data))
	}
	if n := len(a.sent); n != 1 || a.sent[0].GetFrame().GetReset_() == nil {
		t.Fatalf("%d answers to 1000 frames of one link", n)
	}
	b := newTableAt("a")
	b.self.Pod = "b"
	b.route(a.sent[0])
	b.route(from("a", a.self.Incarnation, &Frame{Link: link[:], Body: &Frame_Acknowledge{&Ack{}}}))
	if len(b.sent) != 0 {
		t.Errorf("a Reset or an Ack was answered with %v", b.sent)
	}
	a.now = a.now.Add(resetAgain)
	a.route(from("b", incarnation, data))
	if len(a.sent) != 2 {
		t.Error("the other end is not told again, whose Reset may have been lost")
	}
	a.sent = nil
	for range 10 * resetBurst {
		other := NewLinkID()
		a.route(from("b", incarnation, &Frame{Link: other[:], Seq: 2}))
	}
	if n := len(a.sent); n > resetBurst {
		t.Errorf("%d Resets at once", n)
	}
}

func TestLateOpenDoesNotOpenAgain(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	open := &Frame{Link: link[:], Seq: 1, Body: &Frame_Open{&Open{}}}
	if r := a.route(from("b", incarnation, open)); r.Verdict != OpenOrigin || r.Link != link {
		t.Fatalf("verdict %d", r.Verdict)
	}
	a.Add(a.now, link, "b")
	if r := a.route(from("b", incarnation, open)); r.Verdict != Deliver {
		t.Error("a frame of a link that is here is not delivered")
	}
	if r := a.route(from("c", NewIncarnation(), open)); r.Verdict != Ignore {
		t.Error("a frame of another pod's link is delivered")
	}
	a.Remove(a.now, link)
	if r := a.route(from("b", incarnation, open)); r.Verdict != Ignore {
		t.Error("an ended link opens again")
	}
}

// TestLeavingTheDirectoryIsNotDeath: an informer may lag, or its API server be down.
func TestLeavingTheDirectoryIsNotDeath(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	a.Add(a.now, link, "b")
	a.handle(a.SetPeers(a.now, nil))
	for range 100 {
		a.route(from("b", incarnation, nil))
		a.pass(time.Second)
	}
	if len(a.lost) > 0 {
		t.Fatalf("lost %v", a.lost)
	}
	a.pass(DeadAfter)
	if a.lost[link] != EndedPeerDead {
		t.Errorf("lost %v", a.lost)
	}
	a.pass(2 * tombstoneTTL)
	if len(a.peers) > 0 {
		t.Error("a peer that nobody asks for is remembered for ever")
	}
}

func TestPlacementOrder(t *testing.T) {
	a := newTableAt("full", "half", "empty", "drains", "silent")
	for name, h := range map[string]*Heartbeat{
		"full": {Count: 1, Sessions: 100, MaxSessions: 100}, "half": {Count: 1, Sessions: 50, MaxSessions: 100},
		"empty": {Count: 1, MaxSessions: 100}, "drains": {Count: 1, MaxSessions: 100, Draining: true},
	} {
		e := from(name, NewIncarnation(), nil)
		e.Kind = &Envelope_Heartbeat{h}
		a.route(e)
	}
	if got := a.Placement(); !reflect.DeepEqual(got, []string{"empty", "half", "full"}) {
		t.Errorf("placement %v", got)
	}
	for range 60 {
		a.Reserve("empty")
	}
	if got := a.Placement(); !reflect.DeepEqual(got, []string{"half", "empty", "full"}) {
		t.Errorf("placement with 60 reserved %v", got)
	}
}

func TestLateHeartbeatIsIgnored(t *testing.T) {
	a, incarnation := newTableAt("b"), NewIncarnation()
	for _, h := range []*Heartbeat{{Count: 5, Sessions: 7, MaxSessions: 9}, {Count: 4, Sessions: 1, MaxSessions: 9}} {
		e := from("b", incarnation, nil)
		e.Kind = &Envelope_Heartbeat{h}
		a.route(e)
	}
	if n := a.Peer("b").Sessions; n != 7 {
		t.Errorf("%d sessions", n)
	}
}
