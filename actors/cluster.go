package actors

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// PeersConfig makes an Engine one of many that form a service: it serves clients
// of sessions that other pods own, and places new sessions there when it is full.
type PeersConfig struct {
	Directory peers.Directory // which pods there are; required
	Listener  net.Listener    // where they connect; required; the Engine closes it
	TLS       *peers.TLS      // required unless Listener is on a loopback address; nil: plain text
}

func (c *PeersConfig) validate() error {
	if c.Directory == nil || c.Listener == nil {
		return errors.New("actors: PeersConfig.Directory and PeersConfig.Listener are required")
	}
	if addr, ok := c.Listener.Addr().(*net.TCPAddr); c.TLS == nil && (!ok || !addr.IP.IsLoopback()) {
		return errors.New("actors: PeersConfig.TLS is required for a listener that is not on a loopback address")
	}
	return nil
}

// cluster is the Engine's part in the service: the table of links and of who lives,
// the transport, and the links' other ends.
type cluster struct {
	engine    *Engine
	log       *slog.Logger
	directory peers.Directory
	transport *peers.Transport
	metrics   *peerMetrics
	counters  relay.Counters

	unsubscribe func()
	links       sync.Map // relay.LinkID → linkEnd
	open        sync.WaitGroup
	alive, dead atomic.Int64
	held        linksHeld
	reading     atomic.Int64 // clients here of sessions elsewhere: what they have not read outlives their links

	mu    sync.Mutex
	table *relay.Table
	known map[string]string // addresses of peers that heartbeats go to
	later []func()          // what the table's callbacks leave to be done without mu
	timer *time.Timer

	leaving bool // there are to be no more links
	closed  bool
}

// linkEnd is a proxy or an origin. Its methods may be called from any goroutine and do not block.
type linkEnd interface {
	peerName() string
	frame(*relay.Frame)
	peerLost(relay.Ended)
	reconnected()
}

// linksHeld is how many links there are, by this pod's role in them.
type linksHeld struct{ proxies, origins atomic.Int64 }

func (h *linksHeld) of(role string) *atomic.Int64 {
	if role == roleProxy {
		return &h.proxies
	}
	return &h.origins
}

// joinPeers makes the Engine part of the service. cfg is valid.
func (e *Engine) joinPeers(cfg *PeersConfig) {
	p := &cluster{engine: e, log: e.log, directory: cfg.Directory, known: map[string]string{}}
	e.cluster = p
	p.metrics = newPeerMetrics(e.metrics, &p.counters, cfg.TLS, &p.held, func() (int, int) { return int(p.alive.Load()), int(p.dead.Load()) })
	p.transport = peers.NewTransport(peers.Config{
		Pod: e.pod, Listener: cfg.Listener, TLS: cfg.TLS, Metrics: p.metrics.Metrics, Log: e.log,
		Deliver: p.route, Connected: p.reached,
	})
	p.table = relay.NewTable(relay.Self{Pod: e.pod, Incarnation: e.incarnation}, relay.TableConfig{
		Send: p.transport.Send, Load: p.load, Lost: p.lost, State: p.stateChanged, Counters: &p.counters,
	})
	p.transport.Start()
	p.unsubscribe = p.directory.Subscribe(p.refresh)
	p.refresh()
}

// locked runs f with the table, and then what the table wanted done.
func (p *cluster) locked(f func(t *relay.Table, now time.Time)) {
	p.mu.Lock()
	now := time.Now()
	f(p.table, now)
	later := p.later
	p.later = nil
	p.mu.Unlock()
	for _, do := range later {
		do()
	}
}

// refresh takes over what the directory knows. A pod that it has lost sight of stays connected
// while there are links to it: the directory may be late or wrong, and its silence will tell.
func (p *cluster) refresh() {
	p.locked(func(t *relay.Table, now time.Time) {
		if p.closed {
			return
		}
		next, names := map[string]string{}, []string(nil)
		for _, peer := range p.directory.Peers() {
			if peer.Pod != p.engine.pod {
				next[peer.Pod] = peer.Addr
				names = append(names, peer.Pod)
			}
		}
		for pod, addr := range p.known {
			if next[pod] == "" && t.Peer(pod).Links > 0 {
				next[pod] = addr
			}
		}
		p.known = next
		p.transport.SetPeers(next)
		t.SetPeers(now, names)
		p.count(t)
		p.schedule(t, now)
	})
}

