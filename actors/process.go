package actors

import (
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// process is the actor of one execution: it starts the tree, keeps its time,
// and brings it to an end that is reported exactly once, when nothing of it
// lives and its output has been read.
// See process_states.go for its states, and process_control.go for what clients may ask in each.
type process struct {
	engine  *Engine
	session *actor.PID
	x       *execution // its first group of fields only: the rest is the session's
	plan    *plan      // x.plan
	self    *actor.PID

	state   wire.State
	reason  wire.Reason // the first cause of the end; empty: none yet
	pid     int
	started time.Time // of the command; zero: it does not run yet
	endedAt time.Time // when the reason was decided

	pauses         []controlExecution // PAUSE requests without an answer: the tree still runs
	pausesInFlight int                // Pauses that were sent and whose Paused has not come
	lines          [2]*output         // nil until started
	streams        [2]streamState
	stdin          input
	lastByte       atomic.Int64 // running readers; nanoseconds of now(), 0: no byte yet

	exited          *proc.Exited
	failed          error // why it did not start
	dead            *proc.Dead
	survivorsKilled bool
	pipesOverdue    bool // the tree is dead, but something outside of it holds a pipe

	watch       stopwatch // running time
	silentSince time.Time // no byte since then, as far as lastByte does not know better
	timers      map[any]*time.Timer
	reported    *wire.Completed // sent; with keep, survivors may still live
}

func newProcess(e *Engine, session *actor.PID, x *execution) *process {
	return &process{
		engine: e, session: session, x: x, plan: x.plan, state: wire.StateStarting,
		timers: map[any]*time.Timer{},
	}
}

func (p *process) receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		p.self = ctx.Self()
		p.start(ctx)
	case treeEvent:
		p.treeEvent(ctx, msg.event)
	case streamEnded:
		p.streams[msg.stream] = streamAtEnd
		p.advance(ctx)
	case streamCaughtUp:
		if p.streams[msg.stream] == streamOpen {
			p.streams[msg.stream] = streamAtRest
		}
		p.advance(ctx)
	case outputSeen:
		p.engine.metrics.firstOutput.Observe(time.Since(p.x.requested).Seconds())
		p.x.trace.event("first_output")
	case droppingBegan:
		p.x.trace.dropping(msg.code)
		if msg.code == wire.WarnOutputLimit && p.plan.cancelOnLimit {
			p.cancel(ctx, wire.ReasonOutputLimit, false)
		}
	case controlExecution:
		p.control(ctx, msg)
	case signalExecution:
		p.signal(ctx, msg)
	case writeInput:
		p.input(ctx, msg)
	case resizeTerminal:
		p.resize(msg.size)
	case inputWritten:
		p.inputWritten(ctx, msg)
	case cancelExecution:
		p.cancel(ctx, msg.reason, false)
	case silenceCheck:
		p.silenceCheck(ctx)
	case deadlineCheck:
		p.deadlineCheck(ctx)
	case graceOver:
		p.x.tree.Kill()
	case survivorGraceOver:
		p.killSurvivors()
	case pipesOverdue:
		p.pipesOverdue = true
		p.catchUp()
	}
}

// start begins the execution. Nothing of it runs before this, and everything
// that runs from here on is below p.x.tree.
func (p *process) start(ctx actor.Context) {
	root, self := p.engine.system.Root, p.self
	p.x.transcript.OnDrop(p.onDrop)
	spec := p.plan.spec
	p.plan.spec = proc.Spec{}
	std, err := p.x.tree.Start(spec, func(ev proc.Event) { root.Send(self, treeEvent{event: ev}) })
	if err != nil {
		p.failed = err
		p.streams = [2]streamState{streamAtEnd, streamAtEnd}
		p.dead = &proc.Dead{}
		if errors.Is(err, proc.ErrKilled) {
			p.applyOverride()
		}
		p.complete(ctx)
		return
	}
	p.stdin.pipe = std.Stdin
	if t := p.plan.terminal; t != nil {
		p.streams[stderr] = streamAtEnd
		p.x.transcript.Restate(p.resized(proc.Size{Cols: t.Cols, Rows: t.Rows}))
	}
	for i, pipe := range []Pipe{std.Stdout, std.Stderr} {
		if pipe == nil {
			continue
		}
		p.lines[i] = &output{
			stream: i, pipe: pipe, root: root, process: self, lastByte: &p.lastByte, clock: p.now,
			streams: &p.engine.streams, droppers: &p.engine.droppers,
			writer: p.x.transcript.Writer(transcriptStream(i), transcript.WriterConfig{
				Lines: p.plan.lines, MaxLine: p.plan.maxLine, WholeRunes: p.plan.encoding != wire.EncodingBase64,
			}),
		}
		p.x.readers.Go(p.lines[i].run)
	}
}

