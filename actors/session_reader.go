package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is about the reader of an execution that retains what is unread. Such an execution waits
// for its reader as a command waits behind a pipe. The reader is the connection that started it and,
// once that is gone, the next that follows it. Other connections may follow, and hold nothing up.

// readBy makes c the reader, if there is none.
func (x *execution) readBy(c *attachedConn) {
	if x.reader == "" {
		stopTimer(x.readerTimer)
		x.reader, x.readerLost = c.pid.Id, time.Time{}
	}
}

// readerLeft makes the newest connection that has acknowledged as much of x as the reader its next
// reader: a client may be back, through another pod, before the end of its old connection is known.
// If there is none it starts the time for one to come. The command would wait forever.
func (s *session) readerLeft(ctx actor.Context, x *execution) {
	left := x.reader
	x.reader = ""
	x.transcript.Pace(0, 0)
	var next *attachedConn
	for id, c := range s.conns {
		f := c.follows[x.id]
		if id == left || f == nil || f.offset == 0 || f.offset < x.read.offset {
			continue
		}
		if next == nil || c.since.After(next.since) {
			next = c
		}
	}
	if next != nil {
		x.readBy(next)
		x.transcript.Ack(next.follows[x.id].offset)
		s.lead(ctx, next, x)
		return
	}
	if x.plan.retain == transcript.Unread && !x.dead {
		x.readerLost = time.Now()
		x.readerTimer = s.engine.after(s.options.ResumeWindow, s.self,
			readerGone{execution: x.id, since: x.readerLost})
	}
}

// readerGone ends an execution that no reader has come to.
func (s *session) readerGone(ctx actor.Context, msg readerGone) {
	x := s.executions[msg.execution]
	if x != nil && x.pid != nil && x.readerLost.Equal(msg.since) {
		ctx.Send(x.pid, cancelExecution{reason: wire.ReasonReaderGone})
	}
}

// endReason is the reason for which an execution ends with its session. One that waits for a reader
// ends because none came, whether its own time has passed first or the session's.
func (s *session) endReason(x *execution) wire.Reason {
	if s.cause == causeExpired && x.plan.retain == transcript.Unread {
		return wire.ReasonReaderGone
	}
	return s.reason
}
