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
)

// PeersConfig makes an Engine one of many that form a service: it serves clients of sessions that
// other pods own, and places new sessions there when it is full.
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

const (
	// closeGrace is how long the ends of links may take to reach the peers when the Engine closes.
	closeGrace = time.Second
	// congested is how much may wait for a peer before links to it get the smallest window.
	congested = 1 << 20
)

// cluster is the Engine's part in the service: the table of peers and links, the transport, and
// this pod's ends of the links.
type cluster struct {
	engine    *Engine
	log       *slog.Logger
	directory peers.Directory
	transport *peers.Transport
	metrics   *clusterMetrics
	counters  relay.Counters
	budget    *relay.Budget

	unsubscribe func()
	links       sync.Map // relay.LinkID → linkEnd
	open        sync.WaitGroup
	held        linksHeld
	queries     queries
	readers     atomic.Int64 // clients here of sessions elsewhere; their unread output may outlive their links

	mu      sync.Mutex
	table   *relay.Table
	known   map[string]string // addresses of the peers that get heartbeats
	timer   *time.Timer
	leaving bool // no links are added any more
	closed  bool
}

// linkEnd is a proxyLink or an originLink. Its methods may be called from any goroutine and do not
// block.
type linkEnd interface {
	peerName() string
	post(linkEvent)
}

// linksHeld is how many links there are, by this pod's role in them.
type linksHeld struct{ proxies, origins atomic.Int64 }

func (h *linksHeld) of(role string) *atomic.Int64 {
	if role == roleProxy {
		return &h.proxies
	}
	return &h.origins
}

// joinCluster makes the Engine part of the service. cfg is valid.
func (e *Engine) joinCluster(cfg *PeersConfig) {
	p := &cluster{engine: e, log: e.log, directory: cfg.Directory, known: map[string]string{}}
	p.budget = relay.NewBudget(relay.DefaultBudget)
	e.cluster = p
	p.table = relay.NewTable(relay.Self{Pod: e.pod, Incarnation: e.incarnation}, relay.TableConfig{
		Load: p.load, Counters: &p.counters,
	})
	p.metrics = newClusterMetrics(e.metrics, &p.counters, cfg.TLS, &p.held, p.peerStates)
	p.transport = peers.NewTransport(peers.Config{
		Pod: e.pod, Listener: cfg.Listener, TLS: cfg.TLS, Metrics: p.metrics.Metrics, Log: e.log,
		Deliver: p.route, Connected: p.reconnected,
	})
	p.transport.Start()
	p.unsubscribe = p.directory.Subscribe(p.refresh)
	p.refresh()
}

// refresh takes over what the directory knows. A pod that is no longer in it stays connected while
// there are links to it: the directory may be late or wrong, and a pod that is gone will be silent.
func (p *cluster) refresh() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := time.Now()
	next, names := map[string]string{}, []string(nil)
	for _, peer := range p.directory.Peers() {
		if peer.Pod != p.engine.pod {
			next[peer.Pod] = peer.Addr
			names = append(names, peer.Pod)
		}
	}
	for pod, addr := range p.known {
		if next[pod] == "" && p.table.Peer(pod).Links > 0 {
			next[pod] = addr
		}
	}
	p.known = next
	p.transport.SetPeers(next)
	events := p.table.SetPeers(now, names)
	p.schedule(now)
	p.mu.Unlock()
	p.handle(events)
}

// schedule arranges the table's next tick. The caller holds mu.
func (p *cluster) schedule(now time.Time) {
	next := p.table.Next()
	switch {
	case next.IsZero():
	case p.timer == nil:
		p.timer = time.AfterFunc(next.Sub(now), p.tick)
	default:
		p.timer.Reset(next.Sub(now))
	}
}

func (p *cluster) tick() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := time.Now()
	events := p.table.Tick(now)
	p.schedule(now)
	p.mu.Unlock()
	p.handle(events)
}

// handle does what the table asks for. The caller does not hold mu.
func (p *cluster) handle(events []relay.Event) {
	for _, e := range events {
		switch e := e.(type) {
		case relay.Send:
			p.transport.Send(e.Peer, e.Envelope)
		case relay.LinkLost:
			if l := p.link(e.Link); l != nil {
				l.post(linkPeerLost{e.Cause})
			}
		case relay.PeerChanged:
			p.peerChanged(e)
		}
	}
}

func (p *cluster) peerChanged(e relay.PeerChanged) {
	switch e.State {
	case relay.PeerIsAlive:
		p.log.Info("peer is alive", "peer", e.Peer)
	case relay.PeerIsDead:
		p.log.Warn("peer is dead: it has not answered", "peer", e.Peer)
		p.transport.Reset(e.Peer)
	}
}

// peerStates counts the known peers that are alive, and those that are dead.
func (p *cluster) peerStates() (alive, dead int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pod := range p.known {
		switch p.table.Peer(pod).State {
		case relay.PeerIsAlive:
			alive++
		case relay.PeerIsDead:
			dead++
		}
	}
	return alive, dead
}

// load is what a heartbeat says of this pod. A pod that cannot run commands counts as draining:
// room there is of no use.
func (p *cluster) load() *relay.Heartbeat {
	s := p.engine.Stats()
	return &relay.Heartbeat{
		Sessions: uint32(max(s.Sessions, 0)), MaxSessions: uint32(s.MaxSessions), Draining: !p.engine.Ready(),
		Refused: uint64(s.Refused), Started: uint64(s.Started), StartSeconds: s.StartTime.Seconds(),
	}
}

// reconnected tells the links to a peer that the connection to it is a new one.
func (p *cluster) reconnected(peer string) {
	for _, l := range p.allLinks() {
		if l.peerName() == peer {
			l.post(linkReconnected{})
		}
	}
}

