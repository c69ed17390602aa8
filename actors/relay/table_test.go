package relay

import (
	"reflect"
	"strconv"
	"strings"
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
		t.Error("a peer that never sent anything is not dead")
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

// TestWronglyDeclaredDeadIsHeardAgain: the first envelope of an incarnation that is over may arrive
// after those of the next one, and look like a restart. The one that is alive, and looks as if it
// were over, is accepted again when the other is silent; from then on, late envelopes of the other
// are ignored.
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

// TestUnknownLinksAreRefusedWithoutEnd: frames of a link that is not here are answered, but never
// so that two pods go on about it.
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
		t.Error("a peer that is never asked for is remembered forever")
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

func heartbeat(pod string, id Incarnation, h *Heartbeat) *Envelope {
	e := from(pod, id, nil)
	e.Kind = &Envelope_Heartbeat{h}
	return e
}

// TestFirstContactTakesLonger: a peer that was never heard may not know yet where to send its
// answers.
func TestFirstContactTakesLonger(t *testing.T) {
	a := newTableAt("b")
	a.pass(FirstContactTimeout - time.Millisecond)
	if info := a.Peer("b"); info.State != PeerIsUnknown || !a.Add(a.now, NewLinkID(), "b") {
		t.Errorf("before its time the peer is %v", info.State)
	}
	a.pass(time.Millisecond)
	if info := a.Peer("b"); info.State != PeerIsDead || info.Links != 0 {
		t.Errorf("in the end the peer is %v, with %d links", info.State, info.Links)
	}
	if a.Add(a.now, NewLinkID(), "b") || a.Peer("b").Links != 0 {
		t.Error("a dead peer got a link")
	}
	a.handle(a.SetPeers(a.now, nil))
	a.handle(a.SetPeers(a.now, []string{"b"}))
	if info := a.Peer("b"); info.State != PeerIsUnknown {
		t.Errorf("a dead peer that the directory lists again is %v", info.State)
	}
}

// TestSilentPeerIsAskedAgain: one lost answer is no death.
func TestSilentPeerIsAskedAgain(t *testing.T) {
	a := newTableAt("b")
	a.route(from("b", NewIncarnation(), nil))
	a.sent = nil
	a.pass(DeadAfter - time.Millisecond)
	asked := 0
	for _, e := range a.sent {
		if e.GetHeartbeat().GetAsk() {
			asked++
		}
	}
	if want := int((DeadAfter - askAfter) / askEvery); asked != want {
		t.Errorf("asked %d times, want %d", asked, want)
	}
}

// TestRestartedPeerIsLearnedFrom: the heartbeats of a new process are numbered from 1 again.
func TestRestartedPeerIsLearnedFrom(t *testing.T) {
	a := newTableAt("b")
	a.route(heartbeat("b", NewIncarnation(), &Heartbeat{Count: 100, Sessions: 7, MaxSessions: 10}))
	a.route(heartbeat("b", NewIncarnation(), &Heartbeat{Count: 1, Sessions: 2, MaxSessions: 10}))
	if n := a.Peer("b").Sessions; n != 2 {
		t.Errorf("the peer has %d sessions", n)
	}
}

// TestReservedUntilTheNextHeartbeat: sessions that are being placed count, until the peer counts
// them itself.
func TestReservedUntilTheNextHeartbeat(t *testing.T) {
	a, b, c := newTableAt("b", "c"), NewIncarnation(), NewIncarnation()
	a.route(heartbeat("b", b, &Heartbeat{Count: 1, Sessions: 1, MaxSessions: 10}))
	a.route(heartbeat("c", c, &Heartbeat{Count: 1, Sessions: 2, MaxSessions: 10}))
	for range 2 {
		a.Reserve("b")
	}
	if n, order := a.Peer("b").Sessions, a.Placement(); n != 3 || order[0] != "c" {
		t.Errorf("%d sessions, order %v", n, order)
	}
	a.route(heartbeat("b", b, &Heartbeat{Count: 2, Sessions: 1, MaxSessions: 10}))
	if n, order := a.Peer("b").Sessions, a.Placement(); n != 1 || order[0] != "b" {
		t.Errorf("after a heartbeat %d sessions, order %v", n, order)
	}
}

// TestEarlierIncarnationsAreBounded: a peer that restarts over and over is remembered as far as
// late envelopes need.
func TestEarlierIncarnationsAreBounded(t *testing.T) {
	a := newTableAt("b")
	var all []Incarnation
	for range 100 {
		all = append(all, NewIncarnation())
		a.route(from("b", all[len(all)-1], nil))
	}
	if n := len(a.peers["b"].earlier); n != maxIncarnations {
		t.Errorf("%d earlier incarnations are remembered", n)
	}
	for _, id := range all[len(all)-1-maxIncarnations : len(all)-1] {
		a.route(from("b", id, nil))
	}
	if n := a.cfg.Counters.Stale.Load(); n != maxIncarnations || a.Peer("b").Incarnation != all[99] {
		t.Errorf("%d late envelopes were ignored", n)
	}
}

// TestPeersThatAreNotListedAreForgotten: a pod that may prove to be one can name itself as it
// likes.
func TestPeersThatAreNotListedAreForgotten(t *testing.T) {
	a := newTableAt("b")
	name := func(i int) string { return "other-" + strconv.Itoa(i) }
	for i := range 2 * maxPeers {
		a.route(from(name(i), NewIncarnation(), nil))
	}
	a.handle(a.Tick(a.now))
	if n := len(a.peers); n > maxPeers {
		t.Errorf("%d peers are remembered", n)
	}
	a.pass(tombstoneTTL + 2*HeartbeatEvery)
	if n := len(a.peers); n != 1 {
		t.Errorf("%d peers are remembered in the end, want the listed one", n)
	}
}

// TestTombstonesExpire: when nothing late can be under way any more, and earlier when there are too
// many.
func TestTombstonesExpire(t *testing.T) {
	a, incarnation, link := newTableAt("b"), NewIncarnation(), NewLinkID()
	open := from("b", incarnation, &Frame{Link: link[:], Seq: 1, Body: &Frame_Open{&Open{}}})
	a.route(from("b", incarnation, nil))
	a.Add(a.now, link, "b")
	a.Remove(a.now, link)
	a.now = a.now.Add(tombstoneTTL)
	if r := a.route(open); r.Verdict != Ignore {
		t.Error("a link opens again before its tombstone expires")
	}
	a.now = a.now.Add(time.Millisecond)
	if r := a.route(open); r.Verdict != OpenOrigin {
		t.Error("a tombstone does not expire")
	}
	for range maxTombstones + 100 {
		id := NewLinkID()
		a.Add(a.now, id, "b")
		a.Remove(a.now, id)
	}
	if n := len(a.tombstones.order); n != maxTombstones || len(a.tombstones.lastReset) != n {
		t.Errorf("%d tombstones, %d in the map", n, len(a.tombstones.lastReset))
	}
}

// TestEnvelopesAreChecked before anything else looks at them.
func TestEnvelopesAreChecked(t *testing.T) {
	good := func() *Envelope {
		link := NewLinkID()
		return from("b", NewIncarnation(), &Frame{Link: link[:], Seq: 1, Body: &Frame_Open{&Open{}}})
	}
	for name, change := range map[string]func(*Envelope){
		"no version":          func(e *Envelope) { e.Version = 0 },
		"no name":             func(e *Envelope) { e.From = "" },
		"a long name":         func(e *Envelope) { e.From = strings.Repeat("x", maxPodName+1) },
		"the name of the pod": func(e *Envelope) { e.From = "a" },
		"no incarnation":      func(e *Envelope) { e.Incarnation = nil },
		"a short incarnation": func(e *Envelope) { e.Incarnation = e.Incarnation[1:] },
		"a long incarnation":  func(e *Envelope) { e.Incarnation = append(e.Incarnation, 0) },
		"no link":             func(e *Envelope) { e.GetFrame().Link = nil },
		"a short link":        func(e *Envelope) { e.GetFrame().Link = e.GetFrame().Link[1:] },
	} {
		a, e := newTableAt("b"), good()
		change(e)
		if r := a.route(e); r.Verdict != Ignore || a.cfg.Counters.Violations.Load() != 1 ||
			a.Peer("b").State != PeerIsUnknown {
			t.Errorf("%s: verdict %d, %d violations", name, r.Verdict, a.cfg.Counters.Violations.Load())
		}
	}
	for name, change := range map[string]func(*Envelope){
		"as it is":            func(*Envelope) {},
		"of a later version":  func(e *Envelope) { e.Version = 1 << 30 },
		"of the longest name": func(e *Envelope) { e.From = strings.Repeat("x", maxPodName) },
	} {
		a, e := newTableAt("b"), good()
		change(e)
		if r := a.route(e); r.Verdict != OpenOrigin {
			t.Errorf("an envelope %s: verdict %d", name, r.Verdict)
		}
	}
}

// TestUnlistedPeersGetNoSessions, but heartbeats while there are links to them.
func TestUnlistedPeersGetNoSessions(t *testing.T) {
	a, b := newTableAt(), NewIncarnation()
	a.route(heartbeat("b", b, &Heartbeat{Count: 1, MaxSessions: 10}))
	if order := a.Placement(); len(order) > 0 {
		t.Errorf("sessions are placed on %v", order)
	}
	link := NewLinkID()
	a.Add(a.now, link, "b")
	a.pass(HeartbeatEvery / 2)
	for range 3 {
		a.sent = nil
		a.route(from("b", b, nil)) // it need not be asked
		a.pass(HeartbeatEvery)
		if len(a.sent) != 1 {
			t.Fatalf("%d heartbeats in a second to a peer with links", len(a.sent))
		}
	}
	a.Remove(a.now, link)
	a.sent = nil
	a.pass(2 * HeartbeatEvery)
	if len(a.sent) != 0 {
		t.Errorf("%d heartbeats to a peer without links", len(a.sent))
	}
}
