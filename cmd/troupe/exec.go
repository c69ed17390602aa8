package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const execHelp = `Run a command in a session of its own and stream its output: stdout to stdout,
stderr to stderr, byte for byte. troupe exits as the command did.

A lost connection is resumed without losing output; a note on stderr says so.
The session ends with troupe, but with --detach and --on-exit=keep.

Stdin is passed to the command when it is a pipe or a file. On a terminal it is
not, so that 'troupe exec -- cat' ends at once: ask for it with -i, end it with
Ctrl-D. In a loop that reads its own stdin, use --no-stdin. With --detach, troupe
leaves once all of stdin is passed.

With -t the command runs in a terminal of its own, and -it connects yours with it:
full-screen programs work, keys go to the command, Ctrl-C included, and a new size
is passed on. At the beginning of a line, ~. leaves the command running (troupe
attach comes back to it) and ~? helps. See also troupe shell.

Where stdout is a pipe or a file, it gets all of the output: the command waits
when its reader is slow, as behind any pipe. On a terminal, with --detach and
with --output-limit or --on-output-limit, the server keeps the first output up to
a limit and drops the rest.

Ctrl-C and SIGTERM cancel the command (SIGTERM to all its processes, SIGKILL
after the server's grace). A second one kills it at once, a third leaves
without waiting. While the connection is lost, the second one leaves. Ctrl-\ is
passed on: the command gets SIGQUIT. SIGHUP leaves the command running: see
troupe attach. Signals that were ignored when troupe started, as by nohup or in
the background of a script, stay ignored.

Where the variable TRACEPARENT holds a W3C trace context, the execution becomes a
part of that trace.

` + exitCodeHelp

const execExample = `  troupe exec -- make test
  troupe exec -c 'for i in 1 2 3; do date; sleep 1; done'
  tar c . | troupe exec -- tar xv -C /tmp
  troupe exec --detach -- ./long-job
  troupe exec -it -- vim notes.txt`

// execFlags are the flags of exec.
type execFlags struct {
	command       string
	executionID   string
	cwd           string
	env           []string
	timeout       time.Duration
	maxDuration   time.Duration
	outputLimit   int64
	onOutputLimit wire.OnOutputLimit
	onExit        wire.OnExit
	encoding      wire.Encoding
	lines         bool
	json          bool
	stdin         bool
	noStdin       bool
	detach        bool
	tty           bool

	session wire.SessionOptions // of the session that is opened
}

func (f *execFlags) define(fs *pflag.FlagSet) {
	fs.SetInterspersed(false) // flags after the command belong to the command
	fs.VarP(settings.Text(&f.command, "string"), "command", "c", "run this string with /bin/sh -c")
	fs.Var(settings.Text(&f.executionID, "id"), "execution-id", "id of the execution; empty: random")
	fs.VarP(settings.Text(&f.cwd, "directory"), "cwd", "C", "working directory on the server")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "NAME=value, or NAME to pass troupe's own value; can be repeated")
	const unset = "leave it out for the server's"
	fs.Var(settings.Positive(settings.Duration(&f.timeout), unset), "timeout",
		"end the command after it has printed nothing for this long; default: the server's limit")
	fs.Var(settings.Positive(settings.Duration(&f.maxDuration), unset), "max-duration",
		"end the command after it has run for this long; default: the server's limit")
	fs.Var(settings.Positive(settings.Bytes(&f.outputLimit), unset), "output-limit",
		"bytes of output; default: the server's limit")
	fs.Var(settings.Choice(&f.onOutputLimit, wire.LimitDrop, wire.LimitCancel), "on-output-limit",
		"what to do at the output limit: drop further output, or cancel the command")
	fs.Var(settings.Choice(&f.onExit, wire.ExitKill, wire.ExitKeep), "on-exit",
		"whether to kill or keep processes that outlive the command")
	fs.Var(settings.Choice(&f.encoding, wire.EncodingUTF8, wire.EncodingBase64), "encoding",
		"encoding between server and client, and in --json; empty: base64, or utf-8 with --lines or --json")
	settings.Bool(fs, &f.lines, "lines", "", "print whole lines; the server's line limit applies")
	settings.Bool(fs, &f.json, "json", "", "print the server's notifications, one JSON object per line")
	settings.Bool(fs, &f.stdin, "stdin", "i", "pass stdin, even from a terminal")
	settings.Bool(fs, &f.tty, "tty", "t", "run the command in a terminal; with -i, pass keys and stdin to it")
	settings.Bool(fs, &f.noStdin, "no-stdin", "n", "do not pass stdin")
	settings.Bool(fs, &f.detach, "detach", "d",
		"print the session and execution, and leave the command running for the resume window")
	settings.FlagOnly(fs, "command", "execution-id", "env", "stdin", "tty", "no-stdin", "detach")
}