// count publishes how many peers there are. Called with mu held.
func (p *cluster) count(t *relay.Table) {
	alive, dead := 0, 0
	for pod := range p.known {
		switch t.Peer(pod).State {
		case relay.PeerIsAlive:
			alive++
		case relay.PeerIsDead:
			dead++
		}
	}
	p.alive.Store(int64(alive))
	p.dead.Store(int64(dead))
}

// schedule arranges the table's next tick. Called with mu held.
func (p *cluster) schedule(t *relay.Table, now time.Time) {
	next := t.Next()
	switch {
	case p.closed || next.IsZero():
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(next.Sub(now), p.tick)
	default:
		p.timer.Reset(next.Sub(now))
	}
}

func (p *cluster) tick() {
	p.locked(func(t *relay.Table, now time.Time) {
		if p.closed {
			return
		}
		t.Tick(now)
		p.schedule(t, now)
	})
}

// load is what the next heartbeat says of this pod. One that can start nothing has room that is of no use.
func (p *cluster) load() *relay.Heartbeat {
	s := p.engine.Stats()
	return &relay.Heartbeat{Sessions: uint32(max(s.Sessions, 0)), MaxSessions: uint32(s.MaxSessions), Draining: !p.engine.Ready()}
}

// stateChanged is called by the table, with mu held.
func (p *cluster) stateChanged(peer string, state relay.PeerState) {
	p.later = append(p.later, func() {
		switch state {
		case relay.PeerIsAlive:
			p.log.Info("peer is alive", "peer", peer)
		case relay.PeerIsDead:
			p.log.Warn("peer is dead: it has not answered", "peer", peer)
			p.transport.Reset(peer)
		}
		p.locked(func(t *relay.Table, _ time.Time) { p.count(t) })
	})
}

// lost is called by the table, with mu held: the link is out of it already.
func (p *cluster) lost(link relay.LinkID, _ string, end relay.Ended) {
	p.later = append(p.later, func() {
		if l := p.end(link); l != nil {
			l.peerLost(end)
		}
	})
}

// reached hears of a connection to a peer that has just been made: what was under way is lost.
func (p *cluster) reached(peer string) {
	for _, l := range p.ends() {
		if l.peerName() == peer {
			l.reconnected()
		}
	}
}

// ends returns all links.
func (p *cluster) ends() (all []linkEnd) {
	p.links.Range(func(id, _ any) bool {
		if l := p.end(id.(relay.LinkID)); l != nil { //nolint:errcheck // nothing else is a key
			all = append(all, l)
		}
		return true
	})
	return all
}

// end finds this pod's end of a link, or nil.
func (p *cluster) end(id relay.LinkID) linkEnd {
	l, _ := p.links.Load(id)
	end, _ := l.(linkEnd)
	return end
}

// route takes an envelope from the transport. Those of one link come one at a time, in order.
func (p *cluster) route(e *relay.Envelope) {
	var verdict relay.Verdict
	var link relay.LinkID
	var frame *relay.Frame
	p.locked(func(t *relay.Table, now time.Time) {
		if p.closed {
			return
		}
		verdict, link, frame = t.Route(now, e)
		if verdict != relay.OpenOrigin {
			return
		}
		if !p.enter(t, now, link, newOriginLink(p, link, e.GetFrom())) {
			verdict = relay.Ignore
			return
		}
		p.held.origins.Add(1)
	})
	if verdict == relay.Ignore {
		return
	}
	if l := p.end(link); l != nil {
		l.frame(frame)
	}
}

// sender returns what sends a link's frames.
func (p *cluster) sender(peer string) func(*relay.Frame) {
	return func(f *relay.Frame) { p.transport.Send(peer, p.table.Wrap(f)) }
}

// proxyWindow is what a client here may leave unread of a session elsewhere.
func (p *cluster) proxyWindow() int { return relay.WindowFor(int(p.reading.Load())) }

// congested is how much may wait for a peer before links to it have the least window.
const congested = 1 << 20

// originWindow returns what bounds the output that is on its way to a peer, of one link.
func (p *cluster) originWindow(peer string) func() int {
	return func() int {
		if p.transport.Queued(peer) > congested {
			return relay.LeastWindow
		}
		return relay.WindowFor(int(p.held.origins.Load()))
	}
}

// maxControl leaves room for one request of the largest size behind those that the gateway lets wait.
func (p *cluster) maxControl() int { return relay.DefaultMaxControl + int(p.engine.limits.MaxMessage) }

// join makes a proxy's link known. It returns false if the peer is dead.
func (p *cluster) join(link relay.LinkID, end linkEnd) (ok bool) {
	p.locked(func(t *relay.Table, now time.Time) {
		if ok = p.enter(t, now, link, end); ok {
			p.held.proxies.Add(1)
		}
	})
	return ok
}

