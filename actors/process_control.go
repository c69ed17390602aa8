package actors

import (
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/wire"
)

// control serves PAUSE, RESUME and CANCEL. What each does in each state:
//
//	            starting       running   paused    canceling  exiting   kept
//	PAUSE       when running   pause     ok        refused    refused   refused
//	RESUME      forget PAUSE   continue  resume    refused    refused   refused
//	CANCEL      kill           cancel    cancel    ok         sweep     cancel
//
// "ok" is answered like the request that made it so, and changes nothing.
// PAUSE is answered when the tree stands still. RESUME of a tree that was not paused continues what
// stopped by itself, with SIGSTOP or as a background job that touched the terminal.
func (p *process) control(ctx actor.Context, msg controlExecution) {
	switch msg.typ {
	case wire.ControlPause:
		p.pause(ctx, msg)
	case wire.ControlResume:
		p.resume(ctx, msg)
	case wire.ControlCancel:
		p.answer(ctx, msg, "canceled")
		p.cancel(ctx, wire.ReasonCanceled, false)
	default:
		ctx.Send(msg.conn, reply{
			id:  msg.id,
			err: wire.Errorf(wire.CodeInvalidParams, "unknown control type %q: use PAUSE, RESUME or CANCEL", msg.typ),
		})
	}
}

func (p *process) pause(ctx actor.Context, msg controlExecution) {
	switch p.state {
	case wire.StatePaused:
		p.answer(ctx, msg, "paused")
	case wire.StateStarting, wire.StateRunning:
		p.pauses = append(p.pauses, msg)
		if len(p.pauses) == 1 && p.state == wire.StateRunning {
			p.pauseTree()
		}
	default:
		p.refuse(ctx, msg)
	}
}

func (p *process) pauseTree() {
	p.pausesInFlight++
	p.x.tree.Pause()
}

func (p *process) paused(ctx actor.Context) {
	p.pausesInFlight--
	if p.pausesInFlight > 0 || len(p.pauses) == 0 || !p.moved(treePaused) {
		return // it was resumed or cancelled meanwhile
	}
	p.watch.pause(time.Now())
	p.x.trace.event("paused")
	for _, msg := range p.pauses {
		p.answer(ctx, msg, "paused")
	}
	p.pauses = nil
	ctx.Send(p.session, executionPaused{execution: p.x.id})
}

func (p *process) resume(ctx actor.Context, msg controlExecution) {
	switch p.state {
	case wire.StatePaused:
		p.moved(treeResumed)
		p.x.tree.Resume()
		// What was read during the pause had been written before it.
		silent := max(0, p.silence(p.watch.stopped))
		p.silentSince = time.Now().Add(-silent)
		p.watch.resume(time.Now())
		p.x.trace.event("resumed")
		p.answer(ctx, msg, "resumed")
		ctx.Send(p.session, executionResumed{execution: p.x.id})
		p.silenceCheck(ctx)
		p.deadlineCheck(ctx)
	case wire.StateStarting, wire.StateRunning:
		if p.state == wire.StateRunning {
			p.x.tree.Resume()
		}
		if len(p.pauses) > 0 {
			for _, waiting := range p.pauses {
				p.answer(ctx, waiting, "paused") // and resumed at once
			}
			p.pauses = nil
		}
		p.answer(ctx, msg, "resumed")
	default:
		p.refuse(ctx, msg)
	}
}

func (p *process) answer(ctx actor.Context, msg controlExecution, status string) {
	ctx.Send(msg.conn, reply{id: msg.id, result: &wire.ControlResult{Status: status, ExecutionID: p.x.id}})
}

func (p *process) refuse(ctx actor.Context, msg controlExecution) {
	what := "is being canceled"
	if p.exited != nil || p.dead != nil {
		what = "has exited"
	}
	ctx.Send(msg.conn, reply{
		id:  msg.id,
		err: wire.Errorf(wire.CodeNoProcess, "execution %s %s: it cannot be paused or resumed", p.x.id, what),
	})
}

// answerWaiting refuses the PAUSE requests that the end has overtaken.
func (p *process) answerWaiting(ctx actor.Context) {
	for _, msg := range p.pauses {
		p.refuse(ctx, msg)
	}
	p.pauses = nil
}

// signal serves the signal request. KILL is for the whole tree: to kill only the
// leader would leave its children without anyone to ask.
func (p *process) signal(ctx actor.Context, msg signalExecution) {
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(msg.signal, "SIG"))
	switch {
	case sig == 0:
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(wire.CodeInvalidParams, "unknown signal %q", msg.signal)})
		return
	case p.dead != nil:
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(wire.CodeNoProcess, "execution %s has ended", p.x.id)})
		return
	case sig == unix.SIGKILL:
		p.cancel(ctx, wire.ReasonCanceled, true)
	case p.started.IsZero() || p.exited != nil:
		ctx.Send(msg.conn, reply{
			id:  msg.id,
			err: wire.Errorf(wire.CodeNoProcess, "the command of execution %s is not running", p.x.id),
		})
		return
	default:
		p.x.tree.Signal(sig)
		if endsProcess(sig) && p.state == wire.StateRunning && len(p.pauses) == 0 {
			p.x.tree.Resume()
		}
	}
	ctx.Send(msg.conn, reply{id: msg.id, result: struct{}{}})
}

// endsProcess reports whether sig asks a program to end. A process that has stopped by itself does
// not see such a signal before it is continued; shells continue their stopped jobs for it too. What
// a PAUSE has stopped stays so until RESUME.
func endsProcess(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT:
		return true
	}
	return false
}

// silenceCheck ends an execution that has been silent for the stream timeout of
// running time, or looks again when it could have been.
func (p *process) silenceCheck(ctx actor.Context) {
	if p.state != wire.StateRunning {
		return // resume looks again
	}
	if _, blocked := p.x.transcript.Blocked(); blocked {
		p.silentSince = time.Now() // it waits for its reader
	}
	silent := p.silence(time.Now())
	if silent >= p.plan.streamTimeout {
		p.cancel(ctx, wire.ReasonStreamTimeout, false)
		return
	}
	p.arm(p.plan.streamTimeout-silent, silenceCheck{})
}

// silence returns the time since the last byte. Pauses do not count: they move silentSince.
func (p *process) silence(now time.Time) time.Duration {
	since := p.silentSince
	if last := p.lastByte.Load(); last > 0 {
		if at := p.x.requested.Add(time.Duration(last - 1)); at.After(since) {
			since = at
		}
	}
	return now.Sub(since)
}

func (p *process) deadlineCheck(ctx actor.Context) {
	if p.plan.maxDuration == 0 || p.state != wire.StateRunning {
		return
	}
	left := p.plan.maxDuration - p.watch.elapsed(time.Now())
	if left <= 0 {
		p.cancel(ctx, wire.ReasonDeadline, false)
		return
	}
	p.arm(left, deadlineCheck{})
}