func (a *app) execCommand() *cobra.Command {
	f := new(execFlags)
	cmd := &cobra.Command{
		Use:     "exec [flags] -- command [args...]",
		Short:   "Run a command and stream its output",
		Long:    execHelp,
		Example: execExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.command == "" && cmd.Flags().Changed("command") {
				return usageError(errors.New("--command is empty: give a command for /bin/sh"))
			}
			params, err := f.params(args, a.stdinPiped)
			if err != nil {
				return err
			}
			params.Retain = f.retain(a.terminal)
			if f.tty {
				if err := a.inTerminal(f, &params); err != nil {
					return err
				}
			}
			return a.exec(cmd.Context(), f, params)
		},
	}
	f.define(cmd.Flags())
	f.complete(cmd)
	return cmd
}

// complete adds shell completion for the flags that have a fixed set of values.
func (f *execFlags) complete(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if choices := settings.Choices(flag.Value); choices != nil {
			// It fails only for a flag that does not exist.
			_ = cmd.RegisterFlagCompletionFunc(flag.Name, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
		}
	})
}

// params builds the request.
func (f *execFlags) params(args []string, piped bool) (wire.ExecuteParams, error) {
	p := wire.ExecuteParams{
		Command: f.command, Argv: args, ExecutionID: f.executionID, Cwd: f.cwd,
		Timeout: f.timeout.Seconds(), MaxDuration: f.maxDuration.Seconds(), OutputLimit: f.outputLimit,
		OnOutputLimit: f.onOutputLimit, OnExit: f.onExit, Encoding: f.encoding, Framing: wire.FramingRaw,
		Traceparent: os.Getenv("TRACEPARENT"), // OpenTelemetry's name for passing a trace to child processes
	}
	switch {
	case f.command == "" && len(args) == 0:
		return p, usageError(errors.New("exec needs a command: troupe exec -- command args, or -c 'string'"))
	case f.command != "" && len(args) > 0:
		return p, usageError(errors.New("exec takes -c or a command, not both"))
	case len(args) > 0 && args[0] == "":
		return p, usageError(errors.New("the name of the command is empty"))
	case f.stdin && f.noStdin:
		return p, usageError(errors.New("--stdin and --no-stdin cannot be combined"))
	}
	p.Stdin = f.stdin || piped && !f.noStdin
	if f.lines {
		p.Framing = wire.FramingLines
	}
	if p.Encoding == "" {
		p.Encoding = wire.EncodingBase64
		if f.lines || f.json {
			p.Encoding = wire.EncodingUTF8
		}
	}
	if err := f.checkText(args); err != nil {
		return p, err
	}
	var err error
	p.Env, err = environment(f.env)
	return p, err
}

// retain returns what the server is to keep of the output. A pipe or file gets all of it: the command
// waits for its reader. A terminal can show the output again (attach --from-start), and a command
// that is left behind runs on, so its first output is kept; so is that which a limit is asked for.
func (f *execFlags) retain(terminal bool) wire.Retain {
	if terminal || f.tty || f.detach || f.outputLimit != 0 || f.onOutputLimit != "" {
		return ""
	}
	return wire.RetainUnread
}

