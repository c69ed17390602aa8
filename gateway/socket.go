package gateway

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// MaxPendingNotifications is how many notifications may wait to be sent. MaxInFlight
	// bounds the answers.
	MaxPendingNotifications = 16
)

// socket is one WebSocket. Its reader goroutine is in read.go; its writer goroutine (write.go) also
// ends the connection (close.go).
type socket struct {
	g       *Gateway
	log     *slog.Logger
	ws      *websocket.Conn
	conn    *netConn
	engine  Connection // must not be used after Closed
	subject string
	remote  string
	opened  time.Time

	traceparent string // of the handshake: the default for executions
	binary      bool   // output and input travel in binary frames

	// Shared state: what the engine and the reader pass to the writer.
	mu                   sync.Mutex
	capacity             sync.Cond // signalled when a request is no longer in flight, and at the end
	session              string
	queue                []item
	pendingNotifications int // items of queue that are not answers
	requests             map[uint64]request
	nextID               uint64
	inFlight             int       // requests received whose answers are not written
	bytes                int       // of the requests in flight
	inputBytes           int       // of these, input that the engine has not answered
	inputStalled         time.Time // since then the reader waits, and no input was taken; see inputPatience
	ending               wire.Cause
	flushing             bool               // set by Disconnect: the connection ends once what is queued is sent
	resumePlace          bool               // guarded by Gateway.resumes
	backpressured        bool               // the reader waits for capacity
	credits              map[string]*credit // by execution; nil while there are none
	streams              streams            // with binary frames
	pong                 []byte             // owed to the client; nil: none

	// Separate from mu, because the engine may call Reply from within Request.
	engineMu sync.Mutex
	closed   bool // the engine has been told of the end

	// Reader state.
	permit     permit
	frameBegan atomic.Int64 // when the piece of a message that is being read began, by clock; 0: none

	wake       chan struct{} // wakes the writer; capacity 1
	dead       chan struct{} // closed when nothing more is to be sent
	readerDone chan struct{}

	// Writer state.
	following []*follower
	rrIndex   int          // round robin: index in following of the next to send
	out       []byte       // pooled; nil while idle
	pull      pullBuffer   // pooled; nil while idle
	busy      *outputClass // that pull and out are of; nil while idle
	sent      int          // messages since the last tick
	backlog   int64        // at the last tick, bytes that were under way to the client
	arrived   int64        // at the last tick, bytes that had reached it
}

// request is a request in flight.
type request struct {
	id     wire.ID // empty for a notification: its answer is dropped
	method string
	size   int

	// Of a binary input frame: its answer, unless it is refused, and how many bytes it has.
	taken  *wire.InputTaken
	length int64
}

// item is something to send, in order: an answer, a notification or a feed.
type item struct {
	method string // of a notification
	id     wire.ID
	result any // of an answer; params of a notification
	err    *wire.Error
	size   int // of the request that this answers; 0: it answers none
	answer bool
	feed   *actors.Feed
}

// signal wakes the writer. One pending wake-up is enough for any number of changes.
func (s *socket) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *socket) setSession(id string) {
	s.mu.Lock()
	s.session = id
	s.mu.Unlock()
}

func (s *socket) sessionID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}
