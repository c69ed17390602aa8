package gateway

import (
	"log/slog"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// maxInFlight is how many requests of a client may wait for their answers to be written. At the limit the
	// reader stops, so that TCP pushes back a client that sends without reading.
	maxInFlight = 256
	// maxInFlightBytes does the same for their size, and always admits one.
	maxInFlightBytes = 4 << 20
	// maxNotices is how many notifications and feeds may wait to be sent. Answers are bounded by maxInFlight.
	maxNotices = 256
)

// conn is one WebSocket. The reader goroutine (read.go) reads; the writer
// goroutine (write.go) writes, and ends the connection (close.go).
type conn struct {
	g       *Gateway
	log     *slog.Logger
	ws      *websocket.Conn
	sock    *socket
	engine  Connection // not used after Closed
	subject string
	remote  string
	opened  time.Time

	traceparent string // of the handshake, for executions that name none

	// Shared state: what the engine and the reader leave for the writer.
	mu       sync.Mutex
	room     sync.Cond // signalled when a request leaves flight, and at the end
	session  string
	queue    []item
	notices  int // items of queue that are not answers
	requests map[uint64]request
	nextID   uint64
	inFlight int // requests that came and whose answers are not written
	bytes    int // of these
	ending   wire.Cause
	flush    time.Time // deadline for sending what is queued, if that is how it ends
	gated    bool      // the reader waits for room

	// Separate from mu, because the engine may answer while it takes a request.
	engineMu sync.Mutex
	closed   bool // the engine was told

	wake       chan struct{} // of the writer; holds one
	dead       chan struct{} // closed when nothing more is to be sent
	readerDone chan struct{}

	// Writer's state.
	following []*follower
	turn      int    // index in following of the next to have a turn
	out       []byte // pooled; nil while idle
	sent      int    // messages since the last tick
	pings     sync.WaitGroup
}

// request is a request between reader and answer.
type request struct {
	id     wire.ID // empty for a notification, whose answer is dropped
	method string
	size   int
}

// item is something to send, in order: an answer, a notification or a feed.
type item struct {
	method string // of a notification
	id     wire.ID
	result any // of an answer; params of a notification
	err    *wire.Error
	size   int // of the request that this answers
	answer bool
	feed   *actors.Feed
}

// signal wakes the writer. A wake that is pending already serves for this too.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *conn) setSession(id string) {
	c.mu.Lock()
	c.session = id
	c.mu.Unlock()
}

func (c *conn) sessionID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}
