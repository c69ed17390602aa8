package actors

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// complete reports the end: nothing of the execution lives and its output is in
// the transcript to the last byte. The session stops the actor in answer.
func (p *process) complete(ctx actor.Context) {
	if !p.moved(allReported) {
		return
	}
	p.closeInput(ctx)
	if p.reported == nil {
		p.report(false)
		ctx.Send(p.session, executionCompleted{execution: p.x.id, completed: p.reported})
		return
	}
	p.x.transcript.Seal()
	ctx.Send(p.session, survivorsDead{execution: p.x.id})
}

// completeKept reports the end of a command whose survivors stay.
func (p *process) completeKept(ctx actor.Context) {
	p.report(true)
	ctx.Send(p.session, executionCompleted{execution: p.x.id, completed: p.reported, kept: true})
}

// report puts process.completed into the transcript, behind the last byte.
func (p *process) report(kept bool) {
	p.reported = p.completion(kept)
	if !kept {
		p.x.release(p.engine)
	}
	p.x.transcript.Mark(p.reported)
	if !kept {
		p.x.transcript.Seal()
	}
	// Mark has woken the writers of the connections. They go first: the bookkeeping below costs as
	// much as sending the end of a short command. Without this, `troupe-load -only websocketd` takes
	// 3 to 6 % longer.
	runtime.Gosched()
	p.engine.recordEnd(p.x, p.started, p.reported)
}

func (p *process) completion(kept bool) *wire.Completed {
	c := &wire.Completed{ExecutionID: p.x.id, PID: p.pid, PGID: p.pid}
	p.x.count(c)
	if !p.started.IsZero() {
		c.ExecutionTime = time.Since(p.started).Seconds()
	}
	p.exitStatus(c)
	c.Reason = p.finalReason()
	c.Error = p.endError(c)
	switch {
	case c.Reason == wire.ReasonCanceled:
		c.Status = wire.StatusCanceled
	case c.Reason == wire.ReasonExited && c.ExitCode == 0:
		c.Status = wire.StatusCompleted
	default:
		c.Status = wire.StatusFailed
	}
	p.addUsage(c, kept)
	return c
}

// exitStatus fills in how the command ended. A command without a status was
// killed with its init or its runner.
func (p *process) exitStatus(c *wire.Completed) {
	switch {
	case p.failed != nil && p.reason == "":
		c.ExitCode = 126
		if start := (*proc.StartError)(nil); errors.As(p.failed, &start) {
			c.ExitCode = start.ExitCode()
		}
	case p.exited == nil:
		c.ExitCode, c.Signal = -int(unix.SIGKILL), "SIGKILL"
	case p.exited.Signal != 0:
		c.ExitCode, c.Signal = -int(p.exited.Signal), signalName(p.exited.Signal)
	default:
		c.ExitCode = p.exited.Code
	}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(s)) // real-time signals have no names of their own
}

// finalReason is the first cause, unless the runner knows a truer one.
func (p *process) finalReason() wire.Reason {
	natural := p.reason == "" || p.reason == wire.ReasonExited || p.reason == wire.ReasonSignaled
	switch {
	case p.reason == "" && p.dead != nil && p.dead.RunnerLost:
		return wire.ReasonRunnerLost
	case p.failed != nil && p.reason == "":
		return wire.ReasonStartFailed
	case natural && p.dead != nil && p.dead.Exceeded != "":
		return exceededReason(p.dead.Exceeded)
	case natural && (p.dead != nil && p.dead.OutOfMemory || p.exited != nil && p.exited.OutOfMemory):
		return wire.ReasonOutOfMemory
	case p.reason == "":
		return wire.ReasonSignaled // it killed its own init, and was killed for it
	default:
		return p.reason
	}
}

func (p *process) endError(c *wire.Completed) *wire.Error {
	switch c.Reason {
	case wire.ReasonStartFailed:
		err := wire.Errorf(wire.CodeStartFailed, "%s", shorten(p.failed.Error()))
		err.Data = &wire.ErrorData{ExitCode: c.ExitCode}
		return err
	case wire.ReasonStreamTimeout:
		err := wire.Errorf(wire.CodeStreamTimeout, "the command was silent for %v", p.plan.streamTimeout)
		err.Data = &wire.ErrorData{Limit: "stream-timeout", Value: p.plan.streamTimeout.Seconds()}
		return err
	case wire.ReasonOutOfMemory, wire.ReasonProcessLimit, wire.ReasonDiskLimit:
		if p.dead == nil || p.dead.Exceeded == "" {
			return nil
		}
		return p.exceededError(p.dead.Exceeded)
	case wire.ReasonInternal:
		return failedInside()
	case wire.ReasonRunnerLost:
		return wire.Errorf(wire.CodeInternal, "the runner died, and the command with it")
	default:
		return nil
	}
}

// maxErrorText bounds the text of an error, which quotes argv[0]. A session keeps it for as long as
// it remembers the execution, and Completed travels between pods as one piece of output, which must
// not exceed a link's credit: it may be six times as long in JSON.
const maxErrorText = 256

// shorten leaves the middle out of a text that is too long.
func shorten(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	half := maxErrorText / 2
	return strings.ToValidUTF8(text[:half], "") + "…" + strings.ToValidUTF8(text[len(text)-half:], "")
}

// addUsage adds the survivors and what the tree used.
func (p *process) addUsage(c *wire.Completed, kept bool) {
	switch {
	case kept: // also if none is left by now: what is kept may end at any time
		c.Survivors = &wire.Survivors{Kept: true, Count: p.exited.SurvivorCount, Commands: p.exited.Survivors}
	case p.dead != nil && p.dead.SurvivorCount > 0:
		c.Survivors = &wire.Survivors{Count: p.dead.SurvivorCount, Commands: p.dead.Survivors}
	}
	if c.Survivors != nil && c.Survivors.Commands == nil {
		c.Survivors.Commands = []string{} // an array on the wire, not null
	}
	if p.dead != nil && p.dead.Usage != (proc.Usage{}) {
		u := p.dead.Usage
		c.Usage = &wire.Usage{UserSeconds: u.User.Seconds(), SystemSeconds: u.System.Seconds(), MaxRSSBytes: u.MaxRSS}
	}
}
