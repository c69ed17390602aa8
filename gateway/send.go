package gateway

import (
	"strconv"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file implements actors.Sink, through which the engine sends. Nothing in it blocks.

var _ actors.Sink = (*socket)(nil)

// Reply implements actors.Sink.
func (s *socket) Reply(id wire.ID, result any, err *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(id) == 0 {
		s.enqueue(item{answer: true, id: wire.NullID, err: err, result: result})
		return
	}
	// The engine knows a request by the number that admit gave it.
	n, perr := strconv.ParseUint(string(id), 10, 64)
	r, known := s.requests[n]
	if perr == nil && !known && s.ending != "" {
		return // finish has forgotten it
	}
	if perr != nil || !known {
		s.log.Error("answer to an unknown request", "session", s.session, "id", id.String())
		return
	}
	delete(s.requests, n)
	if len(s.requests) == 0 {
		s.requests = nil // a Go map does not shrink: https://go.dev/issue/20135
	}
	s.g.metrics.answered(r.method, err)
	s.requestAnswered(r, err)
	if r.taken != nil {
		s.enqueue(r.inputTaken(err))
		return
	}
	if len(r.id) == 0 {
		s.requestDone(r.size)
		return
	}
	if resumed, ok := result.(*wire.ResumeResult); ok && err == nil {
		s.session = resumed.SessionID
	}
	s.enqueue(item{answer: true, id: r.id, result: result, err: err, size: r.size})
}

// Notify implements actors.Sink.
func (s *socket) Notify(method string, params any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if connected, ok := params.(*wire.Connected); ok {
		s.session = connected.SessionID
	}
	s.enqueue(item{method: method, result: params})
}

// Follow implements actors.Sink.
func (s *socket) Follow(feed actors.Feed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueue(item{feed: &feed})
}

// Disconnect implements actors.Sink. Messages that the engine sends afterwards are dropped.
func (s *socket) Disconnect(cause wire.Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != "" {
		return
	}
	s.ending = cause
	s.flushing = true
	s.capacity.Broadcast()
	s.signal()
}

// enqueue queues an item for the writer, unless the connection is ending. Called with mu held.
func (s *socket) enqueue(it item) bool {
	if s.ending != "" {
		return false
	}
	if it.feed == nil && it.size == 0 {
		// MaxInFlight bounds the answers to admitted requests, and feeds come with these.
		if s.pendingNotifications++; s.pendingNotifications > MaxPendingNotifications {
			s.endLocked(wire.CauseSlowConsumer)
			return false
		}
	}
	s.queue = append(s.queue, it)
	s.signal()
	return true
}

// take empties the queue and returns its items in order.
func (s *socket) take() []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.queue
	s.queue, s.pendingNotifications = nil, 0
	return items
}

// requeue puts back items that were not sent: finish looks for feeds among them.
func (s *socket) requeue(items []item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(items, s.queue...)
}
