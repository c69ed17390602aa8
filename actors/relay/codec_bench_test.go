package relay

import (
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// BenchmarkInput is what a piece of an upload through another pod costs beside its way there.
func BenchmarkInput(b *testing.B) {
	data := make([]byte, 64<<10)
	for i := range data {
		data[i] = byte(i * i)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r := encodeRequest(wire.ID("1"), wire.NewInput("upload", data, 5, false))
		if _, err := decodeRequest(r); err != nil {
			b.Fatal(err)
		}
	}
}
