package troupe

import (
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

// buffers hold the data of pieces on their way from the socket to Copy, which
// gives them back. Without it 10 MiB of output would be 160 large allocations,
// and the collector would cost more than the decoding.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, wire.MaxOutputMessage)
	return &b
}}

func getBuffer() []byte { return *buffers.Get().(*[]byte) } //nolint:errcheck // the pool holds nothing else

// putBuffer gives a buffer back that nobody refers to any more.
func putBuffer(b []byte) {
	if cap(b) >= wire.MaxOutputMessage {
		b = b[:0]
		buffers.Put(&b)
	}
}

// fit returns data in a buffer of its own size if it fills little of a pooled
// one: what is queued is counted by its length.
func fit(data []byte) []byte {
	if len(data) >= wire.MaxOutputMessage/2 || cap(data) < wire.MaxOutputMessage {
		return data
	}
	own := append(make([]byte, 0, len(data)), data...)
	putBuffer(data)
	return own
}
