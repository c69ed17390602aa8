package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const shellHelp = `Open a login shell on the server, in a session of its own, and connect your
terminal with it. troupe exits as the shell did.

With a NAME the session is called so, and a later troupe shell NAME, on any machine
that has your token, comes back to it while it runs: several may use it at once. A
shell that nobody is connected to is kept for the server's resume window, or for
--keep.

At the beginning of a line, ~. leaves the shell running and ~? helps. A lost
connection is resumed in place: nothing that you type meanwhile is lost, or typed
twice.`

// shellExecution is the id of a session's shell.
const shellExecution = "shell"

// loginShell runs the shell of the user that commands run as.
const loginShell = `s=${SHELL:-$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f7)}; ` +
	`case $s in ""|*/nologin|*/false) s=$(command -v bash || command -v sh);; esac; exec "$s" -l`

type shellFlags struct {
	keep time.Duration
	env  []string
	cwd  string
}

func (a *app) shellCommand() *cobra.Command {
	f := new(shellFlags)
	cmd := &cobra.Command{
		Use:   "shell [NAME]",
		Short: "Open a shell in a terminal, or come back to one",
		Long:  shellHelp,
		Args:  rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !a.interactive() {
				return usageError(errors.New("shell needs a terminal as stdin and stdout: use troupe exec"))
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return a.shell(cmd.Context(), f, name)
		},
	}
	fs := cmd.Flags()
	fs.Var(settings.Positive(settings.Duration(&f.keep), "leave it out for the server's"), "keep",
		"how long to keep a shell that nobody is connected to; default: the server's resume window")
	fs.VarP(settings.Text(&f.cwd, "directory"), "cwd", "C", "working directory on the server")
	fs.StringArrayVarP(&f.env, "env", "e", nil, "NAME=value, or NAME to pass troupe's own value; can be repeated")
	settings.FlagOnly(fs, "env")
	return cmd
}

// shell comes back to the shell of that name, or opens one.
func (a *app) shell(ctx context.Context, f *shellFlags, name string) error {
	options := wire.SessionOptions{Name: name, ResumeWindow: f.keep}
	if err := options.Check(); err != nil {
		return usageError(err)
	}
	if name != "" {
		id, err := a.runningShell(ctx, name)
		if err != nil {
			return err
		}
		if id != "" {
			a.noteUnused(name)
			return a.attach(ctx, new(attachFlags), []string{id, shellExecution})
		}
	}
	exec := &execFlags{
		command: loginShell, executionID: shellExecution, cwd: f.cwd, env: f.env, tty: true, stdin: true, session: options,
	}
	params, err := exec.params(nil, false)
	if err == nil {
		err = a.inTerminal(exec, &params)
	}
	if err != nil {
		return err
	}
	return a.exec(ctx, exec, params)
}

// noteUnused says which flags a shell that runs already cannot heed.
func (a *app) noteUnused(name string) {
	var unused []string
	for _, flag := range []string{"keep", "cwd", "env"} {
		if a.settings.onLine(flag) {
			unused = append(unused, "--"+flag)
		}
	}
	if len(unused) > 0 {
		a.notef("%s: the shell %s runs already, and only a new one would heed this", strings.Join(unused, ", "), name)
	}
}

// runningShell returns the newest of the user's sessions of that name in which a shell runs; empty: there is none.
func (a *app) runningShell(ctx context.Context, name string) (id string, err error) {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	list, err := a.listSessions(ctx, troupe.SessionQuery{Own: true, Name: name, Limit: 500})
	if err == nil {
		err = incomplete(list)
	}
	if err != nil {
		return "", orInterrupted(ctx, err)
	}
	newest := ""
	for _, s := range list.Sessions {
		for _, x := range s.Executions {
			if x.ID == shellExecution && x.State != wire.StateExited && x.StartedAt >= newest {
				id, newest = s.ID, x.StartedAt
			}
		}
	}
	return id, nil
}

// inTerminal asks for a terminal like the user's.
func (a *app) inTerminal(f *execFlags, p *wire.ExecuteParams) error {
	if f.json || f.lines || f.outputLimit != 0 || f.onOutputLimit != "" || f.encoding != "" {
		return usageError(errors.New(
			"--tty cannot be combined with --json, --lines, --encoding, --output-limit and --on-output-limit"))
	}
	cols, rows := a.size()
	p.Terminal = &wire.Terminal{Cols: cols, Rows: rows}
	if term := os.Getenv("TERM"); term != "dumb" && wire.CheckTerm(term) == nil {
		p.Terminal.Term = term
	}
	return nil
}

// followTerminal shows the terminal of an execution until the command has ended, or the user leaves.
func (a *app) followTerminal(
	ctx context.Context, p *printer, e *troupe.Execution, keys bool, cancel context.CancelCauseFunc,
) (*wire.Completed, error) {
	t, err := a.show(ctx, e, keys, cancel)
	if err != nil {
		return nil, err
	}
	defer t.guard()
	done, err := p.follow(ctx, e)
	a.over.Store(err == nil)
	t.hide(err == nil && done.Reason == wire.ReasonExited)
	return done, err
}

// onlyTerminal returns the one execution that is attached to, if it is to be shown as a terminal.
func (a *app) onlyTerminal(ctx context.Context, c *troupe.Client, execs map[string]*troupe.Execution, json bool,
) *troupe.Execution {
	if len(execs) != 1 || json || !a.interactive() {
		return nil
	}
	status, err := c.Status(ctx)
	if err != nil {
		return nil // following it says why
	}
	for id, e := range execs {
		if status.Executions[id].Terminal != nil && status.Executions[id].Completed == nil {
			return e
		}
	}
	return nil
}

// attachTerminal is attach for a terminal.
func (a *app) attachTerminal(
	ctx context.Context, c *troupe.Client, e *troupe.Execution, st *store, r *record, cancel context.CancelCauseFunc,
) error {
	r.Terminal = true
	p := &printer{a: a, screen: true}
	done, err := a.followTerminal(ctx, p, e, true, cancel)
	switch {
	case err == nil:
		return a.endAttach(ctx, c, st, r, p.report(done))
	case errors.Is(context.Cause(ctx), errLeft) && c.Err() == nil:
		r.Session = c.Detach()
		if err := st.save(r); err != nil {
			a.notef("cannot remember the session: %v", err)
		}
		a.noteLeft(c, r)
		return nil
	}
	return a.leave(ctx, c, st, r, p, err)
}

// noteLeft says what becomes of a command that the user has left.
func (a *app) noteLeft(c *troupe.Client, r *record) {
	window := time.Duration(c.Limits().ResumeWindow * float64(time.Second))
	back := "troupe attach " + r.ID
	if name := c.Connected().Name; name != "" {
		back = fmt.Sprintf("troupe shell %s", name)
	}
	a.notef("left; the command is kept for %s while nobody is connected: %s", window, back)
}
