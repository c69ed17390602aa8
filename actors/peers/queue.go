package peers

import (
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	// maxQueued bounds the memory, in bytes, of the envelopes that wait for one peer. The queue drops
	// envelopes beyond it, and links resend theirs. Links send no more than their windows, so 24 of
	// them never fill the queue.
	maxQueued = 8 << 20
	// queuedCost is added for each envelope. It covers the envelope's place in the queue and its
	// headers.
	queuedCost = 128
	// maxBatch and maxBatchBytes bound one message of the stream. Larger messages carried no more data
	// per second, and both ends hold each message as a whole: what the receiver keeps of one should be
	// most of it.
	maxBatch      = 64
	maxBatchBytes = 64 << 10
)

// queue holds the envelopes that wait for one peer.
type queue struct {
	ready chan struct{} // buffered, 1: there may be something to take

	mu    sync.Mutex
	items []queued
	held  int // memory of items
}

// queued is a waiting envelope and the memory that it holds.
type queued struct {
	mem.Buffer
	held int
}

func newQueue() queue { return queue{ready: make(chan struct{}, 1)} }

// put adds an envelope whose buffer has the given size. It returns false if the queue is full.
func (q *queue) put(envelope mem.Buffer, size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	held := size + queuedCost
	if q.held+held > maxQueued {
		return false
	}
	q.items = append(q.items, queued{envelope, held})
	q.held += held
	q.wake()
	return true
}

// wake makes the goroutine that waits on ready look again.
func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// size returns the memory, in bytes, of the waiting envelopes.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// take returns the envelopes for the next message and their size in bytes, or nil if none wait.
func (q *queue) take() (batch outBatch, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < len(q.items) && n < maxBatch && (n == 0 || size+q.items[n].Len() <= maxBatchBytes) {
		size += q.items[n].Len()
		n++
	}
	if n == 0 {
		return nil, 0
	}
	batch = make(outBatch, n)
	for i, e := range q.items[:n] {
		batch[i] = e.Buffer
		q.held -= e.held
	}
	clear(q.items[:n])
	q.items = q.items[n:]
	if len(q.items) == 0 {
		q.items = nil // do not keep the array of a burst
	}
	return batch, size
}

// discard drops everything.
func (q *queue) discard() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.items {
		e.Free()
	}
	q.items, q.held = nil, 0
}
