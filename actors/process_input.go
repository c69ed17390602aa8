package actors

import (
	"io"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// maxInputs bounds the input requests that wait for one command, together with
// Limits.MaxMessage for their bytes. A client that waits for answers never meets it.
const maxInputs = 16

// input is the stdin of a process: a bounded queue of requests, of which one at
// a time is written by a goroutine of its own, since the command may not read.
type input struct {
	pipe    io.WriteCloser // nil: not asked for
	queue   []writeInput
	bytes   int64
	writing bool
	closed  bool // by the client's eof, or because the command is gone
}

func (p *process) input(ctx actor.Context, msg writeInput) {
	in := &p.stdin
	var err *wire.Error
	switch {
	case in.pipe == nil && !in.closed:
		err = wire.Errorf(wire.CodeInputUnavailable, "execution %s has no stdin: start it with stdin set to true", p.x.id)
	case in.closed:
		err = wire.Errorf(wire.CodeInputUnavailable, "the stdin of execution %s is closed", p.x.id)
	case len(in.queue) >= maxInputs || in.bytes+int64(len(msg.data)) > p.engine.limits.MaxMessage:
		err = wire.Errorf(wire.CodeInputUnavailable,
			"the command has not read %d bytes of earlier input: wait for input to be answered", in.bytes)
		err.Data = &wire.ErrorData{Limit: "max-message", Value: float64(p.engine.limits.MaxMessage), RetryAfterSeconds: 1}
	}
	if err != nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: err})
		return
	}
	in.closed = msg.eof
	in.bytes += int64(len(msg.data))
	in.queue = append(in.queue, msg)
	p.writeNext(ctx)
}

func (p *process) writeNext(ctx actor.Context) {
	in := &p.stdin
	if in.writing || len(in.queue) == 0 {
		return
	}
	in.writing = true
	msg, pipe, root, self := in.queue[0], in.pipe, p.engine.system.Root, ctx.Self()
	go func() {
		var err error
		if len(msg.data) > 0 {
			_, err = pipe.Write(msg.data) // returns when the pipe is closed, at the latest when the tree is dead
		}
		root.Send(self, inputWritten{err: err})
	}()
}

func (p *process) inputWritten(ctx actor.Context, msg inputWritten) {
	in := &p.stdin
	in.writing = false
	defer p.advance(ctx) // the end waits for this answer
	done := in.queue[0]
	in.queue = in.queue[1:]
	in.bytes -= int64(len(done.data))
	if msg.err != nil {
		ctx.Send(done.conn, reply{
			id:  done.id,
			err: wire.Errorf(wire.CodeInputUnavailable, "the command has closed its stdin"),
		})
		p.closeInput(ctx)
		return
	}
	ctx.Send(done.conn, reply{id: done.id, result: struct{}{}})
	if done.eof {
		p.closeInput(ctx)
		return
	}
	p.writeNext(ctx)
}

// closeInput closes the pipe and answers everyone who still waits to write to it.
// inputWritten answers the request that is being written, because it knows whether
// the pipe took it: a command that reads a line and exits has got it, although its
// exit may be reported first. Closing the pipe ends a write that hangs.
func (p *process) closeInput(ctx actor.Context) {
	in := &p.stdin
	in.closed = true
	if in.pipe != nil {
		_ = in.pipe.Close()
		in.pipe = nil
	}
	waiting := in.queue
	in.queue, in.bytes = nil, 0
	if in.writing {
		in.queue, in.bytes = waiting[:1:1], int64(len(waiting[0].data))
		waiting = waiting[1:]
	}
	for _, msg := range waiting {
		ctx.Send(msg.conn, reply{
			id:  msg.id,
			err: wire.Errorf(wire.CodeInputUnavailable, "the stdin of execution %s is closed", p.x.id),
		})
	}
}
