package relay

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/wire"
)

// FuzzEnvelope gives what a peer may send to a pod that has a proxy and an origin: nothing panics,
// nothing is kept beyond the bounds, and what is not an envelope is counted.
func FuzzEnvelope(f *testing.F) {
	link := LinkID{1}
	incarnation := Incarnation{2}
	for _, body := range []isFrame_Body{
		&Frame_Open{&Open{Subject: []byte("s"), Window: 1 << 20, First: &Request{
			Id: []byte("1"), Method: "resume",
			Params: []byte(`{"resume_token":"t"}`),
		}}},
		&Frame_Request{&Request{Id: []byte("2"), Method: "status", Params: []byte("{}")}},
		&Frame_Credit{&Credit{Limit: 1 << 40}},
		&Frame_End{&End{Cause: "client_gone", Delivered: map[string]int64{"x": 4}, DeliveredKnown: true}},
		&Frame_Reply{&Reply{Id: []byte("1"), Result: []byte("{}"), Resumed: true}},
		&Frame_Notify{&Notify{Method: "connected", Params: []byte("{}")}},
		&Frame_Follow{&Follow{Feed: 1, Execution: "x"}},
		&Frame_Output{&Output{Feed: 1, Pieces: []*Piece{
			{Offset: 3, Data: []byte("abc")},
			{Offset: 3, Completed: []byte("{}")},
		}, Eof: true}},
		&Frame_Disconnect{&Disconnect{Cause: "draining"}},
		&Frame_Fragment{&Fragment{Data: []byte{0x92, 0x01, 0x00}, Last: true}},
		&Frame_Acknowledge{&Ack{Gap: true, Probe: 1, Next: 9}},
		&Frame_Probe{&Probe{Number: 1}},
		&Frame_Reset_{&Reset{Reason: Reset_OVERFLOW}},
	} {
		e := from("peer", incarnation, &Frame{Link: link[:], Seq: 1, Body: body})
		b, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	heartbeat, _ := proto.Marshal(from("peer", incarnation, nil))
	f.Add(heartbeat, []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		now := simStart
		table := NewTable(Self{"self", Incarnation{3}}, TableConfig{Load: func() *Heartbeat { return nil }})
		table.Add(now, link, "peer")
		send := func(*Frame) {}
		client := &recorder{}
		proxy := NewProxy(now, ProxyConfig{
			Link: link, Sink: client, Send: send, Wake: func() {}, Window: fixed(tinyWindow),
			MaxControl: 1 << 16,
		})
		origin := NewOrigin(now, OriginConfig{
			Link: link, Send: send, Wake: func() {}, Window: fixed(tinyWindow), MaxControl: 1 << 16,
			Connect: func(OpenParams) {}, Request: func(wire.ID, any) {}, Closed: func(wire.Cause, map[string]int64) {},
		})
		for _, b := range [][]byte{first, second, first} {
			e := new(Envelope)
			if proto.Unmarshal(b, e) != nil {
				continue
			}
			routed, _ := table.Route(now, e)
			frame := routed.Frame
			if frame == nil {
				continue
			}
			proxy.Receive(now, frame, nil)
			origin.Receive(now, frame)
			origin.Follow(now, feedOf(&stream{end: -1, piece: 100}))
			now = now.Add(time.Second)
			table.Tick(now)
			table.Tick(now)
			for _, end := range []interface{ Tick(time.Time) }{proxy, origin} {
				end.Tick(now)
			}
		}
		for _, f := range client.feeds {
			cursor, _ := f.Open(func() {})
			for range 100 {
				if _, err := cursor.Next(make([]byte, 10)); err != nil {
					break
				}
			}
			cursor.Close()
		}
		if origin.link.data > tinyWindow+maxOutput || len(origin.link.parts) > 1<<16+MaxEnvelope {
			t.Errorf("an origin holds %d", origin.link.data)
		}
	})
}
