package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is about the connections that share a terminal. One of them leads: the one that typed
// last, before that the one that started it, and after the leader has gone the next that comes or
// types. The terminal has the leader's size, and is read as far as the leader's window goes, so that
// what is typed is not answered behind megabytes of output. The others skip what they are too slow
// for. Without a leader, or if it has no window, the terminal is read as fast as the command writes.
//
// execution.reader is the leader.

// terminalTyped makes a connection the leader of a terminal that has taken what it typed.
func (s *session) terminalTyped(ctx actor.Context, msg terminalTyped) {
	c, x := s.conns[msg.conn.Id], s.executions[msg.execution]
	if c == nil || x == nil || x.reader == c.pid.Id {
		return
	}
	x.reader = c.pid.Id
	s.lead(ctx, c, x)
}

// lead gives a terminal the pace and the size of its leader.
func (s *session) lead(ctx actor.Context, c *attachedConn, x *execution) {
	if x.size == nil {
		return
	}
	x.pace(c)
	if size, known := c.sizes[x.id]; known {
		x.resize(ctx, size)
	}
}

// pace lets the command run ahead of its leader c by the window of c.
func (x *execution) pace(c *attachedConn) {
	if x.size == nil {
		return
	}
	if f := c.follows[x.id]; f != nil {
		x.transcript.Pace(f.offset, f.window)
	} else {
		x.transcript.Pace(0, 0)
	}
}

// resize notes the size of a connection's view, and gives it to the terminal if the connection leads.
func (s *session) resize(ctx actor.Context, c *attachedConn, msg request, p *wire.ResizeParams) {
	x := s.liveExecution(ctx, msg, p.ExecutionID, wire.CodeNoProcess)
	if x == nil {
		return
	}
	if x.size == nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: wire.Errorf(wire.CodeInvalidParams,
			"execution %s has no terminal: start it with terminal", x.id)})
		return
	}
	if c.sizes == nil {
		c.sizes = make(map[string]proc.Size, 1)
	}
	size := proc.Size{Cols: p.Cols, Rows: p.Rows}
	c.sizes[x.id] = size
	if x.reader == c.pid.Id || x.reader == "" {
		x.resize(ctx, size)
	}
	ctx.Send(msg.conn, reply{id: msg.id, result: struct{}{}})
}

// resize gives the terminal a size.
func (x *execution) resize(ctx actor.Context, size proc.Size) {
	if x.size.Cols == size.Cols && x.size.Rows == size.Rows || x.pid == nil {
		return
	}
	x.size = &wire.Terminal{Cols: size.Cols, Rows: size.Rows, Term: x.size.Term}
	ctx.Send(x.pid, resizeTerminal{size: size})
}

// resize is the process's part: the programs learn of the new size from the kernel, and readers of
// the output from a mark.
func (p *process) resize(size proc.Size) {
	if p.lines[stdout] == nil || p.lines[stdout].pipe.Resize(size) != nil {
		return // nothing of it runs
	}
	p.x.transcript.Restate(p.resized(size))
}

func (p *process) resized(size proc.Size) *wire.Resized {
	return &wire.Resized{ExecutionID: p.x.id, Cols: size.Cols, Rows: size.Rows}
}
