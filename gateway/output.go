package gateway

import (
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// LargeOutputs is how many connections may send messages of wire.MaxOutputMessage at a time. The
	// others send messages of SmallOutput: a client that does not read holds its connection's buffers
	// until the write times out, and does not hold up others by that.
	LargeOutputs = 32
	// SmallOutput is the size of a message, and of what is read of a transcript at a time.
	SmallOutput = 8 << 10
)

// outputClass has the buffers of one size, which a connection holds while it is busy.
type outputClass struct {
	size int
	out  sync.Pool // *[]byte, for messages being encoded
	pull sync.Pool // *pullBuffer
}

func newOutputClass(size int) *outputClass {
	return &outputClass{
		size: size,
		out: sync.Pool{New: func() any {
			b := make([]byte, 0, size)
			return &b
		}},
		pull: sync.Pool{New: func() any {
			b := make(pullBuffer, wire.MaxOutputHeader+size)
			return &b
		}},
	}
}

var (
	largeOutput = newOutputClass(pullSize)
	smallOutput = newOutputClass(smallPull)
)

// class returns what the buffers of a busy connection are of.
func (s *socket) class() *outputClass {
	switch {
	case s.busy != nil:
	case s.g.outputs.tryAcquire(s.subject):
		s.busy = largeOutput
	default:
		s.busy = smallOutput
	}
	return s.busy
}

// buffer returns an empty buffer for encoding.
func (s *socket) buffer() []byte {
	if s.out == nil {
		if b, ok := s.class().out.Get().(*[]byte); ok {
			s.out = *b
		}
	}
	return s.out[:0]
}

// pullBuffer returns the buffer into which followers pull, one at a time.
func (s *socket) pullBuffer() pullBuffer {
	if s.pull == nil {
		if b, ok := s.class().pull.Get().(*pullBuffer); ok {
			s.pull = *b
		}
	}
	return s.pull
}

// release frees what only a busy writer needs.
func (s *socket) release() {
	s.conn.idle()
	if s.busy == nil {
		return
	}
	if s.pull != nil {
		pull := s.pull
		s.busy.pull.Put(&pull)
	}
	if s.out != nil && cap(s.out) == s.busy.size { // not if an answer was longer
		out := s.out[:0]
		s.busy.out.Put(&out)
	}
	if s.busy == largeOutput {
		s.g.outputs.release(s.subject)
	}
	s.pull, s.out, s.busy = nil, nil, nil
}
