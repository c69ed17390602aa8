package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// request serves one request of an attached connection.
func (s *session) request(ctx actor.Context, msg request) {
	c := s.conns[msg.conn.Id]
	if c == nil {
		return // its socket has closed
	}
	s.lastActivity = time.Now()
	switch p := msg.params.(type) {
	case *wire.ExecuteParams:
		s.execute(ctx, c, msg.id, p)
	case *wire.ControlParams:
		s.control(ctx, msg, p)
	case *wire.InputParams:
		s.input(ctx, msg, p)
	case *wire.ResizeParams:
		s.resize(ctx, c, msg, p)
	case *wire.SignalParams:
		if x := s.liveExecution(ctx, msg, p.ExecutionID, wire.CodeNoProcess); x != nil {
			ctx.Send(x.pid, signalExecution{conn: msg.conn, id: msg.id, signal: p.Signal})
		}
	case *wire.StatusParams:
		ctx.Send(msg.conn, reply{id: msg.id, result: &wire.StatusResult{
			SessionID: s.id, Pod: s.engine.pod, CreatedAt: s.created.UTC().Format(time.RFC3339Nano),
			Executions: s.statuses(nil), Limits: s.limits(), Name: s.options.Name, Labels: s.options.Labels,
		}})
	case *wire.ResumeParams:
		s.attach(ctx, attach{conn: msg.conn, id: msg.id, subject: s.subject, params: *p})
	case *wire.AckParams:
		s.ack(ctx, c, msg.id, p)
	case *wire.CloseParams:
		ctx.Send(msg.conn, reply{id: msg.id, result: struct{}{}})
		s.cancel(ctx, eventClientDone, wire.ReasonSessionClosed, wire.CauseClientDone)
	default:
		ctx.Send(msg.conn, reply{
			id:  msg.id,
			err: wire.Errorf(wire.CodeMethodNotFound, "the engine does not know requests of type %T", p),
		})
	}
}

// execute runs a command, or attaches to the one that has its id.
func (s *session) execute(ctx actor.Context, c *attachedConn, id wire.ID, p *wire.ExecuteParams) {
	refuse := func(reason string, err *wire.Error) {
		s.engine.metrics.notStarted.WithLabelValues(reason).Inc()
		s.engine.turnedAway.Add(1)
		ctx.Send(c.pid, reply{id: id, err: err})
	}
	if x := s.executions[p.ExecutionID]; x != nil && p.ExecutionID != "" {
		s.attachExecution(ctx, x, waiter{conn: c.pid, id: id, attached: true, window: p.Window})
		return
	}
	if s.phase != serving {
		refuse(refusedEnding, wire.Errorf(wire.CodeNoSession, "the session is ending"))
		return
	}
	if !s.drainDeadline.IsZero() {
		err := wire.Errorf(wire.CodeDraining, "the server is stopping and starts nothing new: open a session elsewhere")
		err.Data = &wire.ErrorData{RetryAfterSeconds: 1}
		refuse(refusedDraining, err)
		return
	}
	if s.live >= s.engine.limits.MaxExecutions {
		err := wire.Errorf(wire.CodeExecutionLimit,
			"the session runs %d executions, which is its limit: wait for one to complete", s.live)
		err.Data = &wire.ErrorData{
			Limit: "max-executions", Value: float64(s.engine.limits.MaxExecutions),
			RetryAfterSeconds: 1,
		}
		refuse(refusedLimit, err)
		return
	}
	plan, err := s.engine.plan(p)
	if err != nil { // the allow-list is all that a plan can break
		refuse(refusedNotAllowed, err)
		return
	}
	if s.workspace == "" {
		s.workspace = proc.NewWorkspaceName()
	}
	plan.spec.Workspace = s.workspace
	if most := s.engine.limits.MaxExecutionsPerSubject; !s.engine.executions.take(s.subject, most) {
		err := wire.Errorf(wire.CodeSessionLimit,
			"this subject runs %d executions on this server, which is its limit: wait for one to complete", most)
		err.Data = &wire.ErrorData{Limit: "max-executions-per-subject", Value: float64(most), RetryAfterSeconds: 1}
		refuse(refusedSubject, err)
		return
	}
	s.startExecution(ctx, plan, waiter{conn: c.pid, id: id, window: p.Window})
}

// attachExecution answers a repeated execute as the first one was answered.
func (s *session) attachExecution(ctx actor.Context, x *execution, w waiter) {
	if x.command != 0 {
		s.announce(ctx, x, []waiter{w})
		return
	}
	x.waiting = append(x.waiting, w)
	if x.completed != nil {
		s.refuseWaiting(ctx, x)
	}
}

