package relay

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// ProxyConfig is what a proxy needs.
type ProxyConfig struct {
	Link LinkID     // a new one
	Open OpenParams // what to ask the owner for
	// Sink is the socket. Only the proxy's methods call it.
	Sink Sink
	// Send sends a frame to the peer, wrapped in an envelope. It must not block, and may lose frames.
	// It must encode the frame before it returns: the memory of output is used again once it is
	// acknowledged.
	Send func(*Frame)
	// Wake asks for a call of Proxy.Wake soon. It may be called from any goroutine, with no lock held,
	// and must not block.
	Wake func()
	// Opened is called once when the owner has opened a new session, before the client is told. May be
	// nil.
	Opened func(session string)
	// Refused is called once instead if no session was opened, because the owner refused or was lost
	// first. The client has been told nothing. If Refused is nil, the proxy tells the client.
	Refused func(*wire.Error, wire.Cause)
	// Window bounds the cost of output that the client has not read. It is called whenever credit is
	// granted, and may return less than at first, but no less than a quarter of that or LeastWindow.
	// nil: always LeastWindow.
	Window func() int
	// MaxControl bounds the bytes of unacknowledged requests. It must exceed the largest request. 0:
	// DefaultMaxControl.
	MaxControl int
	// Budget bounds the same for all links of the pod, with what has arrived in part. nil: no bound.
	Budget *Budget
	// Counters may be nil.
	Counters *Counters
}

// Proxy is the end of a link on the pod that has the client's socket. It passes requests on, and
// tells the client what a session on this pod would tell it. Its methods do not block. They are for
// one goroutine at a time.
type Proxy struct {
	cfg    ProxyConfig
	link   link
	window window

	opened      bool          // the owner has the session, or it was there before
	refusal     *wire.Error   // why a new session is not opened; disconnect follows
	outstanding []wire.ID     // requests without an answer, in order
	over        bool          // the client has been told of the end
	closed      bool          // the client is gone
	missed      []executionAt // feeds that the client did not take

	feeds   map[uint32]*feed
	newest  map[string]uint32 // of each execution
	granted uint64            // cost that the origin may send
	came    uint64            // cost that has arrived
	held    Held              // what the frame that is being received refers to, or nil
}

// executionAt is a place in an execution's output.
type executionAt struct {
	execution string
	offset    int64
}

// NewProxy makes a proxy and sends its first frame.
func NewProxy(now time.Time, cfg ProxyConfig) *Proxy {
	cfg.Window = windowOf(cfg.Window)
	setDefault(&cfg.MaxControl, DefaultMaxControl)
	if cfg.Counters == nil {
		cfg.Counters = new(Counters)
	}
	g := &Proxy{cfg: cfg, opened: cfg.Open.Session != "", feeds: map[uint32]*feed{}, newest: map[string]uint32{}}
	g.link = newLink(now, cfg.Link, true)
	g.link.send, g.link.counters, g.link.maxControl = cfg.Send, cfg.Counters, cfg.MaxControl
	g.link.budget = cfg.Budget
	g.link.deliver, g.link.onEnded, g.link.acked = g.deliver, g.linkEnded, g.acked
	g.window.wake = cfg.Wake
	g.granted = uint64(cfg.Window())
	g.window.alarm.Store(g.granted / 2)

	o := &Open{
		Subject: []byte(cfg.Open.Subject), Remote: []byte(cfg.Open.Remote), Session: []byte(cfg.Open.Session),
		EndsWithConnection: cfg.Open.EndsWithConnection, Window: g.granted,
		Name: cfg.Open.Options.Name, Labels: cfg.Open.Options.Labels,
		ResumeWindow: uint64(cfg.Open.Options.ResumeWindow.Milliseconds()),
	}
	if cfg.Open.Resume != nil {
		o.First = encodeRequest(cfg.Open.ResumeID, cfg.Open.Resume)
		g.expect(cfg.Open.ResumeID)
	}
	g.link.enqueue(now, &Frame_Open{o})
	return g
}

func setDefault(n *int, value int) {
	if *n <= 0 {
		*n = value
	}
}

// Receive takes a frame of this link. If its output refers to memory that the caller frees
// afterwards, held is that.
func (g *Proxy) Receive(now time.Time, f *Frame, held Held) {
	g.held = held
	g.link.receive(now, f)
	g.held = nil
}

