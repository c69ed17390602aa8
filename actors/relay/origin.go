package relay

import (
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// DefaultLeaveTimeout is how long a Disconnect waits for the output before it. The gateway's write
	// timeout bounds the same wait for a client of this pod.
	DefaultLeaveTimeout = 10 * time.Second
	// endTimeout is how long after Disconnect the proxy may take to report that the client is gone.
	// The proxy's gateway has a write timeout to send its remaining messages.
	endTimeout = 15 * time.Second
)

// OriginConfig is what an origin needs.
type OriginConfig struct {
	Link LinkID // of the frame that opened it
	// Connect opens a connection to the engine. It is called once, before Request. A Resume in its
	// parameters follows as the first Request.
	Connect func(OpenParams)
	// Request passes a request on: each request of the client once, in order. Origin.Reply answers it,
	// unless id is empty.
	Request func(id wire.ID, params any)
	// Closed says that the client is gone. If Connect was called, Closed is called once, as the last
	// call: see actors.Connection.Closed.
	Closed func(cause wire.Cause, delivered map[string]int64)
	// Send and Wake: see ProxyConfig. Wake is called when a transcript has more output.
	Send func(*Frame)
	Wake func()
	// Window bounds the cost of unacknowledged output, whatever the proxy allows. It is called before
	// each frame of output, and may return less than at first, but no less than a quarter of that or
	// LeastWindow. nil: always LeastWindow.
	Window func() int
	// MaxControl bounds the bytes of unacknowledged answers and notifications. 0: DefaultMaxControl.
	MaxControl int
	// Budget bounds the same for all links of the pod, with what has arrived in part. nil: no bound.
	Budget *Budget
	// LeaveTimeout is how long Disconnect waits for output to be pulled. 0: DefaultLeaveTimeout.
	LeaveTimeout time.Duration
	// Counters may be nil.
	Counters *Counters
}

// Origin is the end of a link on the pod that owns the session. To the engine it is a client. Its
// methods do not block. They are for one goroutine at a time.
type Origin struct {
	cfg  OriginConfig
	link link

	connected bool // Connect was called
	told      bool // Closed was called

	// Output.
	feeds    []*originFeed // that have not come to their end
	turn     int           // index in feeds of the next to have a turn
	lastFeed uint32
	limit    uint64 // cost that the proxy allows
	least    int    // of room, for a piece to be worth cutting; see leastRoom
	sent     uint64 // cost that was sent
	unseen   []followed

	// Disconnect.
	leaving wire.Cause // why; empty: it was not called
	leaveBy time.Time  // deadline for the output before it, then for the end
	left    bool       // it was sent
}

// originFeed is a transcript that is being sent.
type originFeed struct {
	id        uint32
	execution string
	cursor    Cursor
	ready     atomic.Bool // there may be something to send
}

// followed is an unacknowledged Follow. If the client goes first, that output was not delivered to
// it.
type followed struct {
	seq uint64
	at  executionAt
}

// NewOrigin makes an origin. The caller passes the frame that opened it to Receive.
func NewOrigin(now time.Time, cfg OriginConfig) *Origin {
	cfg.Window = windowOf(cfg.Window)
	setDefault(&cfg.MaxControl, DefaultMaxControl)
	if cfg.LeaveTimeout <= 0 {
		cfg.LeaveTimeout = DefaultLeaveTimeout
	}
	if cfg.Counters == nil {
		cfg.Counters = new(Counters)
	}
	h := &Origin{cfg: cfg, least: pieceCost + 1}
	h.link = newLink(now, cfg.Link, false)
	h.link.send, h.link.counters, h.link.maxControl = cfg.Send, cfg.Counters, cfg.MaxControl
	h.link.budget = cfg.Budget
	h.link.deliver, h.link.onEnded, h.link.acked = h.deliver, h.linkEnded, h.acked
	return h
}

// Receive takes a frame of this link.
func (h *Origin) Receive(now time.Time, f *Frame) {
	h.link.receive(now, f)
	h.pump(now)
}

// PeerLost says that the peer is gone.
func (h *Origin) PeerLost(now time.Time, why Ended) { h.link.end(now, why) }

