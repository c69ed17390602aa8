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
		Send:  func(_ string, e *Envelope) { a.sent = append(a.sent, e) },
		Load:  func() *Heartbeat { return &Heartbeat{MaxSessions: 100} },
		Lost:  func(link LinkID, _ string, why Ended) { a.lost[link] = why },
		State: func(_ string, s PeerState) { a.states = append(a.states, s) },
	})
	a.SetPeers(a.now, peers)
	return a
}

// pass lets time pass, with a tick whenever one is due.
func (a *tableAt) pass(d time.Duration) {
	end := a.now.Add(d)
	for next := a.Next(); !next.IsZero() && !next.After(end); next = a.Next() {
		a.now = maxTime(a.now, next)
		a.Tick(a.now)
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
	a.Route(a.now, from("b", incarnation, nil))
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
	a.Route(a.now, from("b", incarnation, nil))
	if a.Peer("b").State != PeerIsAlive || !a.Add(a.now, NewLinkID(), "b") {
		t.Error("a peer that is heard again is dead")
	}
}

// TestAskedPeerAnswersAtOnce: so that an outage of three seconds is not taken for death.
func TestAskedPeerAnswersAtOnce(t *testing.T) {
	a := newTableAt("b")
	a.Route(a.now, from("b", NewIncarnation(), nil))
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
	b.Route(b.now, ask)
	if len(b.sent) != 1 || b.sent[0].GetHeartbeat() == nil || b.sent[0].GetHeartbeat().GetAsk() {
		t.Errorf("answered with %v", b.sent)
	}
}

func TestSleeperDoesNotBlameOthers(t *testing.T) {
	a := newTableAt("b")
	a.Route(a.now, from("b", NewIncarnation(), nil))
	a.pass(time.Second)
	a.now = a.now.Add(time.Minute)
	a.Tick(a.now)
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
	a.Route(a.now, from("b", first, nil))
	a.Add(a.now, link, "b")
	a.Route(a.now, from("b", second, nil))
	if a.lost[link] != EndedPeerRestarted {
		t.Errorf("lost %v", a.lost)
	}
	newer := NewLinkID()
	a.Add(a.now, newer, "b")
	verdict, _, _ := a.Route(a.now, from("b", first, &Frame{Link: newer[:], Seq: 1}))
	if verdict != Ignore || len(a.lost) != 1 || a.cfg.Counters.Stale.Load() != 1 {
		t.Error("a late envelope of the earlier life counts")
	}
}

// TestBuriedAliveIsHeardAgain: the first that is heard of a life may be late, and come when the next one is known. That one, which looks as if it were over,
// is heard again when the other is silent; and late envelopes of the other do not count any more.
func TestBuriedAliveIsHeardAgain(t *testing.T) {
	a := newTableAt("b")
	over, lives := NewIncarnation(), NewIncarnation()
	a.Route(a.now, from("b", lives, nil))
	a.Route(a.now, from("b", over, nil)) // cannot be told from a restart
	for range 2 * int(DeadAfter/HeartbeatEvery) {
		a.pass(HeartbeatEvery)
		a.Route(a.now, from("b", lives, nil))
	}
	if info := a.Peer("b"); info.State != PeerIsAlive || info.Incarnation != lives {
		t.Errorf("the peer is %v", info)
	}
	a.Route(a.now, from("b", over, nil))
	a.pass(DeadAfter + HeartbeatEvery)
	a.Route(a.now, from("b", over, nil)) // later than anything comes, and alone
	if info := a.Peer("b"); info.Incarnation != lives {
		t.Errorf("a life that is over counts: %v", info)
	}
}

// TestUnknownLinksAreRefusedWithoutEnd: frames of a link that is not here are answered, but never so that two pods go on about it.
func TestUnknownLinksAreRefusedWithoutEnd(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	data := &Frame{Link: link[:], Seq: 2, Body: &Frame_Request{&Request{}}}
	for range 1000 {
		a.Route(a.now, from("b", incarnation, data))
	}
	if n := len(a.sent); n != 1 || a.sent[0].GetFrame().GetReset_() == nil {
		t.Fatalf("%d answers to 1000 frames of one link", n)
	}
	b := newTableAt("a")
	b.self.Pod = "b"
	b.Route(b.now, a.sent[0])
	b.Route(b.now, from("a", a.self.Incarnation, &Frame{Link: link[:], Body: &Frame_Acknowledge{&Ack{}}}))
	if len(b.sent) != 0 {
		t.Errorf("a Reset or an Ack was answered with %v", b.sent)
	}
	a.now = a.now.Add(resetAgain)
	a.Route(a.now, from("b", incarnation, data))
	if len(a.sent) != 2 {
		t.Error("the other end is not told again, whose Reset may have been lost")
	}
	a.sent = nil
	for range 10 * resetBurst {
		other := NewLinkID()
		a.Route(a.now, from("b", incarnation, &Frame{Link: other[:], Seq: 2}))
	}
	if n := len(a.sent); n > resetBurst {
		t.Errorf("%d Resets at once", n)
	}
}

func TestLateOpenDoesNotOpenAgain(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	open := &Frame{Link: link[:], Seq: 1, Body: &Frame_Open{&Open{}}}
	if verdict, got, _ := a.Route(a.now, from("b", incarnation, open)); verdict != OpenOrigin || got != link {
		t.Fatalf("verdict %d", verdict)
	}
	a.Add(a.now, link, "b")
	if verdict, _, _ := a.Route(a.now, from("b", incarnation, open)); verdict != Deliver {
		t.Error("a frame of a link that is here is not delivered")
	}
	if verdict, _, _ := a.Route(a.now, from("c", NewIncarnation(), open)); verdict != Ignore {
		t.Error("a frame of another pod's link is delivered")
	}
	a.Remove(a.now, link)
	if verdict, _, _ := a.Route(a.now, from("b", incarnation, open)); verdict != Ignore {
		t.Error("an ended link opens again")
	}
}

// TestLeavingTheDirectoryIsNotDeath: an informer may lag, or its API server be down.
func TestLeavingTheDirectoryIsNotDeath(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	a.Add(a.now, link, "b")
	a.SetPeers(a.now, nil)
	for range 100 {
		a.Route(a.now, from("b", incarnation, nil))
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
		a.Route(a.now, e)
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
		a.Route(a.now, e)
	}
	if n := a.Peer("b").Sessions; n != 7 {
		t.Errorf("%d sessions", n)
	}
}
