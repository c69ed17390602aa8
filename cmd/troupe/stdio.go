package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// passStdin copies stdin to the command. If the command ends first, its goroutine stays blocked in
// Read until troupe exits.
func (a *app) passStdin(ctx context.Context, cancel context.CancelCauseFunc, e *troupe.Execution) {
	w := e.Stdin(ctx)
	_, err := io.Copy(w, a.stdin)
	if err == nil {
		err = w.Close()
	}
	switch {
	case err == nil, errors.Is(err, io.ErrClosedPipe), ctx.Err() != nil:
		// A command need not read all of its input.
	case errors.Is(err, troupe.ErrUnknownOutcome):
		cancel(fmt.Errorf("the command was cancelled, its input may be incomplete: %w", err))
	default:
		if !ended(e) {
			cancel(fmt.Errorf("stdin: %w", err))
		}
	}
}

// ended reports whether the execution or its session has ended. Its end then makes the better
// message.
func ended(e *troupe.Execution) bool {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	_, err := e.Wait(ctx)
	return !errors.Is(err, context.Canceled)
}

// environment parses --env.
func environment(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, given := strings.Cut(pair, "=")
		if name == "" {
			return nil, usageError(fmt.Errorf("--env %q has no name", pair))
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				return nil, usageError(fmt.Errorf("--env %s: not set here", name))
			}
		}
		env[name] = value
	}
	return env, nil
}
