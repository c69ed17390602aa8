package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/term"
)

// errNobodyReads means that stdout or stderr was closed by its reader.
var errNobodyReads = errors.New("the reader of the output is gone")

// writeError returns the error of a write to stdout or stderr, named by stream: errNobodyReads for a
// closed pipe, and otherwise what the user has to know. It returns nil for nil.
func writeError(stream string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w: %w", errNobodyReads, err)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // os.Stdout has a name of its own: "write /dev/stdout"
	}
	return &outputError{stream, err}
}

// outputError means that stdout or stderr could not be written, for example to a full disk.
type outputError struct {
	stream string
	err    error
}

func (e *outputError) Error() string { return "writing " + e.stream + ": " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// causeOf returns why ctx or the output ended. A terminal that goes away fails writes with EIO, and
// sends SIGHUP: whichever comes first, it is a hangup, which must not cancel the command.
func (a *app) causeOf(ctx context.Context, err error) error {
	if errors.Is(err, syscall.EIO) && errors.As(err, new(*outputError)) && a.onTerminal() {
		return &stopped{syscall.SIGHUP, errHangup}
	}
	return context.Cause(ctx)
}

// onTerminal reports whether stdout or stderr is a terminal, also one that is gone.
func (a *app) onTerminal() bool {
	stderr, ok := a.stderr.(*os.File)
	return a.terminal || ok && !piped(stderr)
}

// checkedWriter is stdout. It remembers its first error, which cobra drops.
type checkedWriter struct {
	io.Writer
	err error
}

func (w *checkedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	err = writeError("stdout", err)
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// terminal reports whether f is a terminal. /dev/null is none.
func terminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
