package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// tty is the user's terminal while it shows one on the server.
type tty struct {
	a       *app
	in      *os.File      // nil: no keys are passed on
	resumed chan struct{} // capacity 1: the connection is another one
	missed  chan struct{} // capacity 1: a part of the output is missing
	drawn   chan struct{} // capacity 1: the server has drawn what that led to
	stop    func()

	mu    sync.Mutex
	saved *term.State // of in, while it is raw
}

// size returns the size of the user's terminal, or the usual one if there is none.
func (a *app) size() (cols, rows int) {
	for _, stream := range []any{a.stdout, a.stdin, a.stderr} {
		if w, ok := stream.(*checkedWriter); ok {
			stream = w.Writer
		}
		f, ok := stream.(*os.File)
		if !ok {
			continue
		}
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 && rows > 0 {
			return min(cols, wire.MaxCols), min(rows, wire.MaxRows)
		}
	}
	return 80, 24
}

// keyboard returns stdin if it is a terminal, else nil.
func (a *app) keyboard() *os.File {
	if f, ok := a.stdin.(*os.File); ok && terminal(f) {
		return f
	}
	return nil
}

// interactive reports whether a person sees what is printed and types what is read.
func (a *app) interactive() bool { return a.terminal && a.keyboard() != nil }

// raw passes every key on from now on.
func (t *tty) raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	saved, err := term.MakeRaw(int(t.in.Fd()))
	if err == nil {
		t.saved = saved
	}
	return err
}

// restore gives the user's terminal back as it was. It may be called from any goroutine, and again.
func (t *tty) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		_ = term.Restore(int(t.in.Fd()), t.saved) // it fails if the terminal is gone
		t.saved = nil
	}
}

// line returns a line as it must be written now: a raw terminal does not return the carriage.
func (t *tty) line(s string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil {
		return s
	}
	return "\r\n" + strings.TrimSuffix(s, "\n") + "\r\n"
}

// reconnected has the size told again.
func (t *tty) reconnected() { wake(t.resumed) }

// afterGap is written in the place of missing output, which may have begun in an escape sequence or left
// colours and line drawing on: it ends the one and the others.
const afterGap = "\x18\x1b[0m\x1b(B\x0f"

// gap has the program draw its screen again, unless the server does, because a part of what it drew is
// missing.
func (t *tty) gap() error {
	select {
	case <-t.drawn: // of an earlier gap
	default:
	}
	wake(t.missed)
	_, err := io.WriteString(t.a.stdout, afterGap)
	return err
}

// draw shows the screen that missing output led to.
func (t *tty) draw(drawing []byte) error {
	wake(t.drawn)
	_, err := t.a.stdout.Write(drawing)
	return err
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// guard restores the terminal when its goroutine panics: the message must be readable.
func (t *tty) guard() {
	if p := recover(); p != nil {
		t.restore()
		panic(p)
	}
}

// afterwards undoes what a program may have set that had no chance to: the alternate screen, mouse
// reports, bracketed paste, application keys, a hidden cursor, colours.
const afterwards = "\x1b[?1047l\x1b[?9;1000;1002;1003;1004;1005;1006;1015;2004;1l\x1b[?7;25h\x1b[r\x1b[4l\x1b>\x1b(B\x0f\x1b[0m\n"

// show connects the user's terminal with that of e, until hide. cancel gets errLeft when the user
// leaves. Without keys nothing typed is passed on.
func (a *app) show(ctx context.Context, e *troupe.Execution, keys bool, cancel context.CancelCauseFunc) (*tty, error) {
	t := &tty{a: a, resumed: make(chan struct{}, 1), missed: make(chan struct{}, 1), drawn: make(chan struct{}, 1)}
	if keys {
		t.in = a.keyboard()
	}
	if t.in != nil {
		if err := t.raw(); err != nil {
			return nil, fmt.Errorf("the terminal cannot be set up: %w", err)
		}
	}
	a.tty.Store(t)
	ctx, done := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { defer t.guard(); t.followSize(ctx, e) })
	switch {
	case t.in != nil:
		k := newKeys(a, func() { cancel(errLeft) })
		go func() { defer t.guard(); k.read(t.in) }() // a read of the keyboard outlives it
		wg.Go(func() { defer t.guard(); k.send(ctx, e) })
	case keys:
		go func() {
			if err := a.typeStdin(ctx, e); err != nil {
				cancel(err)
			}
		}()
	}
	t.stop = func() {
		done()
		wg.Wait()
		t.restore()
		a.tty.Store(nil)
	}
	return t, nil
}

// hide gives the user's terminal back. in order says that the command has ended by itself, and has
// left the terminal as it wants it.
func (t *tty) hide(inOrder bool) {
	t.stop()
	if !inOrder && t.a.terminal {
		_, _ = io.WriteString(t.a.stdout, afterwards)
	}
}

// redrawPause is long enough for a program to see both sizes: signals that come together are one.
const redrawPause = 100 * time.Millisecond

// followSize tells the server of each new size, and again when the connection is another one.
func (t *tty) followSize(ctx context.Context, e *troupe.Execution) {
	changed, stop := watchSize()
	defer stop()
	for {
		cols, rows := t.a.size()
		_ = e.Resize(ctx, cols, rows) // it fails if the execution has ended, which is reported elsewhere
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-t.resumed:
		case <-t.missed:
			select {
			case <-t.drawn:
				continue
			case <-ctx.Done():
			case <-time.After(redrawPause): // an older server, or a screen that was too large to be kept
			}
			// Programs draw everything again when the size changes, and only then: so it changes for a moment.
			_ = e.Resize(ctx, cols, max(rows-1, 1))
			select {
			case <-ctx.Done():
			case <-time.After(redrawPause):
			}
		}
	}
}

// typeStdin types what comes from a pipe or file, and Ctrl-D at its end.
func (a *app) typeStdin(ctx context.Context, e *troupe.Execution) error {
	_, err := io.Copy(e.Stdin(ctx), &typed{Reader: a.stdin})
	if err == nil || errors.Is(err, io.ErrClosedPipe) || ctx.Err() != nil || ended(e) {
		return nil
	}
	return fmt.Errorf("stdin: %w", err)
}
