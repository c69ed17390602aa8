package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is how a session knows what its clients have received: output counts as delivered when
// a client has acknowledged it. The gateway does so for a client that follows without a window, once
// it has written the end.

// attachedConn is a connection and the executions it follows.
type attachedConn struct {
	pid     *actor.PID
	follows map[string]*following
	since   time.Time            // of the last that it began to follow
	sizes   map[string]proc.Size // of its views of terminals, as far as it has said; nil: none
}

// following is how far a connection has acknowledged an execution that it follows.
type following struct {
	progress
	window int64 // of output that may be on its way; 0: any amount
}

// progress is how far an execution was acknowledged.
type progress struct {
	offset    int64
	completed bool // process.completed too
}

// hasAll reports whether p covers an execution to its end. The end of one with kept survivors is
// their death: they may write after process.completed.
func (p *progress) hasAll(x *execution) bool {
	return x.dead && p.completed && p.offset >= x.transcript.End()
}

// follow streams an execution's output to the connection from an offset on, in place of what it
// followed of it before.
func (c *attachedConn) follow(ctx actor.Context, x *execution, after, window int64) {
	c.follows[x.id], c.since = &following{progress{offset: after}, window}, time.Now()
	x.read = progress{} // if it was this client's, it has lost what it had
	x.readBy(c)
	if x.reader == c.pid.Id {
		x.transcript.Ack(after)
		x.pace(c)
	}
	ctx.Send(c.pid, follow{feed: x.feed(after, window)})
}

// ack records what a client has processed. A connection that does not follow the execution may say
// what an earlier one has received.
func (s *session) ack(ctx actor.Context, c *attachedConn, id wire.ID, p *wire.AckParams) {
	answer := reply{id: id, result: struct{}{}}
	switch x := s.executions[p.ExecutionID]; {
	case x == nil:
		answer.result, answer.err = nil, wire.Errorf(wire.CodeNoProcess, "this session has no execution %q", p.ExecutionID)
	case p.Offset > x.transcript.End():
		answer.result, answer.err = nil, wire.Errorf(wire.CodeInvalidParams,
			"offset %d is beyond %d, the end of the output of execution %s", p.Offset, x.transcript.End(), x.id)
	default:
		s.acknowledged(c, x, progress{offset: p.Offset, completed: p.Completed})
	}
	if len(id) > 0 {
		ctx.Send(c.pid, answer)
	}
}

func (s *session) acknowledged(c *attachedConn, x *execution, p progress) {
	if f := c.follows[x.id]; f == nil {
		x.read.add(p)
	} else {
		f.add(p)
		if x.plan.retain == transcript.Unread {
			x.readBy(c)
		}
	}
	if x.reader == c.pid.Id {
		x.transcript.Ack(p.offset)
	}
	if s.phase == delivering {
		s.setCloseTimer(s.options.ResumeWindow)
	}
}

func (p *progress) add(q progress) {
	p.offset, p.completed = max(p.offset, q.offset), p.completed || q.completed
}

// leave keeps what a connection that is gone had acknowledged.
func (s *session) leave(ctx actor.Context, c *attachedConn) {
	for id, x := range s.executions {
		if f := c.follows[id]; f != nil {
			x.read.add(f.progress)
		}
		if x.reader == c.pid.Id {
			s.readerLeft(ctx, x)
		}
	}
}

// unread reports whether an execution has output that no client has acknowledged to its end.
func (s *session) unread() bool {
	for _, x := range s.executions {
		if read, _ := s.delivered(x); !read {
			return true
		}
	}
	return false
}

// awaitsClients reports whether an attached connection follows what it has not acknowledged to its
// end.
func (s *session) awaitsClients() bool {
	for _, x := range s.executions {
		if _, awaited := s.delivered(x); awaited {
			return true
		}
	}
	return false
}

// delivered reports whether some client has acknowledged all of an execution, and whether one that is
// attached and follows it has not.
func (s *session) delivered(x *execution) (read, awaited bool) {
	read = x.read.hasAll(x)
	for _, c := range s.conns {
		if f := c.follows[x.id]; f != nil {
			all := f.hasAll(x)
			read, awaited = read || all, awaited || !all
		}
	}
	return read, awaited
}

// oldestDelivered returns the index in finished of the execution to be forgotten: the oldest of
// those that no client waits for, or the oldest of all.
func (s *session) oldestDelivered() int {
	for i, id := range s.finished {
		if read, awaited := s.delivered(s.executions[id]); read && !awaited {
			return i
		}
	}
	return 0
}
