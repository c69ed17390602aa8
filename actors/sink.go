package actors

import (
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Sink is the socket of a connection. The gateway implements it; actors call it.
type Sink = relay.Sink

// Feed is the output of one execution, which a connection pulls.
type Feed = relay.Feed

// Cursor reads a transcript.
type Cursor = relay.Cursor

// ConnectRequest opens a connection actor.
type ConnectRequest struct {
	Subject            string // who the client is, as authenticated; sessions belong to it
	Remote             string // the client's address, for the log
	SessionID          string // re-attach to it, the first request must be resume; empty: open a new session
	EndsWithConnection bool   // the session ends with the connection, however that ends
	Isolated           bool   // open the session here or nowhere: another pod may separate sessions less

	// Options are for a new session. They have passed Check, and the engine keeps them.
	Options wire.SessionOptions

	proxyPod string // the pod that has the socket and asked for this one; empty: the socket is here
}