// Request passes a request on. params is a pointer to one of wire's …Params; an empty id makes it a
// notification.
func (g *Proxy) Request(now time.Time, id wire.ID, params any) {
	if g.over || g.closed || g.link.ended != "" {
		return
	}
	r := encodeRequest(id, params)
	if r == nil {
		err := wire.Errorf(wire.CodeMethodNotFound, "requests of type %T do not travel between pods", params)
		g.cfg.Sink.Reply(id, nil, err)
		return
	}
	g.expect(id)
	g.link.enqueue(now, &Frame_Request{r})
}

func (g *Proxy) expect(id wire.ID) {
	if len(id) > 0 {
		g.outstanding = append(g.outstanding, id)
	}
}

// Closed says that the client's socket is gone, why, and what was written to it: see
// actors.Connection.Closed. The proxy does not call the client after this. The caller must keep the
// proxy until it is Done, so that the owner learns of the end.
func (g *Proxy) Closed(now time.Time, cause wire.Cause, delivered map[string]int64) {
	if g.closed {
		return
	}
	g.closed, g.over = true, true
	if g.link.ended != "" {
		return
	}
	end := &End{Cause: string(cause), DeliveredKnown: delivered != nil, Delivered: map[string]int64{}}
	for id, offset := range delivered {
		end.Delivered[id] = offset
	}
	for _, m := range g.missed {
		if _, ok := end.Delivered[m.execution]; !ok {
			end.Delivered[m.execution] = m.offset
		}
	}
	g.finish(now, end)
}

// finish sends the last frame. Frames that arrive later are neither used nor acknowledged.
func (g *Proxy) finish(now time.Time, end *End) {
	g.link.freeze()
	g.link.enqueue(now, &Frame_End{end})
}

// acked ends the link when its last frame has arrived.
func (g *Proxy) acked() {
	if g.link.frozen && g.link.gone == g.link.last && g.link.ended == "" {
		g.link.end(g.link.heard, EndedDone)
	}
}

// PeerLost says that the peer is gone.
func (g *Proxy) PeerLost(now time.Time, why Ended) { g.link.end(now, why) }

// Reconnected says that the transport to the peer was reset, so that frames may be lost. It is a
// hint.
func (g *Proxy) Reconnected(now time.Time) { g.link.reconnected(now) }

// Wake must be called after ProxyConfig.Wake was: the client has read output, and there may be
// credit to grant.
func (g *Proxy) Wake(now time.Time) {
	if g.closed || g.link.ended != "" {
		return
	}
	for {
		window := uint64(g.cfg.Window())
		if limit := g.window.done.Load() + window; limit >= g.granted+window/2 {
			g.granted = limit
			g.link.enqueue(now, &Frame_Credit{&Credit{Limit: limit}})
		}
		alarm := g.granted - window/2
		g.window.alarm.Store(alarm)
		if g.window.done.Load() < alarm {
			return
		}
	}
}

// Tick does the work that is due at now.
func (g *Proxy) Tick(now time.Time) { g.link.tick(now) }

// Next returns when Tick must be called next, or zero if no call is due.
func (g *Proxy) Next() time.Time { return g.link.next() }

// Done reports whether the link has ended and the proxy can be forgotten.
func (g *Proxy) Done() bool { return g.link.ended != "" }

// Ended says how the link ended. It is empty until then.
func (g *Proxy) Ended() Ended { return g.link.ended }

// deliver takes the frames of the origin, in order.
func (g *Proxy) deliver(now time.Time, f *Frame) {
	switch body := f.Body.(type) {
	case *Frame_Reply:
		g.reply(body.Reply)
	case *Frame_Notify:
		g.notify(body.Notify)
	case *Frame_Follow:
		g.follow(now, body.Follow)
	case *Frame_Output:
		g.output(now, body.Output)
	case *Frame_Disconnect:
		g.disconnect(now, knownCause(body.Disconnect.GetCause()))
	default:
		g.cfg.Counters.Unknown.Add(1)
	}
}

func (g *Proxy) reply(r *Reply) {
	result, err := decodeReply(r)
	id := wire.ID(r.GetId())
	if len(id) == 0 && !g.opened && err != nil {
		g.refusal = err
		return
	}
	if len(id) > 0 {
		i := slices.IndexFunc(g.outstanding, func(o wire.ID) bool { return string(o) == string(id) })
		if i < 0 {
			g.cfg.Counters.Violations.Add(1)
			return
		}
		g.outstanding = slices.Delete(g.outstanding, i, i+1)
	}
	if !g.over {
		g.cfg.Sink.Reply(id, result, err)
	}
}

