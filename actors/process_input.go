package actors

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	// MaxInputs bounds the input requests that wait for one command, together with
	// Limits.MaxMessage for their bytes. The gateway reads no more from a client that
	// does not wait for answers, so few clients meet it.
	MaxInputs = 64
	// InputReserve is how many bytes of input may always wait for one command.
	InputReserve = 8 << 10
	// MaxInputBytes bounds what waits beyond that, of all executions, or else four messages
	// of the largest size. One subject may hold half of it.
	MaxInputBytes = 4 << 20
)

// inputBudget is MaxInputBytes. One request may take half of what is left for its subject,
// so that there is always room for a small one.
type inputBudget struct {
	mu      sync.Mutex
	limit   int64
	held    map[string]int64 // by subject
	total   int64
	refused prometheus.Counter
}

// beyondReserve is the part of n waiting bytes that counts.
func beyondReserve(n int64) int64 { return max(n-InputReserve, 0) }

// take counts n bytes that join waiting bytes of an execution, or refuses them.
func (b *inputBudget) take(subject string, waiting, n int64) bool {
	n = beyondReserve(waiting+n) - beyondReserve(waiting)
	if n == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	left := min(b.limit/2-b.held[subject], b.limit-b.total)
	if n > left/2 {
		b.refused.Inc()
		return false
	}
	if b.held == nil {
		b.held = make(map[string]int64)
	}
	b.held[subject] += n
	b.total += n
	return true
}

// give counts out n bytes, after which left bytes of the execution wait.
func (b *inputBudget) give(subject string, left, n int64) {
	n = beyondReserve(left+n) - beyondReserve(left)
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total -= n
	if b.held[subject] -= n; b.held[subject] == 0 {
		delete(b.held, subject)
	}
}

// bytes is how much is held.
func (b *inputBudget) bytes() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return float64(b.total)
}

// input is the stdin of a process: a bounded queue of requests, of which one at
// a time is written by a goroutine of its own, since the command may not read.
type input struct {
	pipe    io.WriteCloser // nil: not asked for
	queue   []writeInput
	bytes   int64
	writing bool
	closed  bool // by the client's eof, or because the command is gone
	eof     bool // by the client's eof

	typed   map[string]int64 // into a terminal, by writer
	writers []string         // of typed, the one that typed last at the end
}

// maxWriters bounds the writers whose offsets a terminal remembers. Those that have not typed for
// longest are forgotten; if one comes back, its input is refused.
const maxWriters = 8

// note counts n bytes that a writer has typed.
func (in *input) note(writer string, n int) {
	if in.typed == nil {
		in.typed = make(map[string]int64, 1)
	}
	if i := slices.Index(in.writers, writer); i >= 0 {
		in.writers = slices.Delete(in.writers, i, i+1)
	} else if len(in.writers) == maxWriters {
		delete(in.typed, in.writers[0])
		in.writers = slices.Delete(in.writers, 0, 1)
	}
	in.writers = append(in.writers, writer)
	in.typed[writer] += int64(n)
}

// place finds what of an input is new, by its offset. It reports whether nothing is, because an earlier
// connection of the client has sent it all.
func (p *process) place(msg *writeInput) (known bool, err *wire.Error) {
	if msg.offset == nil {
		return false, nil
	}
	taken := p.x.inputTaken.Load()
	if msg.writer != "" {
		taken = p.stdin.typed[msg.writer]
	}
	if *msg.offset > taken {
		return false, wire.Errorf(wire.CodeInvalidParams,
			"offset %d leaves a gap: the next input of execution %s begins at %d", *msg.offset, p.x.id, taken)
	}
	if known := min(taken-*msg.offset, int64(len(msg.data))); known > 0 {
		msg.data = bytes.Clone(msg.data[known:]) // the budget counts what is new, and the rest is not kept
	}
	return len(msg.data) == 0 && (p.stdin.eof || !msg.eof), nil
}

