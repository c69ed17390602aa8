package troupe

import (
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

// buffers pools the data of pieces on their way from the socket to the consumer. Without the pool
// 10 MiB of output would take 160 large allocations, and collecting them would cost more than
// receiving the output.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize)
	return &b
}}

// bufferSize has room for a byte more than the longest piece: reading it shows that the message ends.
const bufferSize = wire.MaxOutputMessage + 1

func getBuffer() []byte { return *buffers.Get().(*[]byte) } //nolint:errcheck // the pool holds nothing else

// putBuffer returns the buffer that b begins in to the pool. No reference to it may be left.
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
