package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Connection is the gateway's handle to a connection actor. Its methods do not block.
type Connection struct {
	engine *Engine
	pid    *actor.PID
}

// Connect makes the actor of a socket. sink receives everything that follows,
// beginning with connected, or with an error and Disconnect.
func (e *Engine) Connect(req ConnectRequest, sink Sink) *Connection {
	c := &connection{engine: e, sink: sink, req: req, since: time.Now()}
	e.connections.Add(1)
	props := e.props("connection", c.receive, c.cleanup)
	pid := e.system.Root.SpawnPrefix(props, "connection-")
	return &Connection{engine: e, pid: pid}
}

// Request passes a request on: params is a pointer to one of wire's …Params.
// An empty id makes it a notification, which is not answered.
// Requests are handled in the order of the calls.
func (c *Connection) Request(id wire.ID, params any) {
	c.engine.system.Root.Send(c.pid, clientRequest{id: id, params: params})
}

// Closed reports that the socket is gone, and why. delivered maps each followed
// execution whose completion was not written to the offset up to which its output
// was. It is the last call.
func (c *Connection) Closed(cause wire.Cause, delivered map[string]int64) {
	c.engine.system.Root.Send(c.pid, socketClosed{cause: cause, delivered: delivered})
}

// maxBacklog bounds the requests that wait for the session of their connection.
// The gateway's bound on requests in flight is lower; this one holds without it.
const maxBacklog = 1024

// resumeTimeout is how long a connection that re-attaches may take to send
// resume. It holds no session's slot until then, so nothing else would end it.
const resumeTimeout = 10 * time.Second

// connection is the actor of one socket: it knows the session and passes messages on.
type connection struct {
	engine *Engine
	sink   Sink
	req    ConnectRequest
	since  time.Time // when the client came

	self        *actor.PID
	session     *actor.PID      // nil until attached
	watched     *actor.PID      // the session, from when it was found
	attaching   bool            // the session, or the answer to resume, is on its way
	resuming    wire.ID         // that resume
	backlog     []clientRequest // requests that came before the session
	socketGone  bool
	closed      bool        // the session knows that the socket is gone
	resumeTimer *time.Timer // for a first resume

	// Sessions of other pods.
	remote     *proxyLink   // the link to the session, once it is open
	links      []*proxyLink // all that were tried
	candidates []string     // peers to be asked next for a session
}

func (c *connection) receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		c.self = ctx.Self()
		if c.req.SessionID == "" {
			c.attaching = true
			ctx.Send(c.engine.manager, c.openSession(ctx, c.mayPlace()))
			return
		}
		c.resumeTimer = c.engine.after(resumeTimeout, ctx.Self(), resumeOverdue{})
	case clientRequest:
		c.clientRequest(ctx, msg)
	case sessionFound:
		c.watch(ctx, msg.session)
	case attached:
		c.attached(ctx, msg)
	case reply:
		c.reply(ctx, msg)
	case notify:
		c.sink.Notify(msg.method, msg.params)
	case follow:
		c.sink.Follow(msg.feed) // if it comes too late, the client will not acknowledge it
	case disconnect:
		c.sink.Disconnect(msg.cause)
	case socketClosed:
		c.socketClosed(ctx, msg)
	case *actor.Terminated:
		// It overtakes what the session sent before it: handle it in its turn.
		ctx.Send(ctx.Self(), sessionStopped{})
	case sessionStopped:
		c.sessionStopped(ctx)
	case placeElsewhere:
		c.placeElsewhere(ctx)
	case resumeElsewhere:
		c.resumeElsewhere(ctx, msg)
	case linkMessage:
		c.linkMessage(ctx, msg)
	case resumeOverdue:
		if c.session == nil && c.remote == nil && !c.attaching {
			c.sink.Disconnect(wire.CauseReadTimeout) // not no_session: the session may exist
		}
	}
}

func (c *connection) openSession(ctx actor.Context, mayPlace bool) openSession {
	return openSession{
		asked: c.since, subject: c.req.Subject, conn: ctx.Self(), endsWithConnection: c.req.EndsWithConnection,
		options: c.req.Options, proxyPod: c.req.proxyPod, mayPlace: mayPlace,
	}
}