// now is the process's clock: nanoseconds since the request, never 0.
func (p *process) now() int64 { return int64(time.Since(p.x.requested)) + 1 }

func transcriptStream(i int) transcript.Stream {
	if i == stderr {
		return transcript.Stderr
	}
	return transcript.Stdout
}

// treeEvent is the runner's half of the state machine.
func (p *process) treeEvent(ctx actor.Context, event proc.Event) {
	switch ev := event.(type) {
	case proc.Started:
		p.running(ctx, ev)
	case proc.StartFailed:
		p.failed = ev.Err
	case proc.Paused:
		p.paused(ctx)
	case proc.Resumed:
	case proc.NearBound:
		p.nearBound(ev)
	case proc.Exited:
		p.leaderExited(ctx, ev)
	case proc.Dead:
		p.treeDead(ctx, ev)
	}
}

func (p *process) running(ctx actor.Context, ev proc.Started) {
	p.pid = ev.PID
	p.started = time.Now()
	p.watch.start(p.started)
	p.silentSince = p.started
	p.engine.metrics.started.Inc()
	took := p.started.Sub(p.x.requested)
	p.engine.metrics.startSeconds.Observe(took.Seconds())
	p.engine.started.Add(1)
	p.engine.startTime.Add(int64(took))
	p.x.trace.running(ev.PID, p.started)
	ctx.Send(p.session, executionStarted{execution: p.x.id, pid: ev.PID})
	if !p.moved(commandStarted) {
		return // it was cancelled meanwhile, and the kill is on its way
	}
	p.arm(p.plan.streamTimeout, silenceCheck{})
	if p.plan.maxDuration > 0 {
		p.arm(p.plan.maxDuration, deadlineCheck{})
	}
	if len(p.pauses) > 0 {
		p.pauseTree()
	}
}

// leaderExited handles the exit of the command. What it wrote is still to be read, and what
// it left behind is still to be killed, or kept.
func (p *process) leaderExited(ctx actor.Context, ev proc.Exited) {
	p.exited = &ev
	p.x.trace.event("exited")
	if ev.Signal == syscall.SIGKILL && !ev.OutOfMemory {
		p.applyOverride()
	}
	p.decide(exitReason(ev))
	p.closeInput(ctx)
	if len(p.pauses) > 0 || p.plan.keep && p.state == wire.StatePaused {
		// Survivors may run until they are killed, and forever if they are kept: no client could
		// resume them.
		p.x.tree.Resume()
	}
	p.answerWaiting(ctx)
	end := commandExited
	if p.plan.keep && !ev.NoSurvivors {
		end = commandLeftKept
	}
	p.moved(end)
	if p.state == wire.StateKept {
		p.catchUp()
		p.advance(ctx)
		return
	}
	ctx.Send(p.session, executionExiting{execution: p.x.id})
	if !ev.NoSurvivors {
		p.arm(p.engine.limits.SurvivorGrace, survivorGraceOver{})
	}
	p.advance(ctx)
}

func exitReason(ev proc.Exited) wire.Reason {
	if ev.Signal != 0 {
		return wire.ReasonSignaled
	}
	return wire.ReasonExited
}

// treeDead handles the death of the last process. The pipes end when they have been
// read, unless a process of another execution was given one of them.
func (p *process) treeDead(ctx actor.Context, ev proc.Dead) {
	p.dead = &ev
	if !ev.OutOfMemory && ev.Exceeded == "" && !ev.RunnerLost && (p.failed == nil || errors.Is(p.failed, proc.ErrKilled)) {
		p.applyOverride()
	}
	p.engine.metrics.survivors.Add(float64(ev.SurvivorCount))
	p.x.trace.dead(ev.SurvivorCount)
	p.x.transcript.Unblock() // no reader holds up what the dead have left in their pipes
	p.closeInput(ctx)
	p.answerWaiting(ctx)
	if p.reason != "" && p.reason != wire.ReasonExited && p.reason != wire.ReasonSignaled {
		p.engine.metrics.cancelToDead.Observe(time.Since(p.endedAt).Seconds())
	}
	if p.lines[stdout] != nil && p.streams != [2]streamState{streamAtEnd, streamAtEnd} {
		p.arm(p.engine.limits.SurvivorGrace, pipesOverdue{})
	}
	p.advance(ctx)
}

