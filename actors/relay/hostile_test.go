package relay

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/wire"
)

// following returns the next sequenced frame for an end of a link, as its other end would send it.
func (l *link) following(body isFrame_Body) *Frame {
	return &Frame{Link: l.id[:], Seq: l.received + 1, Ack: l.out, Body: body}
}

// output returns a frame of output.
func output(feed uint32, pieces ...*Piece) isFrame_Body {
	return &Frame_Output{&Output{Feed: feed, Pieces: pieces}}
}

// TestProxyEndsAtWhatNoOriginSends: a peer that has proved who it is may still be broken, and its
// client must neither be told wrong things nor hold memory without bound. Each case ends the link
// as a violation.
func TestProxyEndsAtWhatNoOriginSends(t *testing.T) {
	follow := func(feed uint32, offset int64) isFrame_Body {
		return &Frame_Follow{&Follow{Feed: feed, Execution: "x", Offset: offset}}
	}
	for name, bodies := range map[string][]isFrame_Body{
		"output of no feed":           {output(9, &Piece{Offset: 1, Data: []byte("x")})},
		"a feed announced twice":      {follow(9, 0), follow(9, 0)},
		"feed 0":                      {follow(0, 0)},
		"a feed before the beginning": {follow(9, -1)},
		"a piece after a hole":        {follow(9, 0), output(9, &Piece{Offset: 2, Data: []byte("x")})},
		"a piece that came before":    {follow(9, 5), output(9, &Piece{Offset: 5, Data: []byte("x")})},
		"a gap that goes back":        {follow(9, 5), output(9, &Piece{Offset: 4, Gap: -1})},
		"a piece of two kinds":        {follow(9, 0), output(9, &Piece{Offset: 2, Gap: 1, Data: []byte("x")})},
		"a mark that is not JSON":     {follow(9, 0), output(9, &Piece{Warning: []byte("{")})},
		"more than the credit": {follow(9, 0), output(9, &Piece{
			Offset: LeastWindow + markSlack,
			Data:   make([]byte, LeastWindow+markSlack),
		})},
		"a fragment within a fragment": {&Frame_Fragment{&Fragment{
			Last: true,
			Data: marshal(t, &Frame{Body: &Frame_Fragment{&Fragment{}}}),
		}}},
		"a fragment that is no frame":  {&Frame_Fragment{&Fragment{Last: true, Data: []byte("\xff")}}},
		"another frame amid fragments": {&Frame_Fragment{&Fragment{Data: []byte("x")}}, follow(9, 0)},
		"fragments that have no end":   fragments(DefaultMaxControl/MaxEnvelope + 2),
	} {
		p := newPair(t, 0)
		p.settle()
		for _, body := range bodies {
			if p.proxy.Done() {
				t.Errorf("%s: the link has ended too early", name)
			}
			p.proxy.Receive(p.now, p.proxy.link.following(body), nil)
		}
		if p.proxy.Ended() != EndedProtocol || p.proxy.cfg.Counters.Violations.Load() != 1 {
			t.Errorf("%s: ended %q with %d violations", name, p.proxy.Ended(), p.proxy.cfg.Counters.Violations.Load())
		}
		if len(p.proxy.link.parts) > 0 {
			t.Errorf("%s: %d bytes are held", name, len(p.proxy.link.parts))
		}
	}
}

// fragments returns n of the largest size, none of which is the last.
func fragments(n int) (all []isFrame_Body) {
	for range n {
		all = append(all, &Frame_Fragment{&Fragment{Data: make([]byte, MaxEnvelope)}})
	}
	return all
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAcknowledgedTooMuch: neither end believes that frames have arrived which it has not sent.
func TestAcknowledgedTooMuch(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	f := p.proxy.link.following(&Frame_Notify{&Notify{Method: "x"}})
	f.Ack++
	p.proxy.Receive(p.now, f, nil)
	if p.proxy.Ended() != EndedProtocol || len(p.client.notes) > 0 {
		t.Errorf("ended %q, told %v", p.proxy.Ended(), p.client.notes)
	}
}

// TestAnswersThatNoRequestWaitsFor are counted and reach no client; and each request is answered
// once.
func TestAnswersThatNoRequestWaitsFor(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	p.proxy.Request(p.now, wire.ID("7"), &wire.StatusParams{})
	p.settle()
	for _, id := range []string{"8", "7", "7", strings.Repeat("9", 1000)} {
		p.proxy.Receive(p.now, p.proxy.link.following(&Frame_Reply{&Reply{Id: []byte(id), Result: []byte("{}")}}), nil)
	}
	if len(p.client.replies) != 1 || p.client.replies[0] != "7" || p.proxy.cfg.Counters.Violations.Load() != 3 {
		t.Errorf("told %v, %d violations", p.client.replies, p.proxy.cfg.Counters.Violations.Load())
	}
}

// TestCreditNeverShrinks: what was granted may be on its way already, and old frames may say less.
func TestCreditNeverShrinks(t *testing.T) {
	p := newPair(t, 0)
	p.settle()
	limit := p.origin.limit
	for _, credit := range []uint64{limit + 100, limit, 0} {
		p.origin.Receive(p.now, p.origin.link.following(&Frame_Credit{&Credit{Limit: credit}}))
	}
	if p.origin.limit != limit+100 {
		t.Errorf("the credit is %d, want %d", p.origin.limit, limit+100)
	}
}

func tooManyLabels() map[string]string {
	labels := map[string]string{}
	for i := range wire.MaxLabels + 1 {
		labels[string(rune('a'+i))] = ""
	}
	return labels
}

// TestOriginEndsAtWhatNoProxySends: a second Open, or another frame before the first.
func TestOriginEndsAtWhatNoProxySends(t *testing.T) {
	open := &Frame_Open{&Open{Window: 1 << 20}}
	for name, bodies := range map[string][]isFrame_Body{
		"no Open first":                  {&Frame_Request{&Request{Method: wire.MethodStatus}}},
		"a second Open":                  {open, open},
		"a name that is none":            {&Frame_Open{&Open{Name: "a b", Window: 1 << 20}}},
		"more labels than fit":           {&Frame_Open{&Open{Labels: tooManyLabels(), Window: 1 << 20}}},
		"a resume window that overflows": {&Frame_Open{&Open{ResumeWindow: 1 << 44, Window: 1 << 20}}},
		"endless pieces":                 append([]isFrame_Body{open}, fragments(DefaultMaxControl/MaxEnvelope+2)...),
	} {
		connects := 0
		o := NewOrigin(simStart, OriginConfig{
			Send: func(*Frame) {}, Wake: func() {},
			Connect: func(OpenParams) { connects++ }, Request: func(wire.ID, any) {},
			Closed: func(wire.Cause, map[string]int64) {},
		})
		for _, body := range bodies {
			o.Receive(simStart, o.link.following(body))
		}
		if o.Ended() != EndedProtocol || connects > 1 {
			t.Errorf("%s: ended %q after %d connects", name, o.Ended(), connects)
		}
	}
}