// watch makes the connection learn of the session's end, whatever becomes of the messages to it.
func (c *connection) watch(ctx actor.Context, session *actor.PID) {
	c.watched = session
	ctx.Watch(session)
}

func (c *connection) socketClosed(ctx actor.Context, msg socketClosed) {
	if c.watched != nil {
		ctx.Unwatch(c.watched) // an actor keeps its watchers, those that have stopped too
	}
	c.socketGone = true
	c.tellClosed(msg.cause)
	c.closeLinks(msg)
	c.stopIfDone(ctx)
}

// sessionStopped: a session that ends in order has sent disconnect before. One that ended with
// resume in its mailbox has not answered it.
func (c *connection) sessionStopped(ctx actor.Context) {
	switch {
	case c.session != nil:
		c.sink.Disconnect(wire.CauseInternal)
	case c.attaching:
		refuseAttach(ctx, attach{conn: ctx.Self(), id: c.resuming})
	}
}

func (c *connection) clientRequest(ctx actor.Context, msg clientRequest) {
	if c.remote != nil {
		c.remote.request(msg)
		return
	}
	if c.session != nil {
		ctx.Send(c.session, request{conn: ctx.Self(), id: msg.id, params: msg.params})
		return
	}
	if c.attaching {
		if len(c.backlog) == maxBacklog {
			c.sink.Disconnect(wire.CauseSlowConsumer)
			return
		}
		c.backlog = append(c.backlog, msg)
		return
	}
	params, ok := msg.params.(*wire.ResumeParams)
	if !ok {
		c.sink.Reply(msg.id, nil, wire.Errorf(wire.CodeInvalidRequest,
			"this connection re-attaches to session %s: send resume first", c.req.SessionID))
		return
	}
	c.attaching, c.resuming = true, msg.id
	if c.resumeElsewhere(ctx, resumeElsewhere{request: msg, params: params, until: time.Now().Add(unresolvedTimeout)}) {
		return
	}
	ctx.Send(c.engine.manager, findSession{session: c.req.SessionID, attach: attach{
		conn: ctx.Self(), id: msg.id, subject: c.req.Subject, params: *params,
	}})
}

func (c *connection) attached(ctx actor.Context, msg attached) {
	c.session, c.attaching = msg.session, false
	if c.socketGone {
		c.tellClosed(wire.CauseClientGone)
		return
	}
	c.watch(ctx, msg.session)
	for _, r := range c.backlog {
		ctx.Send(c.session, request{conn: ctx.Self(), id: r.id, params: r.params})
	}
	c.backlog = nil
}

// reply passes an answer on. A refused resume leaves the connection free to try
// again, which the requests behind it may do.
func (c *connection) reply(ctx actor.Context, msg reply) {
	refused := c.session == nil && msg.err != nil
	if refused && !c.attaching {
		return // the session's end has answered it
	}
	c.passReply(msg)
	if !refused {
		return
	}
	c.attaching = false
	if c.req.SessionID == "" {
		return // disconnect follows
	}
	waiting := c.backlog
	c.backlog = nil
	for _, r := range waiting {
		c.clientRequest(ctx, r)
	}
}

func (c *connection) passReply(msg reply) {
	switch {
	case string(msg.id) == string(wire.NullID):
		c.sink.Reply(nil, msg.result, msg.err) // it answers none of the client's requests
	case len(msg.id) > 0:
		c.sink.Reply(msg.id, msg.result, msg.err)
	}
}

func (c *connection) tellClosed(cause wire.Cause) {
	if c.session == nil || c.closed {
		return
	}
	c.closed = true
	c.engine.system.Root.Send(c.session, connectionClosed{conn: c.self, cause: cause})
}

// cleanup runs when the actor stops, by a panic too: the socket does not outlive it,
// and the session learns that it is detached.
func (c *connection) cleanup() {
	defer c.engine.connections.Done()
	stopTimer(c.resumeTimer)
	c.abandonLinks()
	c.sink.Disconnect(wire.CauseInternal)
	c.tellClosed(wire.CauseInternal)
}