// Fail ends the link because this end cannot go on. It tells the proxy, so that the client may
// connect again.
func (h *Origin) Fail(now time.Time) { h.link.fail(now, EndedProtocol, Reset_PROTOCOL) }

// Reconnected says that the transport to the peer was reset, so that frames may be lost. It is a
// hint.
func (h *Origin) Reconnected(now time.Time) { h.link.reconnected(now) }

// Wake must be called after OriginConfig.Wake was.
func (h *Origin) Wake(now time.Time) { h.pump(now) }

// Tick does the work that is due at now.
func (h *Origin) Tick(now time.Time) {
	h.link.tick(now)
	h.pump(now)
	if h.left && h.link.ended == "" && !now.Before(h.leaveBy) {
		h.link.fail(now, EndedSilent, Reset_SILENT)
	}
}

// Next returns when Tick must be called next, or zero if no call is due.
func (h *Origin) Next() time.Time {
	if h.link.ended != "" {
		return time.Time{}
	}
	return earliest(h.link.next(), h.leaveBy)
}

// Done reports whether the link has ended and the origin can be forgotten.
func (h *Origin) Done() bool { return h.link.ended != "" }

// Ended says how the link ended. It is empty until then.
func (h *Origin) Ended() Ended { return h.link.ended }

// Reply does what Sink.Reply describes.
func (h *Origin) Reply(now time.Time, id wire.ID, result any, err *wire.Error) {
	if h.leaving == "" {
		h.link.enqueue(now, &Frame_Reply{encodeReply(id, result, err)})
	}
}

// Notify does what Sink.Notify describes.
func (h *Origin) Notify(now time.Time, method string, params any) {
	if h.leaving != "" || h.link.ended != "" {
		return
	}
	n := &Notify{Method: method}
	if params != nil {
		b, err := json.Marshal(params)
		if err != nil {
			h.cfg.Counters.Violations.Add(1)
			return
		}
		n.Params = b
	}
	h.link.enqueue(now, &Frame_Notify{n})
}

// Follow does what Sink.Follow describes. It returns false if the feed was not taken and Closed did
// not report it.
func (h *Origin) Follow(now time.Time, f Feed) bool {
	if !h.connected || h.leaving != "" || h.told || h.link.ended != "" {
		return false
	}
	feed := &originFeed{execution: f.ExecutionID}
	cursor, err := f.Open(func() {
		feed.ready.Store(true)
		h.cfg.Wake()
	})
	if err != nil {
		h.Notify(now, wire.MethodError, &wire.ProcessError{
			ExecutionID: f.ExecutionID, Error: wire.Errorf(wire.CodeInternal, "the output cannot be read"),
		})
		return true
	}
	h.lastFeed++
	feed.id, feed.cursor = h.lastFeed, cursor
	feed.ready.Store(true)
	for i, old := range h.feeds {
		if old.execution == f.ExecutionID {
			h.drop(i)
			break
		}
	}
	h.feeds = append(h.feeds, feed)
	at := executionAt{f.ExecutionID, cursor.Offset()}
	h.link.enqueue(now, &Frame_Follow{&Follow{
		Feed: feed.id, Execution: at.execution, Encoding: string(f.Encoding), Offset: at.offset,
		Window: f.Window,
	}})
	h.unseen = append(h.unseen, followed{h.link.last, at})
	h.pump(now)
	return h.link.ended == ""
}

// drop closes a feed.
func (h *Origin) drop(i int) {
	h.feeds[i].cursor.Close()
	last := len(h.feeds) - 1
	copy(h.feeds[i:], h.feeds[i+1:])
	h.feeds[last] = nil
	h.feeds = h.feeds[:last]
	if i < h.turn {
		h.turn--
	}
}

// Disconnect does what Sink.Disconnect describes. It travels behind the remaining output.
func (h *Origin) Disconnect(now time.Time, cause wire.Cause) {
	if h.leaving != "" || h.link.ended != "" {
		return
	}
	h.leaving, h.leaveBy = cause, now.Add(h.cfg.LeaveTimeout)
	h.pump(now)
}

