package actors

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is what a session does with the reports of its process actors.

// executionStarted answers every request that waited for the command.
func (s *session) executionStarted(ctx actor.Context, msg executionStarted) {
	x := s.executions[msg.execution]
	x.command, x.started = msg.pid, time.Now()
	if x.state == wire.StateStarting {
		x.state = wire.StateRunning
	}
	s.announce(ctx, x, x.waiting)
	x.waiting = nil
}

// announce sends the answers, process.started and the output, in this order.
func (s *session) announce(ctx actor.Context, x *execution, waiting []waiter) {
	for _, w := range waiting {
		if !w.resumed {
			ctx.Send(w.conn, reply{id: w.id, result: &wire.ExecuteResult{
				Status: "started", ExecutionID: x.id, PID: x.command, PGID: x.command, Attached: w.attached,
			}})
		}
	}
	told := map[*attachedConn]bool{}
	for _, w := range waiting {
		c := s.conns[w.conn.Id]
		if c == nil || told[c] {
			continue
		}
		told[c] = true
		ctx.Send(c.pid, notify{method: wire.MethodStarted, params: &wire.Started{
			ExecutionID: x.id, Status: "started", PID: x.command, PGID: x.command,
		}})
		c.follow(ctx, x, 0, w.window)
	}
}

// stateChanged records a change and tells every connection, if there is something to tell.
func (s *session) stateChanged(ctx actor.Context, id string, state wire.State, method, status string) {
	x := s.executions[id]
	x.state = state
	if method == "" {
		return
	}
	for _, c := range s.conns {
		ctx.Send(c.pid, notify{
			method: method,
			params: &wire.ControlEvent{ExecutionID: id, Status: status, PID: x.command, PGID: x.command},
		})
	}
}

// executionCompleted records the end. Connections learn of it from the transcript,
// after the last byte.
func (s *session) executionCompleted(ctx actor.Context, msg executionCompleted) {
	x := s.executions[msg.execution]
	x.completed = msg.completed
	s.refuseWaiting(ctx, x)
	if msg.kept {
		x.state = wire.StateKept
		return
	}
	s.executionDead(ctx, msg.execution)
}

// refuseWaiting answers the requests that wait for a command that never ran.
func (s *session) refuseWaiting(ctx actor.Context, x *execution) {
	if len(x.waiting) == 0 {
		return
	}
	err := wire.Errorf(wire.CodeStartFailed, "execution %s did not start: %s", x.id, x.completed.Reason)
	if x.completed.Error != nil {
		err = x.completed.Error
	}
	for _, w := range x.waiting {
		c := s.conns[w.conn.Id]
		switch {
		case c == nil: // its socket has closed
		case w.resumed:
			c.follow(ctx, x, 0, w.window)
		default:
			x.read = progress{offset: x.transcript.End(), completed: true} // the answer says all there is
			ctx.Send(w.conn, reply{id: w.id, err: err})
		}
	}
	x.waiting = nil
}

// executionDead records that nothing of an execution lives, and forgets the oldest finished
// ones. settle ends a session that was waiting for it.
func (s *session) executionDead(ctx actor.Context, id string) {
	x := s.executions[id]
	if x.dead {
		return
	}
	x.dead, x.state = true, wire.StateExited
	for _, c := range s.conns {
		delete(c.sizes, id)
	}
	if x.pid != nil {
		// It has said everything, but may still have requests to answer, which Stop would overtake.
		ctx.Poison(x.pid)
	}
	s.live--
	s.lastActivity = time.Now()
	x.release(s.engine)
	s.finished = append(s.finished, id)
	for len(s.finished) > s.engine.limits.KeepFinished {
		i := s.oldestDelivered()
		s.forget(s.finished[i])
		s.finished = slices.Delete(s.finished, i, i+1)
	}
	s.offerSlot(ctx)
}

// forget removes what is kept of a finished execution. Its id may be used again.
func (s *session) forget(id string) {
	x := s.executions[id]
	delete(s.executions, id)
	stopTimer(x.readerTimer)
	for _, c := range s.conns {
		delete(c.follows, id)
	}
	s.engine.remove(x)
}

// processFailed takes over when a process actor stopped before its execution ended:
// its guard has killed the tree, and the end is reported when the tree is dead.
func (s *session) processFailed(id string, x *execution) {
	x.tree.Kill()
	root, self, dead := s.engine.system.Root, s.self, x.tree.Dead()
	go func() {
		<-dead
		x.readers.Wait()
		root.Send(self, treeReaped{execution: id})
	}()
}

func (s *session) treeReaped(ctx actor.Context, msg treeReaped) {
	x := s.executions[msg.execution]
	if x == nil || x.dead {
		return
	}
	if x.completed == nil {
		x.completed = x.killed(wire.ReasonInternal)
		x.release(s.engine)
		x.transcript.Mark(x.completed)
		s.engine.recordEnd(x, x.started, x.completed)
	}
	x.transcript.Seal()
	s.refuseWaiting(ctx, x)
	s.executionDead(ctx, x.id)
}
