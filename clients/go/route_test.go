package troupe

import (
	"bytes"
	"context"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// BenchmarkRoute is the client's own work for 10 MiB in frames of 64 KiB,
// without a socket: decoding, offsets, the buffer, Next.
func BenchmarkRoute(b *testing.B) {
	const piece, total = 64 << 10, 10 << 20
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, 0123456789 times over.\n"),
		piece/68+1)[:piece]
	for _, enc := range []wire.Encoding{wire.EncodingBase64, wire.EncodingUTF8} {
		b.Run(string(enc), func(b *testing.B) {
			var frames [][]byte
			for end := int64(piece); end <= total; end += piece {
				out := &wire.Output{ExecutionID: "x", Type: wire.Stdout, Offset: end}
				if enc == wire.EncodingBase64 {
					out.Encoding = enc
				}
				frame, _ := wire.AppendOutput(nil, out, text, 1<<20)
				frames = append(frames, frame)
			}
			c := newClient("ws://troupe.test/ws", Options{})
			l := newSocket(c)
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				e := newExecution(c, "x", 0)
				c.execs["x"] = e
				for _, frame := range frames {
					if err := c.route(l, frame); err != nil {
						b.Fatal(err)
					}
					if _, err := e.Next(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
				if e.Offset() != total {
					b.Fatalf("offset %d", e.Offset())
				}
			}
		})
	}
}
