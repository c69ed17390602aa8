package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// Causes of a context that ends before the command.
var (
	errHangup      = errors.New("hung up")
	errLeft        = errors.New("detached by a third interrupt")
	errInterrupted = errors.New("interrupted")
)

// requestTimeout bounds a control request made for a signal, so that its goroutine ends even if the
// server is unreachable. The third Ctrl-C detaches anyway.
const requestTimeout = 5 * time.Minute

// signals turns troupe's own signals into requests.
type signals struct {
	a      *app
	cancel context.CancelCauseFunc
	done   chan struct{}
	wg     sync.WaitGroup

	mu sync.Mutex
	e  *troupe.Execution // nil until there is something to cancel
	n  int               // interrupts seen since
}

// watchSignals starts watching for signals. Until forward is called, a signal ends the context.
func (a *app) watchSignals(cancel context.CancelCauseFunc) *signals {
	s := &signals{a: a, cancel: cancel, done: make(chan struct{})}
	caught := a.signals()
	s.wg.Go(func() {
		for {
			select {
			case sig := <-caught:
				s.handle(sig)
			case <-s.done:
				return
			}
		}
	})
	return s
}

func (s *signals) stop() {
	close(s.done)
	s.wg.Wait()
}

// forward sends later signals to e.
func (s *signals) forward(e *troupe.Execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.e = e
}

func (s *signals) handle(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig == syscall.SIGHUP {
		s.cancel(errHangup)
		return
	}
	if s.e == nil {
		s.cancel(errInterrupted)
		return
	}
	e := s.e
	s.n++
	switch s.n {
	case 1:
		s.a.notef("cancelling; interrupt again to kill")
		s.request(e.Cancel)
	case 2:
		s.a.notef("killing; interrupt again to detach")
		s.request(func(ctx context.Context) error { return e.Signal(ctx, "KILL") })
	default:
		s.cancel(errLeft)
	}
}

// request runs in the background, because the answer may have to wait for a reconnection. An error
// means that the command or the session ended first, which follow reports.
func (s *signals) request(do func(context.Context) error) {
	go func() {
		ctx, stop := context.WithTimeout(context.Background(), requestTimeout)
		defer stop()
		_ = do(ctx)
	}()
}

// orInterrupted replaces an error that a signal caused.
func orInterrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		code := exitCanceled
		if errors.Is(cause, errHangup) {
			code = exitHangup
		}
		return &exitError{code, cause}
	}
	return err
}

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
