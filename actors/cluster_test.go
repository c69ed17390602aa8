package actors

import (
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestServiceCeilingIsExact: whichever pods clients come to, the service takes as many
// sessions as all pods have slots, and no pod more than its own.
func TestServiceCeilingIsExact(t *testing.T) {
	const pods, slots = 3, 20
	for name, to := range map[string]func(int) int{
		"all to one pod": func(int) int { return 0 },
		"to all pods":    func(i int) int { return i % pods },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, pods, func(c *Config) { c.Limits.MaxSessions = slots })
			var clients []*testClient
			for i := range pods*slots + 5 {
				clients = append(clients, connect(s.pods[to(i)].Engine, ConnectRequest{}))
			}
			owners, refused := map[string]int{}, 0
			for _, c := range clients {
				connected, err := c.settled(t)
				switch {
				case connected != nil:
					owners[connected.Pod]++
					if !strings.HasPrefix(connected.SessionID, connected.Pod+".") {
						t.Errorf("session %s is said to be of pod %s", connected.SessionID, connected.Pod)
					}
				case err.Code == wire.CodeSessionLimit:
					refused++
				default:
					t.Errorf("refused with %v", err)
				}
			}
			for _, h := range s.pods {
				if n := h.Stats().Sessions; n != slots || owners[h.pod] != slots {
					t.Errorf("%s has %d sessions, %d clients are connected to it, want %d", h.pod, n, owners[h.pod], slots)
				}
			}
			counted := 0.0
			for _, h := range s.pods {
				counted += metricValue(t, h.metrics.refused.WithLabelValues(string(wire.CauseSessionLimit)))
			}
			// A peer that refuses one it may take elsewhere has refused no client.
			if refused != 5 || counted != 5 {
				t.Errorf("%d refused, %v counted, want 5", refused, counted)
			}
			s.stop(clients...)
		})
	}
}

// TestNoSessionGivesWayWhileThereIsRoom: a pod that is asked because it was believed to have room
// keeps its detached sessions when another pod has room. When no pod has any, one detached session
// is evicted, whichever pod owns it.
func TestNoSessionGivesWayWhileThereIsRoom(t *testing.T) {
	s := newService(t, 3, func(c *Config) { c.Limits.MaxSessions = 1 })
	full := connect(s.pods[0].Engine, ConnectRequest{})
	full.settled(t)
	idle := connect(s.pods[1].Engine, ConnectRequest{})
	idle.settled(t)
	idle.hangUp(wire.CauseClientGone)
	eventually(t, 5*time.Second, "the session is detached", func() bool { return s.pods[1].detached.Load() == 1 })
	ask := func() *testClient { return connect(s.pods[1].Engine, ConnectRequest{proxyPod: "pod-0"}) }
	asked := ask()
	if _, err := asked.settled(t); err == nil || err.Code != wire.CodeSessionLimit {
		t.Errorf("asked while pod-2 has room: %v", err)
	}
	if n := s.pods[1].detached.Load(); n != 1 {
		t.Error("the detached session is gone, though pod-2 has room")
	}
	last := connect(s.pods[2].Engine, ConnectRequest{})
	last.settled(t)
	eventually(t, 5*time.Second, "pod-1 knows that pod-2 is full",
		func() bool { return !s.pods[1].cluster.hasRoomElsewhere("pod-0") })
	newcomer := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, err := newcomer.settled(t); connected == nil || connected.Pod != "pod-1" {
		t.Errorf("a new client when all pods are full got %v, %v", connected, err)
	}
	s.stop(full, idle, asked, last, newcomer)
}

// TestNothingIsPlacedWhereNothingRuns: a pod whose runner is down has the most room, and would
// otherwise get every new client that the other pods have no room for.
func TestNothingIsPlacedWhereNothingRuns(t *testing.T) {
	s := newService(t, 3, func(c *Config) { c.Limits.MaxSessions = 2 })
	s.pods[1].runner.down.Store(true)
	eventually(t, 5*time.Second, "the others have heard of it", func() bool {
		first := s.pods[0].cluster
		first.mu.Lock()
		defer first.mu.Unlock()
		return first.table.Peer("pod-1").Draining
	})
	var clients []*testClient
	for i := range 5 {
		c := connect(s.pods[0].Engine, ConnectRequest{})
		clients = append(clients, c)
		connected, err := c.settled(t)
		if i < 4 && (connected == nil || connected.Pod == "pod-1") {
			t.Errorf("client %d got %v, %v", i, connected, err)
		}
		if i == 4 && (err == nil || err.Code != wire.CodeSessionLimit) {
			t.Errorf("the last client got %v, %v", connected, err)
		}
	}
	s.stop(clients...)
}

