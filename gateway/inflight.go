package gateway

import (
	"strconv"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file bounds the requests in flight: the reader counts each one in, the writer counts it out
// once its answer is written, and the reader stops while there are too many.

// admit counts a request in flight and returns the number by which the engine knows it. The
// client's own id does not identify it: a client may use one twice, and a notification has none but
// must be counted until it is handled.
func (s *socket) admit(r request) wire.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	if s.requests == nil {
		s.requests = make(map[uint64]request)
	}
	s.requests[s.nextID] = r
	s.inFlight++
	s.bytes += r.size
	return wire.ID(strconv.AppendUint(nil, s.nextID, 10))
}

// answer replies to a message that does not reach the engine.
func (s *socket) answer(id wire.ID, size int, result any, err *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight++
	s.bytes += size
	s.enqueue(item{answer: true, id: id, result: result, err: err, size: size})
}

// requestDone counts a request out. Called with mu held.
func (s *socket) requestDone(size int) {
	s.inFlight--
	s.bytes -= size
	s.capacity.Signal()
}

// awaitCapacity blocks the reader while too much is in flight. It returns false when the connection
// ends.
func (s *socket) awaitCapacity() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ending == "" && (s.inFlight >= maxInFlight || s.bytes > maxInFlightBytes) {
		s.backpressured = true
		s.capacity.Wait()
		// The reader did not listen, so the client's silence does not count.
		s.conn.heard.Store(clock())
	}
	s.backpressured = false
	return s.ending == ""
}