// deliver takes the frames of the proxy, in order.
func (h *Origin) deliver(now time.Time, f *Frame) {
	if open, ok := f.Body.(*Frame_Open); ok != !h.connected {
		h.link.violated(now) // the first frame opens, and no other
		return
	} else if ok {
		h.open(now, open.Open)
		if h.link.ended == "" && h.link.owedN > 0 {
			h.link.postAck() // the proxy's requests wait for it
		}
		return
	}
	switch body := f.Body.(type) {
	case *Frame_Request:
		h.request(now, body.Request)
	case *Frame_Credit:
		h.limit = max(h.limit, body.Credit.GetLimit())
	case *Frame_End:
		h.end(now, body.End)
	default:
		h.cfg.Counters.Unknown.Add(1)
	}
}

func (h *Origin) open(now time.Time, m *Open) {
	options := wire.SessionOptions{
		Name: m.GetName(), Labels: m.GetLabels(),
		ResumeWindow: time.Duration(m.GetResumeWindow()) * time.Millisecond, //nolint:gosec // Check refuses an overflow
	}
	if options.Check() != nil {
		h.link.violated(now) // the proxy's pod has checked them
		return
	}
	h.connected, h.limit = true, m.GetWindow()
	h.least = int(min(leastRoom, m.GetWindow()/8, uint64(h.cfg.Window()/8)))
	h.least = max(h.least, pieceCost+1)
	o := OpenParams{
		Subject: string(m.GetSubject()), Remote: string(m.GetRemote()), Session: string(m.GetSession()),
		EndsWithConnection: m.GetEndsWithConnection(), Options: options,
	}
	if m.First == nil {
		h.cfg.Connect(o)
		return
	}
	o.ResumeID = wire.ID(m.First.GetId())
	params, err := decodeRequest(m.First)
	o.Resume, _ = params.(*wire.ResumeParams)
	h.cfg.Connect(o)
	h.pass(now, o.ResumeID, params, err)
}

func (h *Origin) request(now time.Time, r *Request) {
	params, err := decodeRequest(r)
	h.pass(now, wire.ID(r.GetId()), params, err)
}

func (h *Origin) pass(now time.Time, id wire.ID, params any, err *wire.Error) {
	switch {
	case err == nil:
		h.cfg.Request(id, params)
	case len(id) > 0:
		h.Reply(now, id, nil, err) // of a newer version, which knows more
	}
}

// end handles the end of the client. Feeds that had not been announced to the proxy by then count
// as not delivered.
func (h *Origin) end(now time.Time, m *End) {
	var delivered map[string]int64
	if m.GetDeliveredKnown() {
		delivered = make(map[string]int64, len(m.GetDelivered()))
		for id, offset := range m.GetDelivered() {
			delivered[id] = offset
		}
		for _, f := range h.unseen {
			if _, ok := delivered[f.at.execution]; !ok {
				delivered[f.at.execution] = f.at.offset
			}
		}
	}
	h.tell(knownCause(m.GetCause()), delivered)
	h.link.postAck()
	h.link.end(now, EndedDone)
}

// acked forgets the Follows that the proxy has acknowledged.
func (h *Origin) acked() {
	n := 0
	for n < len(h.unseen) && h.unseen[n].seq <= h.link.gone {
		n++
	}
	if h.unseen = h.unseen[n:]; len(h.unseen) == 0 {
		h.unseen = nil
	}
}

// linkEnded closes the feeds and tells the engine.
func (h *Origin) linkEnded(time.Time) {
	for len(h.feeds) > 0 {
		h.drop(len(h.feeds) - 1)
	}
	h.unseen = nil
	switch h.link.ended {
	case EndedOverflow:
		h.tell(wire.CauseSlowConsumer, nil)
	case EndedProtocol:
		h.tell(wire.CauseInternal, nil)
	default:
		h.tell(wire.CauseClientGone, nil)
	}
}

// tell informs the engine once that the client is gone.
func (h *Origin) tell(cause wire.Cause, delivered map[string]int64) {
	if h.told || !h.connected {
		return
	}
	h.told = true
	h.cfg.Closed(cause, delivered)
}