// TestResumeOnAnotherPod: everything works from a pod that does not own the session.
func TestResumeOnAnotherPod(t *testing.T) {
	s := newService(t, 2, nil)
	first := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := first.settled(t)
	first.execute("1", wire.ExecuteParams{ExecutionID: "x"})
	first.answered(t, "1")
	tree := s.pods[0].runner.tree("x")
	tree.print("one\n")
	eventually(t, 5*time.Second, "the first line", func() bool { return first.text("x") == "one\n" })
	first.hangUp(wire.CauseClientGone)

	second := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	second.conn.Request(wire.ID("7"), &wire.ResumeParams{
		ResumeToken: connected.ResumeToken,
		Executions:  map[string]int64{"x": 4},
	})
	if r := second.answered(t, "7"); r.err != nil {
		t.Fatalf("resume: %v", r.err)
	} else if res, ok := r.result.(*wire.ResumeResult); !ok || res.SessionID != connected.SessionID ||
		res.Executions["x"].Offset != 4 {
		t.Fatalf("resume answered %#v", r.result)
	}
	tree.print("two\n")
	eventually(t, 5*time.Second, "the second line", func() bool { return second.text("x") == "two\n" })
	second.control("8", wire.ControlPause, "x")
	second.answered(t, "8")
	if !tree.saw("pause") {
		t.Error("the execution was not paused")
	}
	second.execute("9", wire.ExecuteParams{ExecutionID: "y"})
	if r := second.answered(t, "9"); r.err != nil {
		t.Fatalf("a second execution: %v", r.err)
	}
	s.pods[0].runner.tree("y").exit(3)
	tree.exit(0)
	eventually(t, 5*time.Second, "both ends", func() bool { return count[wire.Completed](second) == 2 })

	wrong := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	wrong.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: "guessed"})
	if r := wrong.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeNoSession {
		t.Errorf("a wrong token was answered %v", r.err)
	}
	s.stop(second, wrong)
}

// TestLargestRequestsReachAnotherPod: what the gateway lets through reaches the session, whatever
// it consists of and however large a message may be.
func TestLargestRequestsReachAnotherPod(t *testing.T) {
	for name, tc := range map[string]struct {
		largest int64
		data    string
		n       int
	}{
		"what JSON may be escaped in": {1 << 20, strings.Repeat("<", 1<<20), 2},
		"a message of over 8 MiB":     {16 << 20, strings.Repeat("x", 9<<20), 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 2, func(c *Config) { c.Limits.MaxMessage = tc.largest })
			first := connect(s.pods[0].Engine, ConnectRequest{})
			connected, _ := first.settled(t)
			remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
			remote.conn.Request(wire.ID("0"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
			remote.answered(t, "0")
			for i := range tc.n {
				remote.conn.Request(wire.ID(strconv.Itoa(i+1)), &wire.InputParams{ExecutionID: "x", Data: tc.data})
			}
			for i := range tc.n {
				remote.answered(t, strconv.Itoa(i+1)) // that there is no such execution
			}
			if cause, ended := remote.hasEnded(); ended {
				t.Errorf("the connection ended with %q", cause)
			}
			s.stop(first, remote)
		})
	}
}

// TestLongErrorReachesAnotherPod: the error of a command that did not start quotes what the client
// asked for. A client of another pod receives that error, whatever it contains and however long it
// is.
func TestLongErrorReachesAnotherPod(t *testing.T) {
	for name, program := range map[string]string{
		"a long name":                  strings.Repeat("x", 100<<10),
		"characters that JSON escapes": strings.Repeat("<\x01ä", 100<<10),
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 2, nil)
			s.pods[0].runner.auto = func(tree *fakeTree) {
				refused := &proc.StartError{Message: program + ": command not found", Errno: syscall.ENOENT}
				tree.emit(proc.StartFailed{Err: refused})
				tree.die(proc.Dead{})
			}
			first := connect(s.pods[0].Engine, ConnectRequest{})
			connected, _ := first.settled(t)
			first.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			local := first.answered(t, "1").err
			if local == nil || !strings.Contains(local.Message, program[:maxErrorText/3]) ||
				!strings.Contains(local.Message, ": command not found") || !utf8.ValidString(local.Message) {
				t.Fatalf("the client of the same pod received %.100v", local)
			}
			remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
			remote.conn.Request(wire.ID("0"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
			remote.answered(t, "0")
			eventually(t, 5*time.Second, "the end of the command", func() bool { return find[wire.Completed](remote) != nil })
			if got := find[wire.Completed](remote).Error; got == nil || got.Message != local.Message {
				t.Errorf("the client of another pod received %.100v", got)
			}
			s.stop(first, remote)
		})
	}
}

