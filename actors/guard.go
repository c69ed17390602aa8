package actors

import (
	"log/slog"
	"runtime/debug"

	"github.com/asynkron/protoactor-go/actor"
)

// guard stands before an actor's Receive. It turns a panic at any message into
// the orderly end of that one actor, and runs the actor's cleanup at Stopping
// whether or not the actor's own code survived until then.
//
// It is needed because protoactor recovers panics of user messages only: one in
// Stopping, Stopped, Restarting or Terminated leaves the actor and its parent
// waiting for ever.
type guard struct {
	engine  *Engine
	kind    string
	resume  bool   // a panic does not end the actor: the manager, whose loss would be everyone's
	cleanup func() // run once, after the actor has seen Stopping
	failed  bool
}

// props makes the Props of a guarded actor.
func (e *Engine) props(kind string, resume bool, receive actor.ReceiveFunc, cleanup func()) *actor.Props {
	g := &guard{engine: e, kind: kind, resume: resume, cleanup: cleanup}
	return actor.PropsFromFunc(receive,
		actor.WithReceiverMiddleware(g.middleware),
		actor.WithSupervisor(stopFailed))
}

// stopFailed is the supervision of every actor. The guard recovers all panics,
// so it decides only what the guard cannot see.
var stopFailed = actor.NewOneForOneStrategy(0, 0, func(any) actor.Directive { return actor.StopDirective })

func (g *guard) middleware(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(c actor.ReceiverContext, env *actor.MessageEnvelope) {
		_, stopping := env.Message.(*actor.Stopping)
		if stopping {
			defer g.clean(c)
		}
		if g.failed && !isLifecycle(env.Message) {
			return // it is being stopped: its state can no longer be trusted with requests
		}
		defer g.recovered(c)
		if g.engine.probe != nil {
			g.engine.probe(g.kind, env.Message)
		}
		next(c, env)
	}
}

func (g *guard) clean(c actor.ReceiverContext) {
	defer g.recovered(c)
	if g.cleanup != nil {
		g.cleanup()
	}
}

func (g *guard) recovered(c actor.ReceiverContext) {
	r := recover()
	if r == nil {
		return
	}
	g.engine.metrics.panics.WithLabelValues(g.kind).Inc()
	g.engine.log.Error("actor panicked", "actor", g.kind, "pid", c.Self().Id, slog.Any("panic", r), "stack", string(debug.Stack()))
	if g.resume {
		return
	}
	g.failed = true
	g.engine.system.Root.Stop(c.Self())
}

func isLifecycle(msg any) bool {
	switch msg.(type) {
	case *actor.Started, *actor.Stopping, *actor.Stopped, *actor.Restarting, *actor.Terminated:
		return true
	}
	return false
}
