package relay

import (
	"reflect"
	"testing"
)

// beat is a heartbeat of a peer with this load.
func (a *tableAt) beat(name string, incarnation Incarnation, h *Heartbeat) {
	e := from(name, incarnation, nil)
	e.Kind = &Envelope_Heartbeat{h}
	a.Route(a.now, e)
}

// TestPlacementIsOnPeersThatCanTakeSessions: those that live, are in the directory and do not
// drain.
func TestPlacementIsOnPeersThatCanTakeSessions(t *testing.T) {
	a := newTableAt("alive", "dead", "drains", "unlisted", "silent")
	load := func() *Heartbeat { return &Heartbeat{Count: 1, MaxSessions: 10} }
	a.beat("dead", NewIncarnation(), load())
	a.pass(DeadAfter)
	a.beat("alive", NewIncarnation(), load())
	a.beat("unlisted", NewIncarnation(), load())
	a.beat("drains", NewIncarnation(), &Heartbeat{Count: 1, MaxSessions: 10, Draining: true})
	a.Add(a.now, NewLinkID(), "unlisted") // so that it is not forgotten
	a.SetPeers(a.now, []string{"alive", "dead", "drains", "silent"})
	if got := a.Placement(); !reflect.DeepEqual(got, []string{"alive"}) {
		t.Errorf("placement %v", got)
	}
}

// TestPlacementGoesByRoom: by the sessions that a peer can still take, not by those it has; alike,
// by name.
func TestPlacementGoesByRoom(t *testing.T) {
	a := newTableAt("small", "large", "c", "b", "full", "over")
	for name, h := range map[string]*Heartbeat{
		"small": {Count: 1, Sessions: 0, MaxSessions: 3}, "large": {Count: 1, Sessions: 90, MaxSessions: 100},
		"b": {Count: 1, Sessions: 5, MaxSessions: 10}, "c": {Count: 1, Sessions: 15, MaxSessions: 20},
		"full": {Count: 1, Sessions: 10, MaxSessions: 10}, "over": {Count: 1, Sessions: 12, MaxSessions: 10},
	} {
		a.beat(name, NewIncarnation(), h)
	}
	if got := a.Placement(); !reflect.DeepEqual(got, []string{"large", "b", "c", "small", "full", "over"}) {
		t.Errorf("placement %v", got)
	}
}

// TestReservationsLastUntilTheNextHeartbeat: it counts the sessions that were placed. A late one,
// or one of an earlier incarnation, does not.
func TestReservationsLastUntilTheNextHeartbeat(t *testing.T) {
	a, first, second := newTableAt("b"), NewIncarnation(), NewIncarnation()
	sessions := func(want int) {
		t.Helper()
		if got := a.Peer("b").Sessions; got != want {
			t.Errorf("%d sessions, want %d", got, want)
		}
	}
	a.beat("b", first, &Heartbeat{Count: 5, Sessions: 7, MaxSessions: 10})
	a.Reserve("b")
	a.Reserve("b")
	a.Reserve("nobody")
	sessions(9)
	a.beat("b", first, &Heartbeat{Count: 5, Sessions: 7, MaxSessions: 10})
	sessions(9)
	a.beat("b", first, &Heartbeat{Count: 6, Sessions: 8, MaxSessions: 10})
	sessions(8)
	a.Reserve("b")
	a.beat("b", second, &Heartbeat{Count: 1, Sessions: 2, MaxSessions: 10})
	sessions(2)
	a.beat("b", first, &Heartbeat{Count: 7, Sessions: 8, MaxSessions: 10})
	sessions(2)
}

// TestEndedLinksAreRememberedForAWhile: longer than a late Open takes, and not more of them than
// the bound.
func TestEndedLinksAreRememberedForAWhile(t *testing.T) {
	var s tombstones
	now := simStart
	link := NewLinkID()
	s.add(now, link)
	s.add(now.Add(tombstoneTTL/2), link) // is not another one
	if !s.has(now.Add(tombstoneTTL), link) {
		t.Error("forgotten too early")
	}
	if s.has(now.Add(tombstoneTTL+1), link) || len(s.lastReset) != 0 || len(s.order) != 0 {
		t.Error("remembered for longer than it has to be")
	}
	first := NewLinkID()
	s.add(now, first)
	for range maxTombstones - 2 {
		s.add(now, NewLinkID())
	}
	if s.add(now, link); !s.has(now, link) || len(s.lastReset) > maxTombstones || len(s.order) != len(s.lastReset) {
		t.Errorf("%d links are remembered, the last among them: %v", len(s.lastReset), s.has(now, link))
	}
	if s.add(now, NewLinkID()); s.has(now, first) {
		t.Error("the oldest is remembered though there is no room")
	}
}