// enter makes a link known, unless its peer is dead or there are to be no more. What is
// not entered hears of nothing, so it need not be ready to. Called with mu held.
func (p *cluster) enter(t *relay.Table, now time.Time, link relay.LinkID, end linkEnd) bool {
	if p.leaving || !t.Add(now, link, end.peerName()) {
		return false
	}
	p.links.Store(link, end)
	p.open.Add(1)
	return true
}

// leave forgets a link. It may be called once for each that was joined or opened.
func (p *cluster) leave(link relay.LinkID, role string, cause relay.Ended) {
	p.locked(func(t *relay.Table, now time.Time) { t.Remove(now, link) })
	p.links.Delete(link)
	p.metrics.ended.WithLabelValues(role, string(cause)).Inc()
	p.held.of(role).Add(-1)
	p.open.Done()
}

// candidates are the peers to ask for a new session, in this order.
func (p *cluster) candidates() (pods []string) {
	p.locked(func(t *relay.Table, _ time.Time) { pods = t.Placement() })
	return pods
}

// roomBut reports whether a peer other than proxy, which asks because it has none, is believed to have room for a session.
func (p *cluster) roomBut(proxy string) (room bool) {
	p.locked(func(t *relay.Table, _ time.Time) {
		for _, pod := range t.Placement() {
			info := t.Peer(pod)
			room = room || pod != proxy && info.Sessions < info.MaxSessions
		}
	})
	return room
}

// whereIs says what is known of the pod that owns a session: what the directory knows, and what the peers do
// themselves. One that answers exists, though the directory has lost sight of it. One that was never
// heard may not know of this pod yet, and has nowhere to send its answers: see relay.FirstContactTimeout.
func (p *cluster) whereIs(pod string) (k peers.Knowledge) {
	_, k = p.directory.Lookup(pod)
	p.locked(func(t *relay.Table, _ time.Time) {
		switch state := t.Peer(pod).State; {
		case state == relay.PeerIsAlive && p.known[pod] != "":
			k = peers.Known
		case state == relay.PeerIsUnknown && k == peers.Known:
			k = peers.Undecided
		}
	})
	return k
}

// reserve notes that a session is about to be asked for on a peer.
func (p *cluster) reserve(pod string) {
	p.locked(func(t *relay.Table, _ time.Time) { t.Reserve(pod) })
}

// farewell is how long the ends of links may take to arrive when the Engine closes.
const farewell = time.Second

// close ends what is left of the links. No session and no client's socket is left by now.
func (p *cluster) close() {
	p.unsubscribe()
	p.mu.Lock()
	p.leaving = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.open.Wait()
		close(done)
	}()
	late := time.NewTimer(farewell)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		for _, l := range p.ends() {
			l.peerLost(relay.EndedPeerUnknown)
		}
		<-done
	}
	p.mu.Lock()
	p.closed = true
	stopTimer(p.timer)
	p.mu.Unlock()
	p.transport.Close()
}

// ownerOf tells whose session an id belongs to: the pod, and what the id says of its life.
func ownerOf(session string) (pod, incarnation string, ok bool) {
	const digits = 32
	dot := len(session) - digits - 1
	if dot < 1 || session[dot] != '.' {
		return "", "", false
	}
	for _, c := range []byte(session[dot+1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", "", false
		}
	}
	return session[:dot], session[dot+1:][:incarnationDigits], true
}

// incarnationDigits is how much of a session id is its pod's incarnation: enough to tell the lives of one pod from each other.
const incarnationDigits = 8

// newSessionID returns an id that says whose it is.
func (e *Engine) newSessionID() string {
	return e.pod + "." + e.incarnation.String()[:incarnationDigits] + randomHex(16-incarnationDigits/2)
}

// ofEarlierLife reports whether a session was this pod's before it started anew.
func (e *Engine) ofEarlierLife(session string) bool {
	pod, incarnation, ok := ownerOf(session)
	return e.cluster != nil && ok && pod == e.pod && incarnation != e.incarnation.String()[:incarnationDigits]
}

func sessionLost() *wire.Error {
	return wire.Errorf(wire.CodeSessionLost, "the pod that owned the session is gone, and the session with it")
}

// ownerNotFound refuses what would succeed if the directory knew its pods.
func ownerNotFound() *wire.Error {
	err := wire.Errorf(wire.CodeInternal, "the pod that owns the session cannot be found now: try again")
	err.Data = &wire.ErrorData{RetryAfterSeconds: 1}
	return err
}
