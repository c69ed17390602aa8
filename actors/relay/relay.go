package relay

import (
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Version is what this release writes into its envelopes.
const Version = 1

// LinkID names a link. It is random, so that no frame of one link is taken for a frame of another.
type LinkID [16]byte

// NewLinkID returns a random id.
func NewLinkID() LinkID { return random16() }

func (id LinkID) String() string { return hex.EncodeToString(id[:]) }

// Incarnation identifies one run of a pod's process.
type Incarnation [16]byte

// NewIncarnation returns a random one, for a process that starts.
func NewIncarnation() Incarnation { return random16() }

func (b Incarnation) String() string { return hex.EncodeToString(b[:]) }

func random16() (b [16]byte) {
	rand.Read(b[:]) // never fails: see crypto/rand
	return b
}

// Sink is the socket of a connection, or stands for one: the gateway implements it, and so does an
// Origin, whose socket is on another pod. Package actors uses it under the same name. Its methods
// are called in order. They must not block, and they must be safe after the socket has closed.
type Sink interface {
	// Reply answers the request with that id. An empty id answers no particular request, and travels
	// as null.
	Reply(id wire.ID, result any, err *wire.Error)
	// Notify sends a notification.
	Notify(method string, params any)
	// Follow streams an execution's transcript after everything sent before. A second Follow of an
	// execution replaces the first. It returns false if the feed came too late: the connection is
	// ending, and what it reports as delivered will not mention the execution.
	Follow(Feed) bool
	// Disconnect sends what is queued, within the write timeout, and closes with cause.Code().
	Disconnect(cause wire.Cause)
}

// Feed is the output of one execution, which a connection pulls.
type Feed struct {
	ExecutionID string
	Encoding    wire.Encoding
	// Open makes the cursor, which the caller closes. Each time the cursor had nothing to give, notify
	// is called at most once, when there is more. notify must not block.
	Open func(notify func()) (Cursor, error)
}

// Cursor reads a transcript. Marks in its pieces are *wire.Warning or *wire.Completed, to be sent
// as notifications in their place. See transcript.Cursor.
type Cursor interface {
	Next(buf []byte) (transcript.Piece, error)
	Offset() int64
	Close()
}

// OpenParams says what a connection wants of the owner.
type OpenParams struct {
	Subject            string // who the client is, as its pod authenticated it
	Remote             string // the client's address, for the log
	Session            string // re-attach to this one; empty opens a new one
	EndsWithConnection bool   // see actors.ConnectRequest

	// With a Session: the first request. An origin passes it on as such, after Connect.
	ResumeID wire.ID
	Resume   *wire.ResumeParams
}

const (
	// LeastWindow and MostWindow bound the window of a link: the cost of its output that is under way
	// or unread, over all of its feeds. A client that does not read holds that much memory on its own
	// pod, and frames that are not acknowledged hold as much on the owner's pod. LeastWindow is five
	// full frames, so that some can be read while others travel. See WindowFor.
	LeastWindow = 256 << 10
	MostWindow  = 4 * LeastWindow
	// sharedWindows is divided among the links of a pod while that gives each more than LeastWindow.
	sharedWindows = 8 * MostWindow
	// DefaultMaxControl bounds the unacknowledged requests, answers and notifications of one end of a
	// link, in bytes. The gateway lets 4 MiB of requests wait for their answers, and one more message:
	// where messages may be large, a link needs more.
	DefaultMaxControl = 8 << 20
	// MaxEnvelope bounds an envelope in bytes. Transports reject larger ones.
	MaxEnvelope = 64 << 10
)

// WindowFor returns the window of a link on a pod with that many links in the same role, including
// the link itself. A few links reach up to three fifths of the rate that a client of the owner's
// pod gets; the least window gives half.
//
// However links come and go, n of them together have at most the windows for 1, 2, ..., n links, 36
// MiB for 100 links. To see it, order them by when credit was last granted to them: when the r-th
// got its credit, there were at least r links.
func WindowFor(links int) int {
	return share(sharedWindows, LeastWindow, MostWindow, links)
}

// share divides total among n, each of which gets at least least and at most most.
func share(total, least, most, n int) int {
	return min(max(total/max(n, 1), least), most)
}

// windowOf completes a configured window.
func windowOf(window func() int) func() int {
	if window == nil {
		return func() int { return LeastWindow }
	}
	return func() int { return max(window(), tinyWindow) }
}

// Counters count what links do. All links of a pod share one.
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
