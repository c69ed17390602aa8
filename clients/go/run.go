package troupe

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Run executes a command and copies its output, byte for byte, until the command has ended. A nil
// writer discards. Unless params say otherwise, Run requests raw output in base64, so that any
// bytes arrive intact.
//
// Completed, not the error, says how the command ended. With a *GapError output is missing, but
// Completed is valid. Completed also counts what was dropped or cut at a limit. When ctx ends or a
// writer fails, Run returns and the command keeps running.
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
