package relay

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

// benchmarkRelay carries 10 MiB of output from a transcript to a reader through both ends,
// marshalling each frame.
func benchmarkRelay(b *testing.B, piece int, mixed bool) {
	b.Helper()
	const size = 10 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	frames := uint64(0)
	for b.Loop() {
		p := newPair(b, 0)
		p.settle()
		p.origin.Follow(p.now, feedOf(&stream{end: size, piece: piece, mixed: mixed}))
		p.settle()
		cursor, err := p.client.feeds[0].Open(func() {})
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		for cursor.Offset() < size {
			if _, err := cursor.Next(buf); err != nil {
				p.proxy.Wake(p.now)
				p.settle()
			}
		}
		frames += p.origin.cfg.Counters.Frames.Load()
	}
	b.ReportMetric(float64(frames)/float64(b.N), "frames/op")
}

func BenchmarkRelayLargePieces(b *testing.B) { benchmarkRelay(b, 64<<10, false) }
func BenchmarkRelayMixedLines(b *testing.B)  { benchmarkRelay(b, 80, true) }

// BenchmarkEnvelope is what a transport does with an output frame of 32 KiB.
func BenchmarkEnvelope(b *testing.B) {
	t := NewTable(Self{Pod: "pod", Incarnation: NewIncarnation()}, TableConfig{})
	link := NewLinkID()
	e := t.Wrap(&Frame{Link: link[:], Seq: 7, Ack: 3, Body: &Frame_Output{&Output{
		Feed:   1,
		Pieces: []*Piece{{Offset: 1 << 20, Data: make([]byte, 32<<10)}},
	}}})
	b.SetBytes(32 << 10)
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], e)
		if err := proto.Unmarshal(buf, new(Envelope)); err != nil {
			b.Fatal(err)
		}
	}
}
