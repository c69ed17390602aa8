package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is what a connection does when its session is, or is to be, on another pod.

// linkMessage handles an event of a link, and what follows from it for the connection.
func (c *connection) linkMessage(ctx actor.Context, msg linkMessage) {
	g := msg.link
	wasOpen, wasRefused := c.remote != nil, g.refused
	g.handle(msg.event)
	switch {
	case c.remote == g && !wasOpen:
		c.engine.cluster.metrics.placed.WithLabelValues(placedThere).Inc()
		c.opened()
	case g.refused && !wasRefused:
		outcome := placedRefused
		if g.removed && g.proxy.Ended() != relay.EndedDone {
			outcome = placedLost
		}
		c.engine.cluster.metrics.placed.WithLabelValues(outcome).Inc()
		if !c.socketGone {
			c.askNext(ctx)
		}
	}
	c.stopIfDone(ctx)
}

// opened passes on the requests that waited for the session.
func (c *connection) opened() {
	c.attaching = false
	waiting := c.backlog
	c.backlog = nil
	for _, r := range waiting {
		c.remote.request(r)
	}
}

// mayPlace reports whether a session may be opened on another pod. A client that another pod asks
// for is served or refused here, so that no pod sends a client in circles.
func (c *connection) mayPlace() bool {
	return c.engine.cluster != nil && c.req.proxyPod == "" && !c.req.Isolated
}

// placeElsewhere asks the peers for a session, those with most room first.
func (c *connection) placeElsewhere(ctx actor.Context) {
	c.candidates = c.engine.cluster.candidates()
	c.askNext(ctx)
}

// askNext asks the next peer. When all have refused, it asks this pod again: a session may have
// ended, and a detached one that is idle is evicted now.
func (c *connection) askNext(ctx actor.Context) {
	for len(c.candidates) > 0 {
		peer := c.candidates[0]
		c.candidates = c.candidates[1:]
		c.engine.cluster.reserve(peer)
		g := c.join(peer, relay.OpenParams{
			Subject: c.req.Subject, Remote: c.req.Remote, EndsWithConnection: c.req.EndsWithConnection,
			Options: c.req.Options,
		})
		if g != nil {
			return
		}
	}
	c.engine.cluster.metrics.placed.WithLabelValues(placedNowhere).Inc()
	ctx.Send(c.engine.manager, c.openSession(ctx, false))
}

const (
	// unresolvedTimeout is how long resume waits for a directory that does not know the owner yet, or
	// for a first sign of life from it.
	unresolvedTimeout = 3 * time.Second
	// unresolvedRetry is how often resume looks again in that time.
	unresolvedRetry = 100 * time.Millisecond
)

// resumeElsewhere re-attaches to a session that another pod owns. It returns false if this pod owns
// the session, or would own it.
func (c *connection) resumeElsewhere(ctx actor.Context, msg resumeElsewhere) bool {
	pod, _, ok := ownerOf(c.req.SessionID)
	if !c.mayPlace() || !ok || pod == c.engine.pod {
		return false
	}
	stopTimer(c.resumeTimer) // resume has come
	var g *proxyLink
	refusal, cause := sessionLost(), wire.CauseSessionLost
	switch knowledge := c.engine.cluster.lookup(pod); {
	case knowledge == peers.Unresolved && time.Now().Before(msg.until):
		c.resumeTimer = c.engine.after(unresolvedRetry, ctx.Self(), msg)
		return true
	case knowledge == peers.Unresolved: // the session may exist, so the client should retry
		refusal, cause = ownerNotFound(), wire.CauseClientGone
	case knowledge == peers.Known:
		g = c.join(pod, relay.OpenParams{
			Subject: c.req.Subject, Remote: c.req.Remote, Session: c.req.SessionID,
			EndsWithConnection: c.req.EndsWithConnection, ResumeID: msg.request.id, Resume: msg.params,
		})
	}
	if g == nil {
		c.attaching = false
		c.sink.Reply(msg.request.id, nil, refusal)
		c.sink.Disconnect(cause)
		return true
	}
	c.remote = g
	c.opened()
	return true
}

// ownerNotFound refuses a request that may succeed once the directory knows the pod.
func ownerNotFound() *wire.Error {
	err := wire.Errorf(wire.CodeInternal, "the pod that owns the session cannot be found now: try again")
	err.Data = &wire.ErrorData{RetryAfterSeconds: 1}
	return err
}

// closeLinks tells the owner that the socket is gone. The actor stays until the owner has
// acknowledged it.
func (c *connection) closeLinks(msg socketClosed) {
	for _, g := range c.links {
		g.close(msg.cause, msg.delivered)
	}
}

// stopIfDone stops the actor of a socket that is gone, once its links are removed.
func (c *connection) stopIfDone(ctx actor.Context) {
	for _, g := range c.links {
		if !g.removed {
			return
		}
	}
	if c.socketGone {
		ctx.Stop(ctx.Self())
	}
}

// abandonLinks is part of cleanup: the socket is gone. After a panic it removes links that would
// have no actor. If a peer does not receive the End, it finds out with its next probe.
func (c *connection) abandonLinks() {
	for _, g := range c.links {
		g.close(wire.CauseInternal, nil)
		g.remove()
		g.stopReading()
	}
}
