package troupe

import (
	"context"
	"encoding/base64"
	"errors"
	"io"

	"github.com/troupe-dev/troupe/actors/wire"
)

// inputChunk is how much one request carries. It is a pipe's usual capacity, so that the answer
// comes when the command reads, and is far below the server's max-message.
const inputChunk = 64 << 10

// Input writes p to the stdin of an execution that was started with Stdin. It
// returns once p is in the command's pipe, which paces a writer.
//
// Input is not sent again when the connection ends before the answer, since the
// command could read it twice: the *InputError then wraps ErrUnknownOutcome and
// says how many bytes are in doubt. Input not yet written waits for the next
// connection. If ctx ends, bytes may be in doubt as well. A *wire.Error with
// code -32009 or -32003 means that no process reads stdin anymore.
//
// Concurrent calls interleave their chunks of 64 KiB.
func (e *Execution) Input(ctx context.Context, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		chunk := p[n:min(n+inputChunk, len(p))]
		k, err := e.c.newCall(wire.MethodInput, wire.InputParams{
			ExecutionID: e.id, Data: base64.StdEncoding.EncodeToString(chunk), Encoding: wire.EncodingBase64,
		}, retryNever)
		if err != nil {
			return n, err
		}
		k.background = true
		_, sent, err := e.c.do(ctx, k)
		if err != nil {
			ie := &InputError{Delivered: n, Err: err}
			if wire.CodeOf(err) == 0 && sent {
				ie.InDoubt = len(chunk)
			}
			return n, ie
		}
		n += len(chunk)
	}
	return n, nil
}

// CloseInput closes the command's stdin. Closing it twice is not an error.
func (e *Execution) CloseInput(ctx context.Context) error {
	params := wire.InputParams{ExecutionID: e.id, EOF: true}
	err := e.c.request(ctx, wire.MethodInput, params, nil, retrySafe)
	if wire.CodeOf(err) == wire.CodeInputUnavailable {
		return nil
	}
	return err
}

// Stdin returns a writer that uses Input and CloseInput, bounded by ctx. Writing to a command that
// no longer reads returns io.ErrClosedPipe.
func (e *Execution) Stdin(ctx context.Context) io.WriteCloser { return stdin{e, ctx} }

type stdin struct {
	e   *Execution
	ctx context.Context // the value lives only as long as one copy loop
}

func (s stdin) Write(p []byte) (int, error) {
	n, err := s.e.Input(s.ctx, p)
	switch wire.CodeOf(err) {
	case wire.CodeInputUnavailable, wire.CodeNoProcess:
		err = io.ErrClosedPipe
	}
	return n, err
}

func (s stdin) Close() error {
	err := s.e.CloseInput(s.ctx)
	if wire.CodeOf(err) == wire.CodeNoProcess || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