func (p *process) input(ctx actor.Context, msg writeInput) {
	in := &p.stdin
	known, err := p.place(&msg)
	switch {
	case msg.writer != "" && p.plan.terminal == nil:
		err = wire.Errorf(wire.CodeInvalidParams, "writer needs a terminal, and execution %s has none", p.x.id)
	case in.pipe == nil && !in.closed:
		err = wire.Errorf(wire.CodeInputUnavailable, "execution %s has no stdin: start it with stdin set to true", p.x.id)
	case known && len(in.queue) == 0:
		ctx.Send(msg.conn, reply{id: msg.id, result: struct{}{}})
		return
	case known:
		msg.eof = false // behind what it repeats, so that its answer comes when that is in the pipe
	case msg.eof && p.plan.terminal != nil:
		err = wire.Errorf(wire.CodeInvalidParams,
			"execution %s has a terminal, whose input has no end: send the end-of-file character, Ctrl-D", p.x.id)
	case in.closed:
		err = wire.Errorf(wire.CodeInputUnavailable, "the stdin of execution %s is closed", p.x.id)
	}
	if err == nil {
		err = p.room(&msg)
	}
	if err != nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: err})
		return
	}
	if p.plan.terminal != nil {
		p.silentSince = time.Now() // somebody is there
		if len(msg.data) > 0 {
			ctx.Send(p.session, terminalTyped{execution: p.x.id, conn: msg.conn})
		}
	}
	in.closed, in.eof = in.closed || msg.eof, in.eof || msg.eof
	in.bytes += int64(len(msg.data))
	p.x.inputTaken.Add(int64(len(msg.data)))
	if msg.writer != "" {
		in.note(msg.writer, len(msg.data))
	}
	in.queue = append(in.queue, msg)
	p.writeNext(ctx)
}

// room takes from the budgets what an input needs, or refuses it.
func (p *process) room(msg *writeInput) *wire.Error {
	in := &p.stdin
	if len(in.queue) < MaxInputs && in.bytes+int64(len(msg.data)) <= p.engine.limits.MaxMessage &&
		p.engine.input.take(p.x.subject, in.bytes, int64(len(msg.data))) {
		return nil
	}
	err := wire.Errorf(wire.CodeSessionLimit,
		"the command has not read %d bytes of earlier input: wait for input to be answered, and send less at a time",
		in.bytes)
	err.Data = &wire.ErrorData{Limit: "input", Value: InputReserve, RetryAfterSeconds: 1}
	return err
}

func (p *process) writeNext(ctx actor.Context) {
	in := &p.stdin
	if in.writing || len(in.queue) == 0 {
		return
	}
	in.writing = true
	msg, pipe, root, self := in.queue[0], in.pipe, p.engine.system.Root, ctx.Self()
	go func() {
		var n int
		var err error
		if len(msg.data) > 0 {
			n, err = pipe.Write(msg.data) // returns when the pipe is closed, at the latest when the tree is dead
		}
		root.Send(self, inputWritten{written: n, err: err})
	}()
}

func (p *process) inputWritten(ctx actor.Context, msg inputWritten) {
	in := &p.stdin
	in.writing = false
	defer p.advance(ctx) // the end waits for this answer
	done := in.queue[0]
	in.queue = in.queue[1:]
	in.bytes -= int64(len(done.data))
	p.engine.input.give(p.x.subject, in.bytes, int64(len(done.data)))
	if msg.err != nil {
		p.untake(done, len(done.data)-msg.written)
		ctx.Send(done.conn, reply{
			id:  done.id,
			err: wire.Errorf(wire.CodeInputUnavailable, "the command has closed its stdin"),
		})
		p.closeInput(ctx)
		return
	}
	ctx.Send(done.conn, reply{id: done.id, result: struct{}{}})
	if done.eof {
		for _, repeated := range in.queue { // nothing else comes behind the end
			ctx.Send(repeated.conn, reply{id: repeated.id, result: struct{}{}})
		}
		in.queue = nil
		p.closeInput(ctx)
		return
	}
	p.writeNext(ctx)
}

// untake counts out the last n bytes of an input, which nothing has read: its client may send them again.
func (p *process) untake(msg writeInput, n int) {
	p.x.inputTaken.Add(-int64(n))
	if _, known := p.stdin.typed[msg.writer]; known {
		p.stdin.typed[msg.writer] -= int64(n)
	}
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
	waiting, before := in.queue, in.bytes
	in.queue, in.bytes = nil, 0
	if in.writing {
		in.queue, in.bytes = waiting[:1:1], int64(len(waiting[0].data))
		waiting = waiting[1:]
	}
	p.engine.input.give(p.x.subject, in.bytes, before-in.bytes)
	for _, msg := range waiting {
		p.untake(msg, len(msg.data))
		ctx.Send(msg.conn, reply{
			id:  msg.id,
			err: wire.Errorf(wire.CodeInputUnavailable, "the stdin of execution %s is closed", p.x.id),
		})
	}
}
