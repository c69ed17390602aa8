package peers

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// bufferPool gives gRPC the buffers in which it assembles the messages of streams. gRPC's own pools
// take 1 MiB for any message over 32 KiB, or clear each buffer before use, which was a seventh of
// the cost of relaying.
type bufferPool struct{ sizes [len(bufferSizes)]sync.Pool }

var _ mem.BufferPool = (*bufferPool)(nil)

// bufferSizes are one size for the smallest messages that are pooled, one for a frame of HTTP/2, one
// for output of the smallest window, one for a full frame, and one for more than that. A queued
// envelope holds a whole buffer, and so does output that was not read, so no size is much larger than
// the one before.
var bufferSizes = [...]int{4 << 10, 16 << 10, 32 << 10, 64 << 10, maxBatchBytes + 16<<10}

var streamBuffers = new(bufferPool)

// Get implements mem.BufferPool. The contents of the buffer are undefined.
func (p *bufferPool) Get(length int) *[]byte {
	if mem.IsBelowBufferPoolingThreshold(length) { // an acknowledgement has 60 bytes, and may wait for long
		b := make([]byte, length)
		return &b
	}
	for i, size := range bufferSizes {
		if length > size {
			continue
		}
		b, ok := p.sizes[i].Get().(*[]byte)
		if !ok {
			fresh := make([]byte, size)
			b = &fresh
		}
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length)
	return &b
}

// Put implements mem.BufferPool.
func (p *bufferPool) Put(b *[]byte) {
	for i, size := range bufferSizes {
		if cap(*b) == size {
			p.sizes[i].Put(b)
			return
		}
	}
}
