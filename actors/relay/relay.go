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

// Incarnation names one life of a pod's process.
type Incarnation [16]byte

// NewIncarnation returns a random one, for the life that begins.
func NewIncarnation() Incarnation { return random16() }

func (b Incarnation) String() string { return hex.EncodeToString(b[:]) }

func random16() (b [16]byte) {
	rand.Read(b[:]) // never fails: see crypto/rand
	return b
}

// Sink is the socket side of a connection. Its methods must not block. See actors.Sink.
type Sink interface {
	Reply(id wire.ID, result any, err *wire.Error)
	Notify(method string, params any)
	Follow(Feed) bool
	Disconnect(wire.Cause)
}

// Feed is the output of one execution, to be pulled by a connection.
type Feed struct {
	ExecutionID string
	Encoding    wire.Encoding
	// Open makes the cursor. notify is called, at most once for each time the cursor
	// had nothing to give, when there is more; it must not block.
	// The caller closes the cursor.
	Open func(notify func()) (Cursor, error)
}

// Cursor reads a transcript. Marks in its pieces are *wire.Warning or
// *wire.Completed, to be sent as notifications at their place. See transcript.Cursor.
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
	// LeastWindow and MostWindow bound the window of a link: the cost of output that it has under way or unread, over
	// all of its feeds. A client that does not read holds so much memory on its own pod, and an
	// owner whose frames are not acknowledged as much on its pod. LeastWindow is five full
	// frames, so that some can be read while others travel. See WindowFor.
	LeastWindow = 256 << 10
	MostWindow  = 4 * LeastWindow
	// sharedWindows is what the links of a pod divide among themselves while that is more than LeastWindow for each.
	sharedWindows = 8 * MostWindow
	// DefaultMaxControl bounds the unacknowledged requests, answers and notifications of one end of
	// a link. The gateway lets 4 MiB of requests wait for their answers, and one message more: where messages may
	// be large, a link needs more.
	DefaultMaxControl = 8 << 20
	// MaxEnvelope bounds an envelope in bytes. Transports reject larger ones.
	MaxEnvelope = 64 << 10
)

// WindowFor returns the window of a link on a pod that has so many in the same role, the link itself
// included: a few are carried at up to three fifths of the rate that a client at the owner's pod gets, where the least window gives half.
//
// However links come and go, n of them have the windows for 1, 2, ..., n links in all, 36 MiB if there are 100: put them in the order in which
// credit was last granted to them; there were r links at least when the r-th got its own.
func WindowFor(links int) int {
	return share(sharedWindows, LeastWindow, MostWindow, links)
}

// share divides total among n, who get no less than least and no more than most each.
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
	Stale       atomic.Uint64 // envelopes of an earlier life of their sender
	Resets      atomic.Uint64 // sent
	OutputBytes atomic.Uint64 // of commands, sent by origins; resent ones are not counted again
}