func (p *cluster) allLinks() (all []linkEnd) {
	p.links.Range(func(id, _ any) bool {
		if l := p.link(id.(relay.LinkID)); l != nil { //nolint:errcheck // nothing else is a key
			all = append(all, l)
		}
		return true
	})
	return all
}

// link returns this pod's end of a link, or nil.
func (p *cluster) link(id relay.LinkID) linkEnd {
	l, _ := p.links.Load(id)
	end, _ := l.(linkEnd)
	return end
}

// route takes an envelope from the transport. Those of one link come one at a time, in order.
func (p *cluster) route(e *relay.Envelope, held relay.Held) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := time.Now()
	routed, events := p.table.Route(now, e)
	if routed.Verdict == relay.OpenOrigin {
		switch {
		case p.held.origins.Load() >= int64(MaxOrigins(p.engine.limits.MaxSessions)):
			events = append(events, p.table.Refuse(now, routed.Link, e.GetFrom())...)
			routed.Verdict = relay.Ignore
		case p.add(now, routed.Link, newOriginLink(p, routed.Link, e.GetFrom())):
			p.held.origins.Add(1)
		default:
			routed.Verdict = relay.Ignore
		}
	}
	p.mu.Unlock()
	p.handle(events)
	switch routed.Verdict {
	case relay.Ignore:
	case relay.Asked:
		p.answer(e.GetFrom(), routed.Query)
	case relay.Answered:
		p.queries.receive(e.GetFrom(), routed.Answer)
	case relay.Deliver, relay.OpenOrigin:
		if l := p.link(routed.Link); l != nil {
			if held != nil {
				held.Ref()
			}
			l.post(linkFrame{routed.Frame, held})
		}
	}
}

// sender returns a function that sends the frames of links to a peer.
func (p *cluster) sender(peer string) func(*relay.Frame) {
	return func(f *relay.Frame) { p.transport.Send(peer, p.table.Wrap(f)) }
}

// MaxOrigins is how many clients other pods may have here: one for each session slot, and a quarter
// more for those that come back before their former links have ended.
func MaxOrigins(sessions int) int { return sessions + max(sessions/4, 16) }

// proxyWindow is how much output of a session elsewhere a client here may leave unread.
func (p *cluster) proxyWindow() int { return relay.WindowFor(int(p.readers.Load())) }

// originWindow returns a function that bounds the output of one link that is on its way to a peer.
func (p *cluster) originWindow(peer string) func() int {
	return func() int {
		if p.transport.Queued(peer) > congested {
			return relay.LeastWindow
		}
		return relay.WindowFor(int(p.held.origins.Load()))
	}
}

// maxControl leaves room for one request of the largest size behind those that the gateway lets
// wait.
func (p *cluster) maxControl() int { return relay.DefaultMaxControl + int(p.engine.limits.MaxMessage) }

// join adds the link of a proxy. It returns false if the peer is dead.
func (p *cluster) join(link relay.LinkID, end linkEnd) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.add(time.Now(), link, end) {
		return false
	}
	p.held.proxies.Add(1)
	return true
}

// add adds a link, unless its peer is dead or this pod leaves. A link that is not added gets no
// events. The caller holds mu.
func (p *cluster) add(now time.Time, link relay.LinkID, end linkEnd) bool {
	if p.leaving || !p.table.Add(now, link, end.peerName()) {
		return false
	}
	p.links.Store(link, end)
	p.open.Add(1)
	return true
}

// remove removes a link that has ended. It must be called once for each that was added.
func (p *cluster) remove(link relay.LinkID, role string, cause relay.Ended) {
	p.mu.Lock()
	p.table.Remove(time.Now(), link)
	p.mu.Unlock()
	p.links.Delete(link)
	p.metrics.ended.WithLabelValues(role, string(cause)).Inc()
	p.held.of(role).Add(-1)
	p.open.Done()
}

// candidates returns the peers to ask for a new session, in this order.
func (p *cluster) candidates() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Placement()
}

// hasRoomElsewhere reports whether a peer other than asking is believed to have room for a session.
func (p *cluster) hasRoomElsewhere(asking string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pod := range p.table.Placement() {
		if info := p.table.Peer(pod); pod != asking && info.Sessions < info.MaxSessions {
			return true
		}
	}
	return false
}

// lookup combines what the directory knows of a pod with its heartbeats. A pod that answers exists,
// even if the directory has lost it. A pod that has never been heard may not know of this one yet,
// and so has nowhere to send its answers: see relay.FirstContactTimeout.
func (p *cluster) lookup(pod string) peers.Knowledge {
	_, k := p.directory.Lookup(pod)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state := p.table.Peer(pod).State; {
	case state == relay.PeerIsAlive && p.known[pod] != "":
		return peers.Known
	case state == relay.PeerIsUnknown && k == peers.Known:
		return peers.Unresolved
	}
	return k
}

// reserve notes that a session is about to be placed on a peer.
func (p *cluster) reserve(pod string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.Reserve(pod)
}

// close ends the links that are left. No session and no client's socket exists any more.
func (p *cluster) close() {
	p.unsubscribe()
	p.queries.close()
	p.mu.Lock()
	p.leaving = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.open.Wait()
		close(done)
	}()
	late := time.NewTimer(closeGrace)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
		for _, l := range p.allLinks() {
			l.post(linkPeerLost{relay.EndedPeerUnknown})
		}
		<-done
	}
	p.mu.Lock()
	p.closed = true
	stopTimer(p.timer)
	p.mu.Unlock()
	p.transport.Close()
}
