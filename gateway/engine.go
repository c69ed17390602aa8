package gateway

import (
	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Engine is the gateway's view of the actors. Its methods do not block.
type Engine interface {
	// Connect begins a connection. The engine calls sink from any goroutine.
	Connect(req actors.ConnectRequest, sink actors.Sink) Connection
	Stats() actors.Stats
}

// Connection receives the requests of one socket in order, then its end. See actors.Connection.
type Connection interface {
	Request(id wire.ID, params any)
	Closed(cause wire.Cause, delivered map[string]int64)
}

// FromActors adapts an actors.Engine.
func FromActors(e *actors.Engine) Engine { return actorEngine{e} }

type actorEngine struct{ *actors.Engine }

func (e actorEngine) Connect(req actors.ConnectRequest, sink actors.Sink) Connection {
	return e.Engine.Connect(req, sink)
}