// TestCloseCodeDecidesAcrossPods: 1000 at another pod ends the session, as it does at its own.
func TestCloseCodeDecidesAcrossPods(t *testing.T) {
	s := newService(t, 2, func(c *Config) { c.Limits.MaxSessions = 1 })
	local := connect(s.pods[0].Engine, ConnectRequest{})
	local.settled(t)
	placed := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, _ := placed.settled(t); connected == nil || connected.Pod != "pod-1" {
		t.Fatalf("placed on %v", connected)
	}
	placed.hangUp(wire.CauseClientDone)
	eventually(t, 5*time.Second, "the slot is free", func() bool { return s.pods[1].Stats().Sessions == 0 })
	s.stop(local)
}

// TestOwnerLost: when a pod dies, every client that follows one of its sessions learns it within
// five seconds, and a client that comes later learns it at once. So does a client that comes to the
// pod after its restart.
func TestOwnerLost(t *testing.T) {
	s := newService(t, 3, nil)
	owner := s.pods[0]
	first := connect(owner.Engine, ConnectRequest{})
	connected, _ := first.settled(t)
	resume := &wire.ResumeParams{ResumeToken: connected.ResumeToken}
	remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	remote.conn.Request(wire.ID("1"), resume)
	remote.answered(t, "1")

	owner.cluster.transport.Close() // nothing is said any more
	// relay.TestSilentPeerIsDead has the exact time; this machine may be slow.
	eventually(t, 3*relay.DeadAfter, "the client is told", func() bool { _, ended := remote.hasEnded(); return ended })
	if cause, _ := remote.hasEnded(); cause != wire.CauseSessionLost {
		t.Errorf("the cause is %s", cause)
	}
	if r := remote.reply("null"); r == nil || r.err.Code != wire.CodeSessionLost {
		t.Errorf("the client was told %+v", r)
	}
	late := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	late.conn.Request(wire.ID("1"), resume)
	if r := late.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeSessionLost {
		t.Errorf("a client that came later was told %+v", r)
	}
	unknown := connect(s.pods[1].Engine, ConnectRequest{SessionID: "pod-9" + strings.TrimPrefix(connected.SessionID,
		"pod-0")})
	unknown.conn.Request(wire.ID("1"), resume)
	if r := unknown.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeSessionLost {
		t.Errorf("a session of a pod that there is not was answered %+v", r)
	}
	owner.stop(t, first)

	s.pods[0] = s.start(0, listenLoopback(t, s.dir.peers[0].Addr), nil)
	s.meet()
	for _, pod := range []int{0, 1} {
		again := connect(s.pods[pod].Engine, ConnectRequest{SessionID: connected.SessionID})
		again.conn.Request(wire.ID("1"), resume)
		if r := again.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeSessionLost {
			t.Errorf("pod-%d: a session of an earlier life was answered %+v", pod, r)
		}
		never := connect(s.pods[pod].Engine, ConnectRequest{SessionID: s.pods[0].newSessionID()})
		never.conn.Request(wire.ID("1"), resume)
		if r := never.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeNoSession {
			t.Errorf("pod-%d: a session that never was, was answered %+v", pod, r)
		}
	}
	s.stop(late, unknown)
}

