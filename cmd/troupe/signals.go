package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// Causes of a context that ends before the command.
var (
	errHangup      = errors.New("hung up")
	errDetached    = errors.New("detached by a signal")
	errLeft        = errors.New("left by the user")
	errInterrupted = errors.New("interrupted")
)

// stopped is a context's cause: the signal that ended it, and what that means.
type stopped struct {
	sig syscall.Signal
	why error // errHangup, errDetached or errInterrupted
}

func (s *stopped) Error() string { return s.why.Error() }
func (s *stopped) Unwrap() error { return s.why }

// signalCode returns the exit code of a run that a signal ended, as a shell reports it.
func signalCode(cause error) int {
	var s *stopped
	if errors.As(cause, &s) {
		return exitSignal + int(s.sig)
	}
	return exitCanceled
}

// caught are the signals that a run acts on.
var caught = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// requestTimeout bounds a control request made for a signal, so that its goroutine ends even if the
// server is unreachable. A later signal detaches anyway.
const requestTimeout = 5 * time.Minute

// catchSignals returns a channel of the signals that a run acts on. Only subcommands that talk to a
// server call it, because it starts a thread, which takes a twentieth of the time of troupe
// version.
//
// A signal that was ignored when troupe started stays ignored: SIGHUP by nohup(1), SIGINT and
// SIGQUIT by a shell without job control that starts a background command (POSIX, 2.9.3.1). Go
// keeps an inherited SIG_IGN for SIGHUP and SIGINT only, and replaces that of the others before main
// runs (sigInstallGoHandler in runtime/signal_unix.go of Go 1.26). SIGQUIT follows SIGINT here,
// because shells ignore both together; an ignored SIGTERM cannot be told from one that is not.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	background := signal.Ignored(syscall.SIGINT)
	for _, sig := range caught {
		switch {
		case sig == syscall.SIGQUIT && background:
			signal.Ignore(sig)
		case !signal.Ignored(sig):
			signal.Notify(signals, sig)
		}
	}
	// A reader that goes away (`troupe exec … | head`) must cancel the command,
	// not kill troupe and leave it running.
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

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

// interruptible returns a context that a signal ends, and a function that stops watching.
func (a *app) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := a.watchSignals(cancel)
	return ctx, func() { s.stop(); cancel(nil) }
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

func (s *signals) handle(received os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sig, ok := received.(syscall.Signal)
	if !ok {
		sig = syscall.SIGINT // os.Interrupt of a system without signals
	}
	switch {
	case sig == syscall.SIGHUP:
		s.cancel(&stopped{sig, errHangup})
	case s.e == nil:
		s.cancel(&stopped{sig, errInterrupted})
	case s.a.disconnected():
		s.handleDisconnected(sig)
	case sig == syscall.SIGQUIT:
		s.quit()
	default:
		s.interrupt(sig)
	}
}

// interrupt cancels the command, then kills it, then leaves it.
func (s *signals) interrupt(sig syscall.Signal) {
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
		s.cancel(&stopped{sig, errDetached})
	}
}

// handleDisconnected acts on a signal while the connection is lost. A request can wait for the next
// connection, but a user who signals again, or with Ctrl-\, wants to leave.
func (s *signals) handleDisconnected(sig syscall.Signal) {
	s.n++
	if s.n > 1 || sig == syscall.SIGQUIT {
		s.cancel(&stopped{sig, errDetached})
		return
	}
	s.a.notef("not connected: cancelling when the connection is back; interrupt again to detach now")
	s.request(s.e.Cancel)
}

// quit passes SIGQUIT on to the command's process group, as a terminal does with Ctrl-\.
func (s *signals) quit() {
	e := s.e
	if !s.a.settings.quiet {
		s.a.notef("passing SIGQUIT on to the command")
	}
	s.request(func(ctx context.Context) error {
		err := e.Signal(ctx, "QUIT")
		if errors.Is(err, troupe.ErrUnknownOutcome) {
			s.a.notef("the connection was lost: SIGQUIT may not have reached the command")
		}
		return err
	})
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
	var s *stopped
	if err != nil && errors.As(context.Cause(ctx), &s) {
		return &exitError{signalCode(s), s}
	}
	return err
}
