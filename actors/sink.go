package actors

import (
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Sink is the socket side of a connection: the socket, implemented by the
// gateway. Its methods are called from actors, in order. They must not block,
// and they must be safe after the socket has closed.
type Sink interface {
	// Reply answers the request with that id. An empty id answers none in particular
	// and travels as null.
	Reply(id wire.ID, result any, err *wire.Error)
	// Notify sends a notification.
	Notify(method string, params any)
	// Follow streams an execution's transcript after everything sent before.
	// A second Follow of an execution replaces the first. It returns false if the feed
	// came too late: the connection is ending, and Connection.Closed will not report it.
	Follow(Feed) bool
	// Disconnect sends what is queued, within the write timeout, and closes with cause.Code().
	Disconnect(wire.Cause)
}

// Feed is the output of one execution, to be pulled by a connection.
type Feed = relay.Feed

// Cursor reads a transcript. Marks in its pieces are *wire.Warning or
// *wire.Completed, to be sent as notifications at their place. See transcript.Cursor.
type Cursor = relay.Cursor

// ConnectRequest opens a connection actor.
type ConnectRequest struct {
	Subject            string // who the client is, as authenticated; sessions belong to it
	Remote             string // the client's address, for the log
	SessionID          string // re-attach to it, the first request must be resume; empty: open a new session
	EndsWithConnection bool   // the session ends with the connection, however that ends

	proxyPod string // the pod that has the socket and asked for this one; empty: the socket is here
}