// TestDrainServesClientsOfOtherPods: a draining pod opens its new sessions elsewhere, and serves
// what it has to clients that come through other pods.
func TestDrainServesClientsOfOtherPods(t *testing.T) {
	s := newService(t, 2, nil)
	first := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := first.settled(t)
	first.execute("1", wire.ExecuteParams{ExecutionID: "x"})
	first.answered(t, "1")
	first.hangUp(wire.CauseClientGone)
	stop, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		s.pods[0].Drain(stop)
	}()
	eventually(t, 5*time.Second, "the pod drains", func() bool { return s.pods[0].Stats().Draining })

	elsewhere := connect(s.pods[0].Engine, ConnectRequest{})
	if c, err := elsewhere.settled(t); c == nil || c.Pod != "pod-1" {
		t.Errorf("a new client of a draining pod got %v, %v", c, err)
	}
	remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	if r := remote.answered(t, "1"); r.err != nil {
		t.Fatalf("resume at a draining pod: %v", r.err)
	}
	tree := s.pods[0].runner.tree("x")
	tree.print("the end\n")
	tree.exit(0)
	eventually(t, 10*time.Second, "the end arrives", func() bool { return find[wire.Completed](remote) != nil })
	if remote.text("x") != "the end\n" {
		t.Errorf("the output is %q", remote.text("x"))
	}
	<-drained
	if cause, ended := remote.hasEnded(); !ended || cause != wire.CauseDraining {
		t.Errorf("the client's connection ended with %q", cause)
	}
	close(stop)
	s.stop(elsewhere)
}

// TestPodFlaps: a pod that the directory loses sight of keeps its sessions, for the clients of
// other pods too.
func TestPodFlaps(t *testing.T) {
	s := newService(t, 2, nil)
	owner := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := owner.settled(t)
	remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	remote.answered(t, "1")
	all := s.dir.Peers()
	for range 20 {
		s.dir.set(peers.Unresolved)
		remote.conn.Request(wire.ID("2"), &wire.StatusParams{})
		s.dir.set(peers.Unknown, all...)
	}
	remote.conn.Request(wire.ID("3"), &wire.StatusParams{})
	if r := remote.answered(t, "3"); r.err != nil {
		t.Errorf("status: %v", r.err)
	}
	if _, ended := remote.hasEnded(); ended {
		t.Error("the connection has ended")
	}

	// While the owner is missing from the directory, existing links continue, even if the directory
	// is sure that it is gone. The answers of the pod are the better proof.
	s.dir.set(peers.Unknown)
	remote.conn.Request(wire.ID("4"), &wire.StatusParams{})
	if r := remote.answered(t, "4"); r.err != nil {
		t.Errorf("status while the owner is out of sight: %v", r.err)
	}
	other := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	other.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	if r := other.answered(t, "1"); r.err != nil {
		t.Errorf("resume while the owner answers, and the directory has lost it: %v", r.err)
	}
	other.hangUp(wire.CauseClientGone)
	remote.hangUp(wire.CauseClientGone)
	eventually(t, 5*time.Second, "there are no links", func() bool { return s.pods[1].cluster.held.proxies.Load() == 0 })

	// Without links it is forgotten. A newcomer waits until the directory knows.
	s.dir.set(peers.Unresolved)
	late := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	late.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	var once sync.Once
	eventually(t, 10*time.Second, "resume is answered", func() bool {
		once.Do(func() { time.AfterFunc(300*time.Millisecond, func() { s.dir.set(peers.Unknown, all...) }) })
		return late.reply("1") != nil
	})
	if r := late.reply("1"); r.err != nil {
		t.Errorf("resume: %v", r.err)
	}

	// A directory that does not get to know says nothing of the session: the client is to try again.
	late.hangUp(wire.CauseClientGone)
	eventually(t, 5*time.Second, "there are no links", func() bool { return s.pods[1].cluster.held.proxies.Load() == 0 })
	s.dir.set(peers.Unresolved)
	retry := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
	retry.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
	if r := retry.answered(t, "1"); r.err == nil || r.err.Code != wire.CodeInternal || r.err.Data == nil ||
		r.err.Data.RetryAfterSeconds == 0 {
		t.Errorf("resume while the owner cannot be located: %+v", r)
	}
	eventually(t, 5*time.Second, "the end of the connection", func() bool { _, ended := retry.hasEnded(); return ended })
	if cause, _ := retry.hasEnded(); cause != wire.CauseClientGone {
		t.Errorf("the connection ended with %q", cause)
	}
	s.stop(owner, retry)
}