// startExecution registers the execution before anything of it runs, so that whatever happens next
// there is a record that knows its tree. The execution is counted already.
func (s *session) startExecution(ctx actor.Context, plan *plan, w waiter) {
	if plan.id == "" {
		plan.id = randomHex(8)
	}
	x := &execution{
		id: plan.id, session: s.id, subject: s.subject, requested: time.Now(), plan: plan, state: wire.StateStarting,
		tree: s.engine.runner.NewTree(s.id, plan.id),
		transcript: s.engine.store.Create(s.id+"/"+plan.id, transcript.Options{
			Owner: s.subject, Retain: plan.retain, Limit: plan.outputLimit, Scrollback: plan.scrollback,
			Summary: s.screenOf(plan),
			Times:   plan.terminal != nil,
		}),
		waiting: []waiter{w}, reader: w.conn.Id, size: plan.terminal,
	}
	x.trace = s.engine.traceExecution(x, plan.parent)
	s.executions[x.id] = x
	s.live++
	p := newProcess(s.engine, s.self, x)
	guarded := &guard{engine: s.engine, kind: "process", cleanup: p.cleanup, failRequest: p.failRequest}
	pid, err := ctx.SpawnNamed(guarded.props(p.receive), x.id)
	if err != nil {
		// The id was used before and its actor has not quite gone.
		x.tree.Kill()
		x.trace.completed(x.killed(wire.ReasonInternal))
		s.forget(x.id)
		s.live--
		x.release(s.engine)
		ctx.Send(w.conn, reply{id: w.id, err: wire.Errorf(wire.CodeInternal, "cannot start execution %s: %v", x.id, err)})
		return
	}
	x.pid = pid
}

// liveExecution finds an execution whose process actor can answer, or replies with code.
func (s *session) liveExecution(ctx actor.Context, msg request, id string, code wire.Code) *execution {
	x := s.executions[id]
	switch {
	case x == nil:
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(wire.CodeNoProcess, "this session has no execution %q", id)})
	case x.dead || x.pid == nil:
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(code, "execution %s has ended", id)})
	default:
		return x
	}
	return nil
}

// control passes a control request to the one execution it can mean.
func (s *session) control(ctx actor.Context, msg request, p *wire.ControlParams) {
	id := p.ExecutionID
	if id == "" {
		var err *wire.Error
		if id, err = s.onlyLiveExecution(); err != nil {
			ctx.Send(msg.conn, reply{id: msg.id, err: err})
			return
		}
	}
	if x := s.executions[id]; x != nil && x.dead && p.Type == wire.ControlCancel {
		// Cancel is valid in any state: what it asks for is so.
		ctx.Send(msg.conn, reply{id: msg.id, result: &wire.ControlResult{Status: "canceled", ExecutionID: id}})
		return
	}
	if x := s.liveExecution(ctx, msg, id, wire.CodeNoProcess); x != nil {
		ctx.Send(x.pid, controlExecution{conn: msg.conn, id: msg.id, typ: p.Type})
	}
}

// onlyLiveExecution returns the id of the execution that runs, if there is exactly one.
func (s *session) onlyLiveExecution() (string, *wire.Error) {
	found := ""
	for id, x := range s.executions {
		if x.dead {
			continue
		}
		if found != "" {
			return "", wire.Errorf(wire.CodeInvalidParams, "%d executions are running: say which with execution_id", s.live)
		}
		found = id
	}
	if found == "" {
		return "", wire.Errorf(wire.CodeNoProcess, "no process is running")
	}
	return found, nil
}

func (s *session) input(ctx actor.Context, msg request, p *wire.InputParams) {
	data, err := p.Bytes()
	if err != nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(wire.CodeInvalidParams, "data: %v", err)})
		return
	}
	if x := s.liveExecution(ctx, msg, p.ExecutionID, wire.CodeInputUnavailable); x != nil {
		ctx.Send(x.pid, writeInput{conn: msg.conn, id: msg.id, data: data, eof: p.EOF, offset: p.Offset, writer: p.Writer})
	}
}

// checkOffsets refuses offsets that no client of this session can have seen.
func (s *session) checkOffsets(executions map[string]int64) *wire.Error {
	for id, after := range executions {
		if x := s.executions[id]; x != nil && (after < 0 || after > x.transcript.End()) {
			return wire.Errorf(wire.CodeInvalidParams,
				"executions[%q]: offset %d is not between 0 and %d, the end of its output", id, after, x.transcript.End())
		}
	}
	return nil
}

// resumed answers resume and streams what the client asked for.
func (s *session) resumed(ctx actor.Context, c *attachedConn, msg attach) {
	wanted := msg.params.Executions
	res := &wire.ResumeResult{SessionID: s.id, Executions: s.statuses(wanted), Limits: s.limits()}
	for id := range wanted {
		if s.executions[id] == nil {
			res.Unknown = append(res.Unknown, id)
		}
	}
	ctx.Send(c.pid, reply{id: msg.id, result: res})
	for id, x := range s.executions {
		after, ok := wanted[id]
		switch {
		case wanted != nil && !ok:
		case x.command == 0 && x.completed == nil:
			// It is starting: process.started comes before its output here too.
			x.waiting = append(x.waiting, waiter{conn: c.pid, resumed: true, window: msg.params.Window})
		default:
			c.follow(ctx, x, after, msg.params.Window)
		}
	}
}

// statuses describes the wanted executions, or all.
func (s *session) statuses(wanted map[string]int64) map[string]wire.ExecutionStatus {
	all := make(map[string]wire.ExecutionStatus, len(s.executions))
	for id, x := range s.executions {
		if _, ok := wanted[id]; ok || wanted == nil {
			all[id] = x.status()
		}
	}
	return all
}
