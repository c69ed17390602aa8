package actors

import (
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
)

// guard stands before an actor's Receive. It turns a panic at any message into
// the orderly end of that one actor, and runs the actor's cleanup at Stopping
// whether or not the actor's own code survived until then.
//
// It is needed because protoactor can restart or stop an actor only after a panic at a
// user message: one at Stopping, Stopped, Restarting or Terminated leaves the actor and
// its parent waiting forever (actor/mailbox.go and actor/actor_context.go in
// v0.0.0-20240822202345-3c0e61ca19c9).
type guard struct {
	engine      *Engine
	kind        string
	cleanup     func()    // run once, after the actor has seen Stopping
	failRequest func(any) // answers the request at which the actor panicked; nil: it serves none
	over        bool      // it failed or is stopping

	// survive, if set, keeps the actor alive after a panic and handles what the message left
	// undone. The manager has it, because every session would end with it.
	survive func(actor.Context, any)
}

// props makes the Props of a guarded actor.
func (e *Engine) props(kind string, receive actor.ReceiveFunc, cleanup func()) *actor.Props {
	return (&guard{engine: e, kind: kind, cleanup: cleanup}).props(receive)
}

// props puts the guard around receive. It is not a receiver middleware: that
// would cost every message an envelope and every actor a larger context.
func (g *guard) props(receive actor.ReceiveFunc) *actor.Props {
	return actor.PropsFromFunc(func(ctx actor.Context) { g.receive(ctx, receive) },
		actor.WithDispatcher(g.engine.dispatch),
		actor.WithSupervisor(stopFailed))
}

// stopFailed is the supervision of every actor. The guard recovers all panics,
// so it decides only what the guard cannot see.
var stopFailed = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective })

func (g *guard) receive(ctx actor.Context, next actor.ReceiveFunc) {
	msg := ctx.Message()
	_, stopping := msg.(*actor.Stopping)
	if stopping {
		defer g.clean(ctx)
	}
	if g.over && !isLifecycle(msg) {
		// After a panic the actor's state cannot be trusted with requests. A stopping actor still
		// gets user messages while it has children, and nothing would stop what they start.
		if ctx.Sender() != nil {
			ctx.Respond(notAnswered{})
		}
		return
	}
	g.over = g.over || stopping
	defer g.recovered(ctx, msg)
	if g.engine.probe != nil {
		g.engine.probe(g.kind, msg)
	}
	next(ctx)
}

func (g *guard) clean(c actor.Context) {
	defer g.recovered(c, nil)
	if g.cleanup != nil {
		g.cleanup()
	}
}

func (g *guard) recovered(c actor.Context, msg any) {
	r := recover()
	if r == nil {
		return
	}
	g.engine.metrics.panics.WithLabelValues(g.kind).Inc()
	g.log(c).Error("actor panicked", slog.Any("panic", r), "stack", string(debug.Stack()))
	if g.survive != nil {
		g.makeUp(c, msg)
		return
	}
	g.over = true
	g.engine.system.Root.Stop(c.Self())
	if g.failRequest != nil {
		g.failRequest(msg)
	}
}

// makeUp tries once: after a second panic the message is dropped.
func (g *guard) makeUp(c actor.Context, msg any) {
	defer func() {
		if r := recover(); r != nil {
			g.log(c).Error("actor panicked again", slog.Any("panic", r))
		}
	}()
	g.survive(c, msg)
}

// log names the actor, and the session and execution that it belongs to. Actor ids
// are paths: manager/SESSION/EXECUTION.
func (g *guard) log(c actor.Context) *slog.Logger {
	l := g.engine.log.With("actor", g.kind, "pid", c.Self().Id)
	path := strings.Split(c.Self().Id, "/")
	if len(path) > 1 && g.kind != "reaper" {
		l = l.With("session", path[1])
	}
	if len(path) > 2 {
		l = l.With("execution", path[2])
	}
	return l
}

func isLifecycle(msg any) bool {
	switch msg.(type) {
	case *actor.Started, *actor.Stopping, *actor.Stopped, *actor.Restarting, *actor.Terminated:
		return true
	}
	return false
}
