package gateway

import (
	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Engine is what the gateway needs of the actors. Its methods do not block.
type Engine interface {
	// Connect begins a connection. client hears of everything that follows, from any goroutine.
	Connect(req actors.ConnectRequest, client actors.Sink) Connection
	Stats() actors.Stats
}

// Connection takes the requests of one socket, in order, and the news of its end. See actors.Connection.
type Connection interface {
	Request(id wire.ID, params any)
	Closed(cause wire.Cause, delivered map[string]int64)
}

// FromActors makes an Engine of the actors'.
func FromActors(e *actors.Engine) Engine { return actorEngine{e} }

type actorEngine struct{ *actors.Engine }

func (e actorEngine) Connect(req actors.ConnectRequest, client actors.Sink) Connection {
	return e.Engine.Connect(req, client)
}