// catchUp asks the readers to report when they have read what is in the pipes now.
func (p *process) catchUp() {
	for i, o := range p.lines {
		if o != nil && p.streams[i] != streamAtEnd {
			p.streams[i] = streamOpen
			o.catchUp()
		}
	}
}

func (p *process) killSurvivors() {
	if !p.survivorsKilled && p.dead == nil {
		p.survivorsKilled = true
		p.x.tree.Sweep()
	}
}

// decide records the cause of the end. Only the first one counts.
func (p *process) decide(r wire.Reason) {
	if p.reason == "" {
		p.reason, p.endedAt = r, time.Now()
	}
}

// applyOverride takes the reason of a session that has stopped, if it has. It is called at an
// end that the session may have caused.
func (p *process) applyOverride() {
	if d := p.x.endOverride.Load(); d != nil && p.reason == "" {
		p.reason, p.endedAt = d.reason, d.at
	}
}

// cancel begins the end of the execution for a reason: SIGTERM to the tree, and SIGKILL after
// the grace, or at once with force. It is idempotent.
func (p *process) cancel(ctx actor.Context, reason wire.Reason, force bool) {
	if p.dead != nil {
		return
	}
	if p.reason == "" {
		p.decide(reason)
		p.x.trace.canceling(reason, p.endedAt)
	}
	switch {
	case force || p.state == wire.StateStarting:
		p.moved(killBegun)
		p.x.tree.Kill()
	case p.state == wire.StateExiting:
		p.killSurvivors()
	case p.moved(cancelBegun):
		p.x.tree.Terminate()
		p.arm(p.engine.limits.CancelGrace, graceOver{})
	default:
		return
	}
	p.answerWaiting(ctx)
	if p.state == wire.StateCanceling {
		ctx.Send(p.session, executionCanceling{execution: p.x.id})
	}
}

// onDrop runs in a reader goroutine, once, when output begins to be lost.
func (p *process) onDrop(reason transcript.DropReason, offset int64) any {
	code := dropWarning(reason)
	text := "the server cannot keep more output (" + reason.String() + "): lines are dropped from here on"
	switch reason {
	case transcript.DropLimit:
		text = "the output limit is reached: lines are dropped from here on"
	case transcript.DropOwner:
		text = "the running executions of this subject have as many bytes of output as they may " +
			"(max-output-per-subject): lines are dropped from here on"
	}
	if reason != transcript.DropLimit {
		p.engine.log.Warn("output is dropped", "session", p.x.session, "execution", p.x.id, "cause", reason.String())
	}
	p.engine.system.Root.Send(p.self, droppingBegan{code: code})
	return &wire.Warning{ExecutionID: p.x.id, Code: code, Message: text, Offset: offset}
}

// arm sets the one timer that sends msg, in place of an earlier one.
func (p *process) arm(d time.Duration, msg any) {
	stopTimer(p.timers[msg])
	p.timers[msg] = p.engine.after(d, p.self, msg)
}

// cleanup runs when the actor stops, also after a panic. The tree and its readers do not
// outlive it, and no request is left without an answer.
func (p *process) cleanup() {
	p.engine.input.give(p.x.subject, 0, p.stdin.bytes) // an answer that still comes finds no actor
	p.x.tree.Kill()
	p.x.transcript.Unblock()
	p.x.transcript.OnDrop(nil) // the transcript lives on, and would keep this actor
	for _, t := range p.timers {
		t.Stop()
	}
	for i, o := range p.lines {
		if o != nil && p.streams[i] != streamAtEnd {
			_ = o.pipe.Close() // it may be held by something outside of the tree
		}
	}
	if p.stdin.pipe != nil {
		_ = p.stdin.pipe.Close()
	}
	for _, msg := range p.pauses {
		p.failRequest(msg)
	}
	for _, msg := range p.stdin.queue {
		p.failRequest(msg)
	}
}

// failRequest fails a pending request after the actor has panicked.
func (p *process) failRequest(msg any) {
	answer := reply{err: wire.Errorf(wire.CodeInternal, "execution %s failed inside the server", p.x.id)}
	var conn *actor.PID
	switch msg := msg.(type) {
	case controlExecution:
		conn, answer.id = msg.conn, msg.id
	case writeInput:
		conn, answer.id = msg.conn, msg.id
	case signalExecution:
		conn, answer.id = msg.conn, msg.id
	default:
		return
	}
	p.engine.system.Root.Send(conn, answer)
}
