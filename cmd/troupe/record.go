package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const recordHelp = `Write what a terminal shows to a file that asciinema plays (asciicast v2): from its
beginning, as far as the server keeps it, to its end or to Ctrl-C. The times are those
at which the server read the output. What is typed is not recorded, beyond what the
terminal echoes, so a password is not.

The file is whole at every moment. A lost connection is resumed in place. troupe only
looks on: it types nothing, and holds nobody up. Of others' sessions the server lets
those record who may read them, and writes that to its audit log.

  troupe record SESSION -o demo.cast
  asciinema play demo.cast`

type recordFlags struct {
	file string
	now  bool
}

func (a *app) recordCommand() *cobra.Command {
	f := new(recordFlags)
	cmd := &cobra.Command{
		Use:               "record SESSION [EXECUTION]",
		Short:             "Record a terminal as an asciicast",
		Long:              recordHelp,
		Args:              rangeArgs(1, 2),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.file == "" && a.terminal {
				return usageError(errors.New("record needs a file: troupe record SESSION -o demo.cast"))
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return a.record(ctx, f, args)
		},
	}
	fs := cmd.Flags()
	fs.VarP(settings.Text(&f.file, "file"), "output", "o", "file to write, which must not exist; default: stdout")
	settings.Bool(fs, &f.now, "now", "", "end with what the terminal has shown by now")
	settings.FlagOnly(fs, "output", "now")
	return cmd
}

// record writes the recording of a terminal. Ctrl-C is how it usually ends.
func (a *app) record(ctx context.Context, f *recordFlags, args []string) error {
	r := &recorder{a: a, follow: !f.now}
	err := r.choose(ctx, args)
	if err == nil {
		err = r.run(ctx, f.file)
	}
	if errors.Is(context.Cause(ctx), errInterrupted) && r.begun {
		err = nil
	}
	if r.file != nil {
		if closeErr := r.file.Close(); err == nil {
			err = writeError(f.file, closeErr)
		}
		if !a.settings.quiet {
			a.notef("%s has %s s of %s", f.file, or(r.last, "0"), r.execution)
		}
	}
	return orInterrupted(ctx, err)
}

// recorder is one run of troupe record.
type recorder struct {
	a                  *app
	session, execution string
	follow             bool

	out  io.Writer
	file *os.File // nil: out is stdout
	size int64    // of the lines in file

	// What was written, so that it goes on there after a lost connection: the time of the last event, and how much there
	// was at that time, which comes again.
	begun bool // the first line is written
	last  string
	at    progressAt
	skip  progressAt
}

// progressAt counts what there was at one time.
type progressAt struct {
	runes  int // of output
	others int // events
}

// choose finds the terminal that is meant.
func (r *recorder) choose(ctx context.Context, args []string) (err error) {
	if r.session, err = r.a.sessionOnServer(ctx, args[0], false); err != nil {
		return err
	}
	if len(args) == 2 {
		r.execution = args[1]
		return nil
	}
	var s *wire.Session
	err = r.a.withAPI(func(api *troupe.API) error {
		s, err = api.Session(ctx, r.session)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", visible(r.session), err)
	}
	var all, running []string
	for _, x := range s.Executions {
		if !x.Terminal {
			continue
		}
		all = append(all, x.ID)
		if x.State != wire.StateExited {
			running = append(running, x.ID)
		}
	}
	switch {
	case len(running) == 1:
		r.execution = running[0]
	case len(all) == 1:
		r.execution = all[0]
	case len(all) == 0:
		return fmt.Errorf("session %s has no terminal", visible(r.session))
	default:
		return fmt.Errorf("session %s has the terminals %s: name one", visible(r.session), visible(strings.Join(all, ", ")))
	}
	return nil
}

const (
	// recordRetry and recordRetryMost bound the time between two attempts to go on.
	recordRetry     = 200 * time.Millisecond
	recordRetryMost = 5 * time.Second
	// recordPatience is how long a recording waits for the server to come back.
	recordPatience = 2 * time.Minute
)

// run writes the recording, and goes on where a connection was lost.
func (r *recorder) run(ctx context.Context, path string) error {
	var lost time.Time // zero: there is a connection
	for wait := recordRetry; ; wait = min(2*wait, recordRetryMost) {
		err := r.attempt(ctx, path, func() {
			if !lost.IsZero() && !r.a.settings.quiet {
				r.a.notef("recording goes on")
			}
			lost, wait = time.Time{}, recordRetry
		})
		switch {
		case err == nil, ctx.Err() != nil, r.out == nil, !temporary(err):
			return err
		case lost.IsZero():
			lost = time.Now()
			if !r.a.settings.quiet {
				r.a.notef("the recording broke off, and goes on when the server is back: %v", err)
			}
		case time.Since(lost) > recordPatience:
			return fmt.Errorf("the recording is not whole: %w", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// temporary reports whether a recording may go on after err.
func temporary(err error) bool {
	var refused *troupe.APIError
	if errors.As(err, &refused) {
		return refused.StatusCode == 429 || refused.StatusCode >= 500
	}
	return !errors.Is(err, errNobodyReads) && !errors.As(err, new(*outputError)) && !errors.Is(err, errNotCast)
}

var errNotCast = errors.New("the server's answer is not a recording")

// attempt reads the recording from where it was. began is called when something comes.
func (r *recorder) attempt(ctx context.Context, path string, began func()) error {
	var body io.ReadCloser
	err := r.a.withAPI(func(api *troupe.API) (err error) {
		q := troupe.RecordingQuery{Since: r.last, Follow: r.follow}
		body, err = api.Recording(ctx, r.session, r.execution, q)
		return err
	})
	var refused *troupe.APIError
	if errors.As(err, &refused) && refused.StatusCode == 404 && r.out != nil {
		return &exitError{exitIncomplete, errors.New("the session ended meanwhile: the recording lacks its end")}
	}
	if err != nil {
		return err
	}
	defer body.Close()
	if err := r.open(path); err != nil {
		return err
	}
	r.again()
	lines := bufio.NewReader(body)
	for first := true; ; first = false {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 && !first {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w", io.ErrUnexpectedEOF)
		}
		began()
		if line, err = r.continued(line); err == nil {
			err = r.write(line)
		}
		if err != nil {
			return err
		}
	}
}

// open opens the file, once it is known that there is a recording.
func (r *recorder) open(path string) (err error) {
	switch {
	case r.out != nil:
		return nil
	case path == "":
		r.out = r.a.stdout
		return nil
	}
	r.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("%s exists: remove it, or give another name", path)
	case err != nil:
		return writeError(path, err)
	}
	r.out = r.file
	return nil
}

// write writes whole lines, or nothing.
func (r *recorder) write(lines []byte) error {
	n, err := r.out.Write(lines)
	switch {
	case r.file == nil:
		return err // checkedWriter has named it
	case err != nil:
		_ = r.file.Truncate(r.size) // if that fails, too, the error says that the file is broken
		return writeError(r.file.Name(), err)
	}
	r.size += int64(n)
	return nil
}
