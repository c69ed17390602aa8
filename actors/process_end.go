package actors

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// finish reports the end: nothing of the execution lives and its output is in
// the transcript to the last byte. The session stops the actor in answer.
func (p *process) finish(ctx actor.Context) {
	if p.done {
		return
	}
	p.done = true
	p.state = wire.StateExited
	p.closeInput(ctx)
	if p.reported == nil {
		p.report(ctx, false)
		p.x.transcript.Seal()
		ctx.Send(p.session, executionCompleted{execution: p.x.id, completed: p.reported})
		return
	}
	p.x.transcript.Seal()
	ctx.Send(p.session, executionGone{execution: p.x.id})
}

// completeKept reports the end of a command whose survivors stay.
func (p *process) completeKept(ctx actor.Context) {
	p.report(ctx, true)
	ctx.Send(p.session, executionCompleted{execution: p.x.id, completed: p.reported, kept: true})
}

// report puts process.completed into the transcript, behind the last byte, and
// accounts for the execution.
func (p *process) report(_ actor.Context, kept bool) {
	c := p.completion(kept)
	p.reported = c
	p.x.transcript.Mark(c)

	m := p.engine.metrics
	m.executions.WithLabelValues(string(c.Reason)).Inc()
	m.duration.Observe(c.ExecutionTime)
	m.outputBytes.Add(float64(c.OutputBytes))
	m.droppedLines.Add(float64(c.DroppedLines))
	m.droppedBytes.Add(float64(c.DroppedBytes))
	m.truncated.Add(float64(c.TruncatedLines))
	if c.Survivors != nil && !kept {
		m.survivors.Add(float64(c.Survivors.Count))
	}
	p.engine.log.Info("execution completed", "session", p.sid, "execution", p.x.id, "subject", p.subject,
		"reason", string(c.Reason), "exit_code", c.ExitCode, "seconds", c.ExecutionTime)
	if p.engine.audit != nil {
		p.engine.audit(AuditRecord{
			Time: time.Now(), Subject: p.subject, Session: p.sid, Execution: p.x.id,
			Argv: p.plan.spec.Argv, Cwd: p.plan.spec.Dir, Started: p.started, Completed: c,
		})
	}
}

func (p *process) completion(kept bool) *wire.Completed {
	counts := p.x.transcript.Counts()
	c := &wire.Completed{
		ExecutionID: p.x.id, PID: p.pid, PGID: p.pid,
		OutputBytes: counts.OutputBytes, DroppedLines: counts.DroppedLines, DroppedBytes: counts.DroppedBytes,
		TruncatedLines: counts.TruncatedLines, TruncatedBytes: counts.TruncatedBytes,
	}
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
	p.account(c, kept)
	return c
}

// exitStatus fills in how the command ended. One whose status nobody could
// collect was killed with its init or its runner.
func (p *process) exitStatus(c *wire.Completed) {
	switch {
	case p.failed != nil:
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
	case p.failed != nil && p.reason == "":
		return wire.ReasonStartFailed
	case natural && p.dead != nil && p.dead.OutOfMemory:
		return wire.ReasonOutOfMemory
	case p.reason == "" && p.dead != nil && p.dead.RunnerLost:
		return wire.ReasonRunnerLost
	case p.reason == "":
		return wire.ReasonSignaled // it killed its own init, and was killed for it
	default:
		return p.reason
	}
}

func (p *process) endError(c *wire.Completed) *wire.Error {
	switch c.Reason {
	case wire.ReasonStartFailed:
		err := wire.Errorf(wire.CodeStartFailed, "%v", p.failed)
		err.Data = &wire.ErrorData{ExitCode: c.ExitCode}
		return err
	case wire.ReasonStreamTimeout:
		err := wire.Errorf(wire.CodeStreamTimeout, "the command was silent for %v", p.plan.streamTimeout)
		err.Data = &wire.ErrorData{Limit: "stream-timeout", Value: p.plan.streamTimeout.Seconds()}
		return err
	case wire.ReasonRunnerLost:
		return wire.Errorf(wire.CodeInternal, "the runner died, and the command with it")
	default:
		return nil
	}
}

// account adds the survivors and what the tree used.
func (p *process) account(c *wire.Completed, kept bool) {
	var names []string
	var count int
	switch {
	case kept:
		names, count = p.exited.Survivors, p.exited.SurvivorCount
	case p.dead != nil:
		names, count = p.dead.Survivors, p.dead.SurvivorCount
	}
	if count > 0 {
		c.Survivors = &wire.Survivors{Count: count, Commands: names}
	}
	if p.dead != nil && p.dead.Usage != (proc.Usage{}) {
		u := p.dead.Usage
		c.Usage = &wire.Usage{UserSeconds: u.User.Seconds(), SystemSeconds: u.System.Seconds(), MaxRSSBytes: u.MaxRSS}
	}
}
