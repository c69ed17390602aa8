package relay

import (
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Version is the protocol version that this release writes into its envelopes.
const Version = 1

// LinkID names a link. It is random, so that no frame of one link is taken for a frame of another.
type LinkID [16]byte

// NewLinkID returns a random id.
func NewLinkID() LinkID { return random16() }

func (id LinkID) String() string { return hex.EncodeToString(id[:]) }

// QueryID names a query. It is random.
type QueryID [16]byte

// NewQueryID returns a random id.
func NewQueryID() QueryID { return random16() }

// Incarnation identifies one run of a pod's process.
type Incarnation [16]byte

// NewIncarnation returns a random incarnation for a process that starts.
func NewIncarnation() Incarnation { return random16() }

func (b Incarnation) String() string { return hex.EncodeToString(b[:]) }

func random16() (b [16]byte) {
	rand.Read(b[:]) // never fails: see crypto/rand
	return b
}

// Sink is the socket of a connection, or stands for one: the gateway implements it, and so does an
// Origin, whose socket is on another pod. Package actors uses it under the same name. Its methods
// are called in order. They must not block, and must be safe to call after the socket has closed.
type Sink interface {
	// Reply answers the request with the given id. An empty id answers no particular request, and
	// travels as null.
	Reply(id wire.ID, result any, err *wire.Error)
	// Notify sends a notification.
	Notify(method string, params any)
	// Follow streams an execution's transcript after everything sent before. A second Follow of an
	// execution replaces the first. It returns false if the feed came too late: the connection is
	// ending, and what it reports as delivered will not mention the execution.
	Follow(Feed) bool
	// Disconnect sends the queued messages, while the client takes some of them within each write
	// timeout, and closes with cause.Code().
	Disconnect(cause wire.Cause)
}

// Feed is the output of one execution. A connection pulls it.
type Feed struct {
	ExecutionID string
	Encoding    wire.Encoding
	// Window bounds the bytes that the socket sends beyond the client's last ack for this execution.
	// With it, only an ack of the client counts as delivery. Zero: no bound; the socket acknowledges
	// the end once it has written it.
	Window int64
	// Open makes the cursor, and the caller closes it. Each time the cursor had nothing to return,
	// notify is called at most once, when there is more. notify must not block.
	Open func(notify func()) (Cursor, error)
}

// Cursor reads a transcript. Marks in its pieces are *wire.Warning, *wire.Resized, *wire.Screen or *wire.Completed,
// which are sent as notifications in their place. See transcript.Cursor.
type Cursor interface {
	Next(buf []byte) (transcript.Piece, error)
	Offset() int64
	Close()
}

// OpenParams says what a connection asks of the owner.
type OpenParams struct {
	Subject            string // who the client is, as its pod authenticated it
	Remote             string // the client's address, for the log
	Session            string // re-attach to this one; empty opens a new one
	EndsWithConnection bool   // see actors.ConnectRequest

	// Options are of the new session, if Session is empty. An origin gets only those that pass Check.
	Options wire.SessionOptions

	// ResumeID and Resume are the first request, if Session is set. An origin passes them on as such,
	// after Connect.
	ResumeID wire.ID
	Resume   *wire.ResumeParams
}

const (
	// LeastWindow and MostWindow bound the window of a link: the cost of its output that is in flight
	// or unread, over all of its feeds. A client that does not read holds that much memory on its own
	// pod, and unacknowledged frames hold the same amount on the owner's pod. Half of LeastWindow is
	// room for a frame, so that one can be read while another travels. See WindowFor.
	LeastWindow = 64 << 10
	MostWindow  = 16 * LeastWindow
	// sharedWindows is divided among the links of a pod as long as each share exceeds LeastWindow.
	sharedWindows = MostWindow
	// DefaultMaxControl bounds the unacknowledged requests, answers and notifications of one end of a
	// link, in bytes. The gateway allows 4 MiB of unanswered requests and one more message. A link
	// needs a higher bound where messages may be large.
	DefaultMaxControl = 8 << 20
	// MaxEnvelope bounds an envelope in bytes. Transports reject larger ones.
	MaxEnvelope = 64 << 10
)

// WindowFor returns the window of a link on a pod with the given number of links in the same role,
// including the link itself.
//
// However links come and go, n of them together have at most the windows for 1, 2, ..., n links,
// which is 9 MiB for 100 links and 22 MiB for 320. To see this, order the links by when credit was
// last granted to them: when the r-th got its credit, there were at least r links.
func WindowFor(links int) int {
	return share(sharedWindows, LeastWindow, MostWindow, links)
}

// share divides total among n links and keeps each share between least and most.
func share(total, least, most, n int) int {
	return min(max(total/max(n, 1), least), most)
}

// windowOf returns a window function that is never nil and never returns less than tinyWindow.
func windowOf(window func() int) func() int {
	if window == nil {
		return func() int { return LeastWindow }
	}
	return func() int { return max(window(), tinyWindow) }
}

// Counters count the activity of links. All links of a pod share one Counters.
type Counters struct {
	Frames      atomic.Uint64 // sent, resent ones included
	Resends     atomic.Uint64 // frames sent again
	Duplicates  atomic.Uint64 // frames that came again
	Unknown     atomic.Uint64 // bodies of a newer version, acknowledged and ignored
	Violations  atomic.Uint64 // envelopes, frames and values that no version sends
	Stale       atomic.Uint64 // envelopes of an earlier incarnation of their sender
	Resets      atomic.Uint64 // sent
	OutputBytes atomic.Uint64 // of commands, sent by origins; resent ones are not counted again
}