// TestPeerIsToldNoMoreThanItMayBe: Resets come from an allowance that fills again.
func TestPeerIsToldNoMoreThanItMayBe(t *testing.T) {
	now := simStart
	p := newPeer(now, "b")
	told := func(want int) {
		t.Helper()
		got := 0
		for range 2 * resetBurst {
			if p.mayReset(now) {
				got++
			}
		}
		if got != want {
			t.Errorf("told %d times, want %d", got, want)
		}
	}
	told(resetBurst)
	told(0)
	now = now.Add(HeartbeatEvery)
	told(resetsPerSecond)
	now = now.Add(1000 * HeartbeatEvery)
	told(resetBurst)
}

// TestOnlyTheLastIncarnationsAreRemembered: late envelopes of the last eight are ignored.
func TestOnlyTheLastIncarnationsAreRemembered(t *testing.T) {
	p := newPeer(simStart, "b")
	var ids []Incarnation
	for range maxIncarnations + 2 {
		ids = append(ids, NewIncarnation())
		p.restart(ids[len(ids)-1])
	}
	for i, id := range ids {
		earlier := i > 0 && i < len(ids)-1
		if got := p.replaced(id) != nil; got != earlier {
			t.Errorf("incarnation %d of %d is remembered as an earlier one: %v, want %v", i+1, len(ids), got, earlier)
		}
	}
	p.restart(ids[3]) // it was wrongly declared dead
	if p.replaced(ids[3]) != nil || p.replaced(ids[len(ids)-1]) == nil {
		t.Error("the incarnation that lives is one that is over")
	}
}

// TestPeerThatAnsweredIsLeftAlone: it is asked again only when it has been silent again.
func TestPeerThatAnsweredIsLeftAlone(t *testing.T) {
	a, id := newTableAt("b"), NewIncarnation()
	asked := func() (n int) {
		for _, e := range a.sent {
			if e.GetHeartbeat().GetAsk() {
				n++
			}
		}
		a.sent = nil
		return n
	}
	a.Route(a.now, from("b", id, nil))
	a.pass(askAfter)
	if n := asked(); n != 1 {
		t.Errorf("asked %d times after %v of silence", n, askAfter)
	}
	a.Route(a.now, from("b", id, nil))
	a.pass(askAfter - 1)
	if n := asked(); n != 0 {
		t.Errorf("asked %d times though it has just answered", n)
	}
}

// TestPeerWithLinksGetsHeartbeats: also when the directory no longer has it, so that it does not
// take us for dead.
func TestPeerWithLinksGetsHeartbeats(t *testing.T) {
	for _, links := range []bool{true, false} {
		a := newTableAt("b")
		a.Route(a.now, from("b", NewIncarnation(), nil))
		if links {
			a.Add(a.now, NewLinkID(), "b")
		}
		a.SetPeers(a.now, nil)
		a.sent = nil
		a.pass(2 * HeartbeatEvery)
		if got := len(a.sent) > 0; got != links {
			t.Errorf("with links: %v, it gets heartbeats: %v", links, got)
		}
	}
}

func TestLinksAreCountedOnce(t *testing.T) {
	a, link := newTableAt("b"), NewLinkID()
	a.Add(a.now, link, "b")
	a.Add(a.now, link, "b")
	if n := a.Peer("b").Links; n != 1 {
		t.Errorf("%d links", n)
	}
	a.Remove(a.now, link)
	a.Remove(a.now, link)
	if n := a.Peer("b").Links; n != 0 {
		t.Errorf("%d links after the end of the only one", n)
	}
}

// TestOwnEnvelopesAreNoPeers: what comes back to the pod that sent it is a mistake of the
// network's.
func TestOwnEnvelopesAreNoPeers(t *testing.T) {
	a := newTableAt("b")
	a.Route(a.now, from("a", a.self.Incarnation, nil))
	if n := a.cfg.Counters.Violations.Load(); n != 1 || a.Peer("a").State != PeerIsUnknown {
		t.Errorf("%d violations, and the peer is %v", n, a.Peer("a").State)
	}
}
