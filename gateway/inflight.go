package gateway

import (
	"strconv"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file bounds the requests in flight: the reader counts each one in, the writer counts it out
// once its answer is written, and the reader stops while there are too many.

const (
	// MaxInFlight is how many requests of a client may wait for their answers to be written. At the
	// limit the reader stops, and TCP flow control slows a client that sends without reading.
	MaxInFlight = 16
	// maxInFlightBytes bounds their total size likewise. It always admits one request.
	maxInFlightBytes = SmallMessage
	// inputPatience is how long the reader stops for input alone, which waits for a command that may
	// never read it. Then it reads on, so that a CANCEL behind the input is heard, and the engine
	// refuses further input for that command.
	inputPatience = 5 * time.Second
)

// admit counts a request in flight and returns the number by which the engine knows it. The
// client's own id does not identify it: a client may use one twice, and a notification has none but
// must be counted until it is handled.
func (s *socket) admit(r request) wire.ID {
	switch r.method {
	case wire.MethodStatus, wire.MethodResume:
		r.size = max(r.size, maxInFlightBytes+1) // the answer may be large, so it goes alone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	if s.requests == nil {
		s.requests = make(map[uint64]request)
	}
	s.requests[s.nextID] = r
	s.inFlight++
	s.bytes += r.size
	if r.method == wire.MethodInput {
		s.inputBytes += r.size
	}
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

// requestAnswered notes that the engine has answered a request. Called with mu held.
func (s *socket) requestAnswered(r request, err *wire.Error) {
	switch r.method {
	case wire.MethodResume:
		if err == nil {
			s.g.resumes.remove(s)
		}
	case wire.MethodInput:
		s.inputBytes -= r.size
		if err == nil {
			s.inputStalled = time.Time{} // the command reads
		}
	}
}

// requestDone counts a request out. Called with mu held.
func (s *socket) requestDone(size int) {
	s.inFlight--
	s.bytes -= size
	s.capacity.Signal()
}

// awaitCapacity blocks the reader while too much is in flight. When the connection ends, the reader
// goes on: acks let the writer finish, and what is not read makes the kernel reset the connection,
// see netConn.shut.
func (s *socket) awaitCapacity() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ending == "" && s.full() {
		s.backpressured = true
		s.conn.turn.GiveBack()
		s.capacity.Wait()
		// The reader did not listen, so the client's silence does not count.
		s.conn.heard.Store(clock())
	}
	s.backpressured = false
}

// full reports whether the reader must wait. Called with mu held.
func (s *socket) full() bool {
	switch {
	case s.inFlight >= MaxInFlight || s.bytes-s.inputBytes > maxInFlightBytes:
		return true
	case s.bytes <= maxInFlightBytes:
		if s.inputBytes == 0 {
			s.inputStalled = time.Time{}
		}
		return false
	}
	if s.inputStalled.IsZero() {
		s.inputStalled = time.Now()
		time.AfterFunc(inputPatience, s.capacity.Broadcast)
	}
	return time.Since(s.inputStalled) < inputPatience
}

// setBackpressured says whether the reader waits for the server, so that the client's silence does
// not count.
func (s *socket) setBackpressured(waits bool) {
	s.mu.Lock()
	s.backpressured = waits
	s.mu.Unlock()
	s.conn.heard.Store(clock())
}
