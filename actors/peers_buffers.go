package actors

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// bufferPool gives gRPC the buffers that messages of streams are put together in.
// Its own take 1 MiB for whatever is over 32 KiB, or clear each buffer before use,
// which was a seventh of what relaying costs.
type bufferPool struct{ sizes [4]sync.Pool }

var _ mem.BufferPool = (*bufferPool)(nil)

// bufferSizes: control frames, one full frame of output, half a batch and a batch.
var bufferSizes = [4]int{4 << 10, 36 << 10, 80 << 10, maxBatchBytes + 16<<10}

var streamBuffers = new(bufferPool)

// Get implements mem.BufferPool. What is in the buffer is undefined.
func (p *bufferPool) Get(length int) *[]byte {
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
