package troupe

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"io"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors/wire"
)

// inputChunk is how much one request carries. It is a pipe's usual capacity, so that the answer
// comes when the command reads, and is far below the server's max-message.
const inputChunk = 64 << 10

// input is what a call carries to the stdin of an execution: as a binary message on a connection
// that has a stream for the execution, and as JSON on any other.
type input struct {
	execution string
	writer    string // of a terminal; "": none
	offset    int64  // position in stdin of the first byte of data
	data      []byte
	eof       bool
}

// end is the position in stdin after the input.
func (in *input) end() int64 { return in.offset + int64(len(in.data)) }

// message returns the input as a message, a copy of data. Stream 0 is none.
func (in *input) message(id wire.ID, stream uint16) (websocket.MessageType, []byte) {
	if stream != 0 && in.writer == "" {
		f := &wire.InputFrame{Stream: stream, EOF: in.eof, Offset: in.offset, Payload: in.data}
		frame := make([]byte, 0, wire.InputHeader+len(in.data))
		return websocket.MessageBinary, wire.AppendInputFrame(frame, f)
	}
	// It cannot fail: execute has checked the id, and the rest is ASCII.
	frame, _ := wire.AppendRequest(nil, id, wire.MethodInput, wire.InputParams{
		ExecutionID: in.execution, Data: base64.StdEncoding.EncodeToString(in.data), Encoding: wire.EncodingBase64,
		EOF: in.eof, Offset: &in.offset, Writer: in.writer,
	})
	return websocket.MessageText, frame
}

// Input writes p to the stdin of an execution that was started with Stdin. It
// returns once p is in the command's pipe, which paces a writer.
//
// The command gets every byte once and in order, whatever happens to the connection meanwhile. If
// ctx ends, the *InputError says how many bytes are in doubt: those may arrive later, still before
// the next Input. A *wire.Error with code -32009 or -32003 means that no process reads stdin
// anymore. ErrInputConflict means that another client writes to the same stdin.
//
// A server without the capability input_offset cannot recognize repeated input. With one, a
// connection that ends before the answer leaves bytes in doubt, and the *InputError wraps
// ErrUnknownOutcome.
//
// Several clients may type into a terminal: there is no ErrInputConflict.
//
// Concurrent calls interleave their chunks of 64 KiB.
func (e *Execution) Input(ctx context.Context, p []byte) (int, error) {
	size := inputChunk
	if limit := e.c.Limits().MaxMessage; limit > 0 {
		size = min(size, int(limit/2)) // base64 and the envelope take the rest
	}
	for n := 0; n < len(p); {
		chunk := p[n:min(n+size, len(p))]
		inDoubt, err := e.input(ctx, &input{data: chunk})
		if err != nil {
			return n, &InputError{Delivered: n, InDoubt: inDoubt, Err: err}
		}
		n += len(chunk)
	}
	return len(p), nil
}

// CloseInput closes the command's stdin. Closing it twice is not an error. A terminal cannot be closed
// so: write Ctrl-D, "\x04".
func (e *Execution) CloseInput(ctx context.Context) error {
	_, err := e.input(ctx, &input{eof: true})
	if wire.CodeOf(err) == wire.CodeInputUnavailable {
		return nil
	}
	return err
}

// input sends one input and waits for its answer. Only one is under way for each execution, so that
// the offsets have no holes and the server never holds more than one.
func (e *Execution) input(ctx context.Context, in *input) (inDoubt int, err error) {
	select {
	case e.inputTurn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-e.inputTurn }()
	in.execution, in.offset, in.writer = e.id, e.inputOffset, e.writer
	sent := false
	if err = ctx.Err(); err == nil {
		sent, err = e.c.sendInput(ctx, in)
	}
	refused := wire.CodeOf(err) == wire.CodeSessionLimit // the server had no room, and took nothing of it
	if sent && !refused {
		e.inputOffset += int64(len(in.data)) // also in doubt: it stays queued, or is repeated
	}
	if err != nil && sent && wire.CodeOf(err) == 0 {
		inDoubt = len(in.data)
	}
	return inDoubt, err
}

// sendInput makes the call for in. sent says that the server may have received it.
func (c *Client) sendInput(ctx context.Context, in *input) (sent bool, err error) {
	k := c.emptyCall(wire.MethodInput, retryOffset)
	k.input = in
	if in.eof {
		k.repeat = retrySafe
	}
	if err := c.submit(k); err != nil {
		return false, err
	}
	_, sent, err = c.await(ctx, k)
	return sent, err
}

// openStream notes the number of an execution in binary messages.
func (c *Client) openStream(s *socket, o *wire.StreamOpened) {
	s.streams[o.Stream] = o.ExecutionID
	c.mu.Lock()
	c.streams[o.ExecutionID] = o.Stream
	c.offsets = true // a server with binary messages takes inputs by their offset
	c.mu.Unlock()
}

// inputTaken passes the answer to a binary input to the oldest one of the execution.
func (c *Client) inputTaken(in *wire.InputTaken) {
	var oldest *call
	end := int64(0) // of what this Client has sent
	c.mu.Lock()
	for _, k := range c.calls {
		if k.sent && k.kind == websocket.MessageBinary && k.input.execution == in.ExecutionID {
			oldest = cmp.Or(oldest, k)
			end = k.input.end()
		}
	}
	removed := c.removeLocked(func(k *call) bool { return k == oldest })
	c.mu.Unlock()
	r := reply{}
	switch {
	case in.Error != nil:
		r.err = in.Error
	case in.Offset > end:
		r.err = ErrInputConflict
	}
	resolve(removed, r)
}

// Stdin returns a writer that uses Input and CloseInput, bounded by ctx. Writing to a command that
// no longer reads returns io.ErrClosedPipe. Where the server has no room for input at the moment, as it
// holds that of commands which do not read, a write waits.
func (e *Execution) Stdin(ctx context.Context) io.WriteCloser { return stdin{e, ctx} }

type stdin struct {
	e   *Execution
	ctx context.Context // the value lives only as long as one copy loop
}

func (s stdin) Write(p []byte) (n int, err error) {
	for size := len(p); n < len(p); {
		piece := p[n:min(n+size, len(p))]
		done, err := s.e.Input(s.ctx, piece)
		n += done
		switch wire.CodeOf(err) {
		case wire.CodeInputUnavailable, wire.CodeNoProcess:
			return n, io.ErrClosedPipe
		case wire.CodeSessionLimit:
			if least := leastRoom(err); least > 0 && least < len(piece)-done {
				size = least
			} else if wait := retryAfter(err); wait <= 0 || sleep(s.ctx, wait) != nil {
				return n, err
			}
		default:
			if err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// leastRoom returns how much input the server, which has refused some, takes all the same while nothing
// else waits for the command; 0: it does not say.
func leastRoom(err error) int {
	var refused *wire.Error
	if errors.As(err, &refused) && refused.Data != nil && refused.Data.Limit == "input" {
		return int(refused.Data.Value)
	}
	return 0
}

// ReadFrom makes io.Copy read as much at a time as one request carries.
func (s stdin) ReadFrom(r io.Reader) (n int64, err error) {
	buf := make([]byte, inputChunk)
	for {
		read, readErr := r.Read(buf)
		written, err := s.Write(buf[:read])
		n += int64(written)
		if err != nil {
			return n, err
		}
		if errors.Is(readErr, io.EOF) {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
	}
}

func (s stdin) Close() error {
	err := s.e.CloseInput(s.ctx)
	if wire.CodeOf(err) == wire.CodeNoProcess || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