func (g *Proxy) notify(n *Notify) {
	params := asJSON(n.GetParams())
	if n.GetMethod() == wire.MethodConnected {
		connected := new(wire.Connected)
		if json.Unmarshal(n.GetParams(), connected) == nil {
			params = connected
		}
		if !g.opened {
			g.opened = true
			if g.cfg.Opened != nil {
				g.cfg.Opened(connected.SessionID)
			}
		}
	}
	if !g.over {
		g.cfg.Sink.Notify(n.GetMethod(), params)
	}
}

func (g *Proxy) follow(now time.Time, m *Follow) {
	id, execution := m.GetFeed(), m.GetExecution()
	if _, used := g.feeds[id]; used || id == 0 || m.GetOffset() < 0 || m.GetWindow() < 0 {
		g.link.violated(now)
		return
	}
	delete(g.feeds, g.newest[execution]) // its reader closes it when it comes to the new one
	f := &feed{execution: execution, window: &g.window, arrived: m.GetOffset(), offset: m.GetOffset()}
	g.feeds[id], g.newest[execution] = f, id
	taken := !g.over && g.cfg.Sink.Follow(Feed{
		ExecutionID: execution, Encoding: wire.Encoding(m.GetEncoding()), Window: m.GetWindow(), Open: f.open,
	})
	if !taken {
		f.Close()
		g.missed = append(g.missed, executionAt{execution, m.GetOffset()})
	}
}

// output hands pieces to the reader of a feed. Nothing arrives for a feed that was replaced,
// because the origin closed it before it announced the new one.
func (g *Proxy) output(now time.Time, o *Output) {
	f := g.feeds[o.GetFeed()]
	if f == nil {
		g.link.violated(now)
		return
	}
	a := arrival{pieces: make([]transcript.Piece, 0, len(o.GetPieces())), cost: costOfAll(o.GetPieces()), held: g.held}
	for _, p := range o.GetPieces() {
		piece, ok := arrived(p, f.arrived)
		if !ok {
			g.link.violated(now)
			return
		}
		f.arrived = piece.Offset
		a.pieces = append(a.pieces, piece)
	}
	g.came += uint64(a.cost)
	if g.came > g.granted+markSlack {
		g.link.violated(now)
		return
	}
	f.add(a, o.GetEof())
	if o.GetEof() {
		g.forget(o.GetFeed(), f.execution)
	}
}

// forget drops a feed that has ended. The feed's reader still has it.
func (g *Proxy) forget(id uint32, execution string) {
	delete(g.feeds, id)
	if g.newest[execution] == id {
		delete(g.newest, execution)
	}
}

func (g *Proxy) disconnect(now time.Time, cause wire.Cause) {
	if g.over {
		return
	}
	g.over = true
	if !g.opened {
		err := g.refusal
		if err == nil {
			err = wire.Errorf(wire.CodeInternal, "the session was not opened")
		}
		g.closed = true
		g.finish(now, &End{Cause: string(cause), DeliveredKnown: true})
		g.refuse(err, cause)
		return
	}
	g.cfg.Sink.Disconnect(cause)
}

// refuse reports that no session was opened.
func (g *Proxy) refuse(err *wire.Error, cause wire.Cause) {
	if g.cfg.Refused != nil {
		g.cfg.Refused(err, cause)
		return
	}
	g.cfg.Sink.Reply(nil, nil, err)
	g.cfg.Sink.Disconnect(cause)
}

// linkEnded tells the client, unless the client is gone or has been told already.
func (g *Proxy) linkEnded(time.Time) {
	g.feeds, g.newest = nil, nil
	if g.over {
		return
	}
	g.over = true
	lost := wire.Errorf(wire.CodeSessionLost, "the pod that owned the session is gone")
	switch why := g.link.ended; {
	case !g.opened:
		g.refuse(lost, wire.CauseSessionLost)
	case why.ownerLost():
		if len(g.outstanding) == 0 {
			g.cfg.Sink.Reply(nil, nil, lost)
		}
		for _, id := range g.outstanding {
			g.cfg.Sink.Reply(id, nil, lost)
		}
		g.cfg.Sink.Disconnect(wire.CauseSessionLost)
	case why == EndedOverflow:
		g.cfg.Sink.Disconnect(wire.CauseSlowConsumer)
	default:
		g.cfg.Sink.Disconnect(wire.CauseClientGone)
	}
	g.outstanding = nil
}
