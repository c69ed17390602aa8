package relay

import (
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// pair is a proxy and an origin that hear each other at once, unless told otherwise.
type pair struct {
	t      testing.TB
	now    time.Time
	proxy  *Proxy
	origin *Origin
	client *recorder

	toOrigin, toProxy []*Frame
	deaf              bool // the proxy gets nothing

	opening   OpenParams
	requests  []any
	closed    []wire.Cause
	delivered map[string]int64
}

// recorder is a client that records what it receives.
type recorder struct {
	replies []string
	errs    []*wire.Error
	notes   []any
	feeds   []Feed
	causes  []wire.Cause
	deny    bool // feeds
}

func (r *recorder) Reply(id wire.ID, _ any, err *wire.Error) {
	r.replies, r.errs = append(r.replies, string(id)), append(r.errs, err)
}
func (r *recorder) Notify(_ string, params any) { r.notes = append(r.notes, params) }
func (r *recorder) Follow(f Feed) bool {
	if !r.deny {
		r.feeds = append(r.feeds, f)
	}
	return !r.deny
}
func (r *recorder) Disconnect(cause wire.Cause) { r.causes = append(r.causes, cause) }

// fixed is a window that stays as it is; 0 is the default.
func fixed(window int) func() int {
	if window == 0 {
		return nil
	}
	return func() int { return window }
}

func newPair(t testing.TB, window int) *pair {
	return newPairOf(t, fixed(window), fixed(window))
}

func newPairOf(t testing.TB, origin, proxy func() int) *pair {
	p := &pair{t: t, now: simStart, client: &recorder{}}
	link := NewLinkID()
	p.origin = NewOrigin(p.now, OriginConfig{
		Link: link, Window: origin,
		Send: func(f *Frame) { p.toProxy = append(p.toProxy, sent(t, f)) }, Wake: func() {},
		Connect: func(o OpenParams) { p.opening = o },
		Request: func(_ wire.ID, params any) { p.requests = append(p.requests, params) },
		Closed: func(cause wire.Cause, delivered map[string]int64) {
			p.closed, p.delivered = append(p.closed, cause), delivered
		},
	})
	p.proxy = NewProxy(p.now, ProxyConfig{
		Link: link, Window: proxy, Sink: p.client, Open: OpenParams{
			Subject: "s", Session: "pod.1", ResumeID: wire.ID("1"),
			Resume: &wire.ResumeParams{ResumeToken: "t"},
		},
		Send: func(f *Frame) { p.toOrigin = append(p.toOrigin, sent(t, f)) }, Wake: func() {},
	})
	return p
}

// settle carries frames until there are none.
func (p *pair) settle() {
	for len(p.toOrigin) > 0 || len(p.toProxy) > 0 && !p.deaf {
		for _, f := range take(&p.toOrigin) {
			p.origin.Receive(p.now, f)
		}
		if p.deaf {
			continue
		}
		for _, f := range take(&p.toProxy) {
			p.proxy.Receive(p.now, f, nil)
		}
	}
}

func take(frames *[]*Frame) []*Frame {
	all := *frames
	*frames = nil
	return all
}

// sent is what arrives of a frame.
func sent(t testing.TB, f *Frame) *Frame {
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	arrives := new(Frame)
	if err := proto.Unmarshal(b, arrives); err != nil {
		t.Fatal(err)
	}
	return arrives
}

// stream is an endless cursor, or one of n bytes.
type stream struct {
	offset, end int64
	piece       int // bytes of one piece at most
	mixed       bool
}

func (s *stream) Offset() int64 { return s.offset }
func (s *stream) Close()        {}
func (s *stream) Next(buf []byte) (transcript.Piece, error) {
	n := int64(min(len(buf), s.piece))
	if s.end >= 0 {
		n = min(n, s.end-s.offset)
	}
	if n == 0 {
		return transcript.Piece{}, io.EOF
	}
	s.offset += n
	p := transcript.Piece{Data: buf[:n], Offset: s.offset}
	if s.mixed {
		p.Stream = transcript.Stream(s.offset & 1)
	}
	return p, nil
}

func feedOf(s *stream) Feed {
	return Feed{ExecutionID: "x", Open: func(func()) (Cursor, error) { return s, nil }}
}

func TestOpeningAndRequestsTravelWhole(t *testing.T) {
	p := newPair(t, 0)
	params := []any{
		&wire.ExecuteParams{
			Argv: []string{"a", ""}, Env: map[string]string{"A": "ä\n"}, Timeout: 0.1, Stdin: true,
			Framing: wire.FramingRaw,
		},
		&wire.ExecuteParams{Command: strings.Repeat("long ", 40_000)},
		&wire.ControlParams{Type: wire.ControlPause, ExecutionID: "x"},
		&wire.InputParams{ExecutionID: "x", EOF: true},
		&wire.SignalParams{ExecutionID: "x", Signal: "SIGINT"},
		&wire.StatusParams{}, &wire.CloseParams{}, &wire.PongParams{},
		&wire.ResumeParams{ResumeToken: "t", Executions: map[string]int64{}},
		&wire.ResumeParams{ResumeToken: "t"},
	}
	for _, r := range params {
		p.proxy.Request(p.now, wire.ID("7"), r)
	}
	p.settle()
	if p.opening.Subject != "s" || p.opening.Session != "pod.1" || p.opening.Resume == nil ||
		string(p.opening.ResumeID) != "1" {
		t.Errorf("opened with %+v", p.opening)
	}
	if len(p.requests) != len(params)+1 {
		t.Fatalf("%d requests of %d came", len(p.requests), len(params)+1)
	}
	for i, want := range params {
		if got := p.requests[i+1]; !equalJSON(t, got, want) {
			t.Errorf("request %d: got %+v, want %+v", i, got, want)
		}
	}
	if r := p.requests[9].(*wire.ResumeParams); r.Executions == nil {
		t.Error("an empty list of executions became none")
	}
	if r := p.requests[10].(*wire.ResumeParams); r.Executions != nil {
		t.Error("no list of executions became an empty one")
	}
}

// TestUnknownBodiesAreTolerated: a newer release sends a body that this one does not know, in its
// turn.
func TestUnknownBodiesAreTolerated(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	unknown := []byte{0x82, 0x06, 0x00} // field 96, of length 0
	f := new(Frame)
	if err := proto.Unmarshal(unknown, f); err != nil {
		t.Fatal(err)
	}
	f.Link, f.Seq = p.origin.link.id[:], p.origin.link.received+1
	p.origin.Receive(p.now, f)
	if p.origin.Done() || p.origin.link.received != f.Seq || p.origin.cfg.Counters.Unknown.Load() != 1 {
		t.Errorf("an unknown body: done %v, received %d, counted %d", p.origin.Done(), p.origin.link.received,
			p.origin.cfg.Counters.Unknown.Load())
	}
	// of the other direction
	p.origin.Receive(p.now, &Frame{Link: f.Link, Seq: f.Seq + 1, Ack: 0, Body: &Frame_Reply{&Reply{}}})
	if p.origin.Done() || p.origin.cfg.Counters.Unknown.Load() != 2 {
		t.Error("a body of the other direction is not ignored")
	}
}

func TestRequestOfANewerReleaseIsRefused(t *testing.T) {
	p := newPair(t, 0)
	p.proxy.link.enqueue(p.now, &Frame_Request{&Request{Id: []byte("9"), Method: "hibernate", Params: []byte("{}")}})
	p.proxy.expect(wire.ID("9"))
	p.settle()
	if len(p.client.errs) != 1 || wire.CodeOf(p.client.errs[0]) != wire.CodeMethodNotFound {
		t.Errorf("answered with %v", p.client.errs)
	}
}

// TestFeedsThatWereNotTakenAreMissed: the owner must not believe that output was read which the
// client never got.
func TestFeedsThatWereNotTakenAreMissed(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.client.deny = true
	p.origin.Follow(p.now, Feed{ExecutionID: "denied", Open: func(func()) (Cursor,
		error,
	) {
		return &stream{offset: 3, end: 3}, nil
	}})
	p.settle()
	p.deaf = true
	p.origin.Follow(p.now, Feed{ExecutionID: "unheard", Open: func(func()) (Cursor,
		error,
	) {
		return &stream{offset: 5, end: 5}, nil
	}})
	p.proxy.Closed(p.now, wire.CauseClientGone, map[string]int64{"other": 9})
	p.settle()
	if len(p.closed) != 1 || p.closed[0] != wire.CauseClientGone || len(p.delivered) != 3 ||
		p.delivered["denied"] != 3 || p.delivered["unheard"] != 5 || p.delivered["other"] != 9 {
		t.Errorf("the owner was told %v %v", p.closed, p.delivered)
	}
}

// TestOverflowEndsTheLink: a peer that acknowledges nothing does not make answers pile up.
func TestOverflowEndsTheLink(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.deaf = true
	most := 0
	for range 100 {
		p.origin.Reply(p.now, nil, strings.Repeat("x", 1<<20), nil)
		most = max(most, p.origin.link.control)
	}
	if p.origin.Ended() != EndedOverflow || most > DefaultMaxControl || len(p.closed) != 1 ||
		p.closed[0] != wire.CauseSlowConsumer {
		t.Errorf("ended %q with at most %d bytes, told %v", p.origin.Ended(), most, p.closed)
	}
	p.deaf = false
	p.settle()
	if p.proxy.Ended() != EndedOverflow || len(p.client.causes) != 1 || p.client.causes[0] != wire.CauseSlowConsumer {
		t.Errorf("the proxy ended %q and told %v", p.proxy.Ended(), p.client.causes)
	}
}

// TestDisconnectHasPatience: a proxy that was told to end, acknowledges everything and does not say
// that its client is gone, is not waited for beyond endTimeout.
func TestDisconnectHasPatience(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.origin.Disconnect(p.now, wire.CauseDraining)
	p.settle()
	if len(p.client.causes) != 1 || p.client.causes[0] != wire.CauseDraining {
		t.Fatalf("the client was told %v", p.client.causes)
	}
	told := p.now
	for step := 0; !p.origin.Done(); step++ {
		next := p.origin.Next()
		if g := p.proxy.Next(); !g.IsZero() && g.Before(next) {
			next = g
		}
		if next.IsZero() || step > 1000 {
			t.Fatalf("after %v waits until %v", p.now.Sub(told), next)
		}
		p.now = next
		p.origin.Tick(p.now)
		p.proxy.Tick(p.now)
		p.settle()
	}
	if waited := p.now.Sub(told); waited != endTimeout || p.origin.Ended() != EndedSilent || len(p.closed) != 1 ||
		p.closed[0] != wire.CauseClientGone {
		t.Errorf("after %v the link ended as %q, and the owner was told %v", waited, p.origin.Ended(), p.closed)
	}
	if !p.proxy.Done() {
		t.Error("the proxy was not told")
	}
}

// TestFollowerKeepsItsWindowOnTheWay: the socket is on another pod than the session that grants the
// window, and the client's acks go back as requests, of which those without an id are not answered.
func TestFollowerKeepsItsWindowOnTheWay(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	for _, window := range []int64{0, wire.MinWindow, wire.MaxWindow} {
		feed := feedOf(&stream{end: 1, piece: 1})
		feed.Window = window
		p.origin.Follow(p.now, feed)
		p.settle()
		if got := p.client.feeds[len(p.client.feeds)-1]; got.Window != window {
			t.Errorf("a window of %d arrived as %d", window, got.Window)
		}
	}
	before := len(p.requests)
	p.proxy.Request(p.now, nil, &wire.AckParams{ExecutionID: "x", Offset: 1 << 40, Completed: true})
	p.settle()
	if len(p.requests) != before+1 {
		t.Fatalf("%d requests arrived", len(p.requests)-before)
	}
	want := wire.AckParams{ExecutionID: "x", Offset: 1 << 40, Completed: true}
	if got, ok := p.requests[before].(*wire.AckParams); !ok || *got != want {
		t.Errorf("the ack arrived as %+v", p.requests[before])
	}
}
