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

// passStdin copies stdin to the command and closes the command's. It returns an error unless the
// command or ctx ended first, since a command need not read all of its input. A read of stdin that
// does not end outlives ctx, until troupe exits.
func (a *app) passStdin(ctx context.Context, e *troupe.Execution) error {
	w := e.Stdin(ctx)
	_, err := io.Copy(w, a.stdin)
	if err == nil {
		err = w.Close()
	}
	if err == nil || errors.Is(err, io.ErrClosedPipe) || ctx.Err() != nil || ended(e) {
		return nil
	}
	return fmt.Errorf("stdin: %w", err)
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
		if err := checkUTF8("the value of "+name, value); err != nil {
			return nil, err
		}
		env[name] = value
	}
	return env, nil
}
