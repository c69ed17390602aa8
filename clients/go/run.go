package troupe

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Run executes a command and copies its output, byte for byte, until it has
// ended. nil writers discard. Unless params say otherwise the output is asked
// for raw and in base64, so that any bytes arrive intact.
//
// How the command ended is in Completed, not in the error. With a *GapError
// Completed is valid too, and output is missing; what was dropped or cut for a
// limit is counted in Completed. When ctx ends, or a writer fails, Run returns
// and the command runs on.
func (c *Client) Run(ctx context.Context, params wire.ExecuteParams, stdout, stderr io.Writer) (*wire.Completed,
	error,
) {
	if params.Framing == "" {
		params.Framing = wire.FramingRaw
	}
	if params.Encoding == "" {
		params.Encoding = wire.EncodingBase64
	}
	e, err := c.Execute(ctx, params)
	if err != nil {
		return nil, err
	}
	return e.Copy(ctx, stdout, stderr)
}

// Copy copies the rest of the output to stdout and stderr, as Run does.
func (e *Execution) Copy(ctx context.Context, stdout, stderr io.Writer) (*wire.Completed, error) {
	gap := int64(0)
	for {
		ev, err := e.Next(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return nil, err
			}
			done, err := e.Wait(ctx)
			if err == nil && gap > 0 {
				err = &GapError{ExecutionID: e.id, Bytes: gap}
			}
			return done, err
		}
		switch ev := ev.(type) {
		case *Output:
			w := stdout
			if ev.Stream == wire.Stderr {
				w = stderr
			}
			if w != nil {
				if _, err := w.Write(ev.Data); err != nil {
					e.Discard()
					return nil, fmt.Errorf("writing %s of %s: %w", ev.Stream, e.id, err)
				}
			}
			putBuffer(ev.Data) // no other reference exists: a Writer must not retain p (io.Writer)
		case *Gap:
			gap += ev.Bytes
		}
	}
}
