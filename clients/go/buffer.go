package troupe

import (
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

// buffers pools the data of pieces on their way from the socket to Copy, which returns the buffers.
// Without the pool 10 MiB of output would take 160 large allocations, and collecting them would
// cost more than decoding the output.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, wire.MaxOutputMessage)
	return &b
}}

func getBuffer() []byte { return *buffers.Get().(*[]byte) } //nolint:errcheck // the pool holds nothing else

// putBuffer returns a buffer to the pool. No reference to it may be left.
func putBuffer(b []byte) {
	if cap(b) >= wire.MaxOutputMessage {
		b = b[:0]
		buffers.Put(&b)
	}
}

// fit copies data into a buffer of its own size if it fills less than half of a pooled
// one, because the queue counts an event by the length of its data.
func fit(data []byte) []byte {
	if len(data) >= wire.MaxOutputMessage/2 || cap(data) < wire.MaxOutputMessage {
		return data
	}
	own := append(make([]byte, 0, len(data)), data...)
	putBuffer(data)
	return own
}