// TestOwnerThatDoesNotKnowThisPodYet: a pod that has just come up is in its own directory before it
// is in the owner's. The owner's silence is no death: it has nowhere to send its answers.
func TestOwnerThatDoesNotKnowThisPodYet(t *testing.T) {
	s := newService(t, 1, nil)
	owner := connect(s.pods[0].Engine, ConnectRequest{})
	connected, _ := owner.settled(t)
	l := listenLoopback(t, "127.0.0.1:0")
	all := append(s.dir.Peers(), peers.Peer{Pod: "pod-1", Addr: l.Addr().String()})
	early := &testDirectory{peers: all}
	files := sign(t, s.ca, t.TempDir(), peers.CertName)
	s.pods = append(s.pods, newHarness(t, newFakeRunner(running), func(cfg *Config) {
		cfg.Pod = "pod-1"
		cfg.Peers = &PeersConfig{Directory: early, Listener: l, TLS: load(t, files)}
	}, nil))
	resume := func() (*testClient, *wire.Error) {
		remote := connect(s.pods[1].Engine, ConnectRequest{SessionID: connected.SessionID})
		remote.conn.Request(wire.ID("1"), &wire.ResumeParams{ResumeToken: connected.ResumeToken})
		return remote, remote.answered(t, "1").err
	}
	var clients []*testClient
	for began := time.Now(); time.Since(began) < relay.DeadAfter+time.Second; {
		c, err := resume()
		if err == nil || err.Code != wire.CodeInternal || err.Data == nil || err.Data.RetryAfterSeconds == 0 {
			t.Errorf("resume while the owner cannot answer: %v", err)
		}
		clients = append(clients, c)
	}
	s.dir.set(peers.Unknown, all...)
	s.meet()
	c, err := resume()
	if err != nil {
		t.Errorf("resume when the owner knows this pod: %v", err)
	}
	s.stop(append(clients, owner, c)...)
}

// deafEnd is an end of a link that is not ready for any event, and counts those that it gets.
type deafEnd struct {
	peer  string
	heard int
}

func (d *deafEnd) peerName() string { return d.peer }
func (d *deafEnd) post(linkEvent)   { d.heard++ }

// TestLinkToADeadPeerHearsNothing: a connection to a dead peer is made just when a client asks for
// it. The link that is refused, because no heartbeat came yet, has no proxy, so it must not be told
// of the connection.
func TestLinkToADeadPeerHearsNothing(t *testing.T) {
	p := &cluster{table: relay.NewTable(relay.Self{Pod: "pod-0"}, relay.TableConfig{
		Load: func() *relay.Heartbeat { return nil },
	})}
	now := time.Now()
	p.table.SetPeers(now, []string{"pod-1"})
	p.table.Tick(now.Add(relay.FirstContactTimeout))
	end := &deafEnd{peer: "pod-1"}
	joined := make(chan bool)
	p.mu.Lock() // the table is busy
	go func() { joined <- p.join(relay.NewLinkID(), end) }()
	for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
		p.reconnected("pod-1")
	}
	p.mu.Unlock()
	if <-joined {
		t.Error("a link to a dead peer")
	}
	if n := end.heard; n != 0 {
		t.Errorf("a refused link received %d events about a connection", n)
	}
}

// TestRoomElsewhereIsNotAtThePodThatAsks: it asks because it has none, whatever its last heartbeat
// said.
func TestRoomElsewhereIsNotAtThePodThatAsks(t *testing.T) {
	p := &cluster{table: relay.NewTable(relay.Self{Pod: "pod-2"}, relay.TableConfig{
		Load: func() *relay.Heartbeat { return nil },
	})}
	now := time.Now()
	p.table.SetPeers(now, []string{"pod-0", "pod-1"})
	says := func(pod string, count uint64, sessions uint32) {
		id := relay.Incarnation{1}
		p.table.Route(now, &relay.Envelope{Version: 1, From: pod, Incarnation: id[:], Kind: &relay.Envelope_Heartbeat{
			Heartbeat: &relay.Heartbeat{Count: count, Sessions: sessions, MaxSessions: 2},
		}})
	}
	says("pod-0", 1, 1)
	says("pod-1", 1, 2)
	if p.hasRoomElsewhere("pod-0") || !p.hasRoomElsewhere("pod-1") {
		t.Error("only pod-0 has room")
	}
	says("pod-1", 2, 1)
	if !p.hasRoomElsewhere("pod-0") {
		t.Error("pod-1 has room now")
	}
}