// exec opens a session, runs one command in it and ends it.
func (a *app) exec(ctx context.Context, f *execFlags, params wire.ExecuteParams) error {
	st := a.store()
	defer st.release()
	r := &record{
		Execution: params.ExecutionID, Command: title(params), Started: time.Now().UTC(),
		Access: a.configured().access(), keep: params.OnExit == wire.ExitKeep,
		Held: !f.detach, DropOK: params.OnOutputLimit == wire.LimitDrop, Terminal: params.Terminal != nil,
	}
	// Without a record no client could attach to the session or end it.
	if f.detach || r.keep {
		if err := st.reserve(r); err != nil {
			return fmt.Errorf("nothing was started, because its session cannot be remembered: %w", err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sig := a.watchSignals(cancel)
	defer sig.stop()

	c, e, err := a.start(ctx, params, f.session)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	r.Session, r.Execution, r.Started = c.Session(), e.ID(), time.Now().UTC()
	if err := st.save(r); err != nil {
		if f.detach {
			_ = c.Close()
			return fmt.Errorf("cannot remember the session, so it was not left running: %w", err)
		}
		if st.err == nil && !a.settings.quiet {
			a.notef("cannot remember the session: %v", err)
		}
	}
	if f.detach {
		return a.detach(ctx, c, e, st, r, params.Stdin)
	}
	sig.forward(e)
	p := &printer{a: a, json: f.json, encoding: params.Encoding, dropOK: r.DropOK, screen: params.Terminal != nil}
	if params.Terminal != nil {
		done, err := a.followTerminal(ctx, p, e, params.Stdin, cancel)
		return a.finish(ctx, c, st, r, p, done, err)
	}
	if params.Stdin {
		go func() {
			if err := a.passStdin(ctx, e); err != nil {
				cancel(err)
			}
		}()
	}
	done, err := p.follow(ctx, e)
	a.over.Store(err == nil)
	return a.finish(ctx, c, st, r, p, done, err)
}

// detach leaves the command running once it has all of its input. If that fails, nothing is left.
func (a *app) detach(
	ctx context.Context, c *troupe.Client, e *troupe.Execution, st *store, r *record, stdin bool,
) error {
	passed := make(chan error, 1)
	go func() {
		var err error
		if stdin {
			err = a.passStdin(ctx, e)
		}
		passed <- err
	}()
	var err error
	select {
	case err = <-passed:
	case <-ctx.Done(): // a read of stdin may not end
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err = orInterrupted(ctx, err); err == nil {
		_, err = fmt.Fprintf(a.stdout, "%s %s\n", visible(r.ID), visible(r.Execution))
	}
	if err == nil {
		c.Detach()
		return nil
	}
	if c.Close() == nil {
		st.remove(r)
	}
	return err
}

// finish ends the session or detaches from it, and reports how the command ended.
func (a *app) finish(ctx context.Context, c *troupe.Client, st *store, r *record, p *printer, done *wire.Completed,
	err error,
) error {
	cause := a.causeOf(ctx, err)
	r.Held = false
	switch {
	case err == nil && r.keep && kept(ctx, c, r.Execution):
		window := time.Duration(c.Limits().ResumeWindow * float64(time.Second))
		r.Session = c.Detach()
		if err := st.save(r); err != nil {
			a.notef("cannot remember the session: %v", err)
		}
		a.notef("processes of the command keep running in session %s for %s; to end them: troupe cancel --end %s",
			r.ID, window, r.ID)
		return p.report(done)
	case err != nil && errors.Is(cause, errLeft):
		r.Session = c.Detach()
		if err := st.save(r); err != nil {
			return fmt.Errorf("session %s cannot be remembered and ends after its resume window: %w", r.ID, err)
		}
		a.noteLeft(c, r)
		return nil
	case err != nil && errors.Is(cause, errHangup):
		r.Session = c.Detach()
		p.rewind(r)
		_ = st.save(r)
		return &exitError{exitHangup, nil}
	case err != nil && errors.Is(cause, errDetached):
		r.Session = c.Detach()
		hint := "to end it: troupe cancel --end " + r.ID
		if err := st.save(r); err != nil {
			hint = fmt.Sprintf("session %s cannot be remembered and ends after its resume window: %v", r.ID, err)
		}
		return &exitError{signalCode(cause), errors.New("detached; the command may still be running; " + hint)}
	}
	closeErr := c.Close()
	if closeErr == nil {
		st.remove(r)
	}
	if err == nil {
		return p.report(done)
	}
	if errors.As(err, new(*outputError)) {
		return fmt.Errorf("%w; the command was cancelled", err)
	}
	if errors.Is(err, errNobodyReads) {
		return err
	}
	if cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // such as input in doubt
	}
	return a.explain(r.URL, err)
}

// kept reports whether any processes outlived the command.
func kept(ctx context.Context, c *troupe.Client, id string) bool {
	status, err := c.Status(ctx)
	return err == nil && status.Executions[id].State == wire.StateKept
}

// title returns a command as text for the user.
func title(p wire.ExecuteParams) string {
	if p.Command != "" {
		return p.Command
	}
	return strings.Join(p.Argv, " ")
}
