package gateway

import (
	"strconv"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file bounds the requests in flight: the reader counts each one in, the writer counts it out once
// its answer is written, and the reader stops while there are too many.

// admit counts a request in flight, and returns the number by which the engine
// knows it. The client's own id would not do: a client may use one twice, and
// notifications have none, yet must be counted until they are handled.
func (c *conn) admit(r request) wire.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	if c.requests == nil {
		c.requests = make(map[uint64]request)
	}
	c.requests[c.nextID] = r
	c.inFlight++
	c.bytes += r.size
	return wire.ID(strconv.AppendUint(nil, c.nextID, 10))
}

// answer answers a message that never reaches the engine.
func (c *conn) answer(id wire.ID, size int, result any, err *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight++
	c.bytes += size
	c.enqueue(item{answer: true, id: id, result: result, err: err, size: size})
}

// leaveFlight makes room for the next request. Called with mu held.
func (c *conn) leaveFlight(size int) {
	c.inFlight--
	c.bytes -= size
	c.room.Signal()
}

// awaitRoom blocks the reader while too much is in flight. It returns false when the connection ends.
func (c *conn) awaitRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.ending == "" && (c.inFlight >= maxInFlight || c.bytes > maxInFlightBytes) {
		c.gated = true
		c.room.Wait()
		// The client was not heard because nobody listened.
		c.sock.heard.Store(clock())
	}
	c.gated = false
	return c.ending == ""
}
