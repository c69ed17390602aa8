package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

const attachHelp = `Go on with a session that 'troupe exec' left: print the output that was not yet
printed, follow it to the end, and exit as the command did. Processes that
outlived the command are followed too. When everything has ended, so does the
session, unless other clients are attached to it.

Ctrl-C leaves: the command runs on, and attach goes on at the same byte later.
To end the command, use troupe cancel.

A terminal is connected with yours, as by exec -it: Ctrl-C goes to the command, and
~. at the beginning of a line leaves.

The session may be named by the beginning of its id. One that another machine has
started is taken up with your token alone: the server gives its owner a resume token.
--resume-token (better: TROUPE_RESUME_TOKEN, which the process list does not show) is
for sessions of others.

` + exitCodeHelp

type attachFlags struct {
	resumeToken string
	fromStart   bool
	json        bool
}

func (a *app) attachCommand() *cobra.Command {
	f := new(attachFlags)
	cmd := &cobra.Command{
		Use:               "attach SESSION [EXECUTION]",
		Short:             "Follow a session that was left running",
		Long:              attachHelp,
		Args:              rangeArgs(1, 2),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.attach(cmd.Context(), f, args)
		},
	}
	fs := cmd.Flags()
	fs.Var(settings.Text(&f.resumeToken, "token"), "resume-token",
		"the session's resume token; prefer TROUPE_RESUME_TOKEN")
	settings.Bool(fs, &f.fromStart, "from-start", "", "print all of the output again")
	settings.Bool(fs, &f.json, "json", "", "print the server's notifications, one JSON object per line")
	settings.FlagOnly(fs, "from-start")
	return cmd
}

func (a *app) attach(ctx context.Context, f *attachFlags, args []string) error {
	r, st, err := a.session(args[0], f.resumeToken)
	if errors.Is(err, errUnknownSession) {
		if r, err = a.sessionFromServer(ctx, args[0]); hasNoAPI(err) {
			err = errUnknownSession
		}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sig := a.watchSignals(cancel) // not forwarded: an interrupt detaches
	defer sig.stop()

	c, err := a.attachTo(ctx, r, followed(f, r, args), true)
	if err != nil {
		if r.forgettable(err) {
			st.remove(r)
		}
		return orInterrupted(ctx, err)
	}
	execs := c.Executions()
	if len(execs) == 0 {
		c.Detach()
		return fmt.Errorf("session %s has no such execution", r.ID)
	}
	if e := a.onlyTerminal(ctx, c, execs, f.json); e != nil {
		return a.attachTerminal(ctx, c, e, st, r, cancel)
	}
	p := &printer{a: a, json: f.json, encoding: wire.EncodingBase64, dropOK: r.DropOK}
	result, err := p.followAll(ctx, c, execs)
	if err != nil {
		return a.leave(ctx, c, st, r, p, err)
	}
	a.over.Store(true)
	return a.endAttach(ctx, c, st, r, result)
}

// sessionFromServer returns a record of a session that is not remembered here: the server gives its own subject a
// resume token.
func (a *app) sessionFromServer(ctx context.Context, name string) (*record, error) {
	id, err := a.sessionOnServer(ctx, name, true)
	if err != nil {
		return nil, err
	}
	r := &record{Started: time.Now().UTC(), elsewhere: true}
	return r, a.withAPI(func(api *troupe.API) error {
		given, err := api.AttachSession(ctx, id)
		if err != nil {
			return err
		}
		url, err := serverURL(a.settings.server)
		r.Session = troupe.Session{URL: url, ID: id, ResumeToken: given.ResumeToken}
		return err
	})
}

// followAll prints executions one after the other, and then what their kept processes write. result
// is the first that is not a success.
func (p *printer) followAll(
	ctx context.Context, c *troupe.Client, execs map[string]*troupe.Execution,
) (result, err error) {
	var kept []*troupe.Execution
	for _, id := range slices.Sorted(maps.Keys(execs)) {
		done, err := p.follow(ctx, execs[id])
		if err != nil {
			return nil, err
		}
		if err := p.report(done); err != nil && result == nil {
			result = err
		}
		if done.Survivors != nil && done.Survivors.Kept {
			kept = append(kept, execs[id])
		}
	}
	for _, e := range kept {
		if err := p.followKept(ctx, c, e); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// followed returns the offsets to continue from. If args name an execution, it follows only that.
func followed(f *attachFlags, r *record, args []string) map[string]int64 {
	offsets := maps.Clone(r.Offsets)
	if len(args) == 2 {
		offsets = map[string]int64{args[1]: offsets[args[1]]}
	}
	if len(offsets) == 0 {
		return nil // everything
	}
	if f.fromStart || r.Terminal {
		for id := range offsets {
			offsets[id] = 0
		}
	}
	return offsets
}

// leave detaches from the session and remembers how far its output was read.
func (a *app) leave(ctx context.Context, c *troupe.Client, st *store, r *record, p *printer, err error) error {
	if end := c.Err(); end != nil {
		if r.ended(end) {
			st.remove(r)
		}
		return a.explain(r.URL, err)
	}
	r.Session = c.Detach()
	p.rewind(r)
	if saveErr := st.save(r); saveErr != nil {
		a.notef("cannot remember the session: %v", saveErr)
	}
	switch cause := a.causeOf(ctx, err); {
	case errors.Is(err, errNobodyReads):
		return err
	case errors.Is(cause, errHangup):
		return &exitError{exitHangup, nil}
	case cause != nil:
		return &exitError{signalCode(cause), fmt.Errorf("detached; the command keeps running: troupe attach %s", r.ID)}
	}
	return err
}

// endAttach says goodbye if nothing runs in the session any more, and detaches from it otherwise. The
// session ends with the goodbye unless others are still attached.
func (a *app) endAttach(ctx context.Context, c *troupe.Client, st *store, r *record, result error) error {
	status, err := c.Status(ctx)
	if err == nil && !busy(status) {
		c.Leave()
		if !r.Held {
			st.remove(r)
		}
		return result
	}
	if end := c.Err(); end != nil { // the session ended meanwhile, for example because the server drained
		if r.ended(end) {
			st.remove(r)
		}
		return result
	}
	r.Session = c.Detach()
	if err := st.save(r); err != nil {
		a.notef("cannot remember the session: %v", err)
	}
	return result
}

// busy reports whether any process of the session is alive.
func busy(status *wire.StatusResult) bool {
	for _, e := range status.Executions {
		if e.State != wire.StateExited {
			return true
		}
	}
	return false
}

// rangeArgs is cobra.RangeArgs with a usage error.
func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(args); {
		case n > high && high == 0:
			return usageError(fmt.Errorf("%s takes no arguments, and got %q", cmd.Name(), args[0]))
		case n > high:
			return usageError(fmt.Errorf("%s takes at most %d arguments, and got %d: %s", cmd.Name(), high, n, cmd.UseLine()))
		case n < low:
			return usageError(fmt.Errorf("%s needs the name of a session: %s", cmd.Name(), cmd.UseLine()))
		}
		for i, arg := range args {
			if err := checkUTF8(fmt.Sprintf("argument %d of %s", i+1, cmd.Name()), arg); err != nil {
				return err
			}
		}
		return nil
	}
}

func (a *app) completeSessions(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion,
	cobra.ShellCompDirective,
) {
	if len(args) > 0 || a.settings.load(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	records, _, err := a.store().list()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []cobra.Completion
	for _, r := range records {
		ids = append(ids, cobra.CompletionWithDesc(r.ID, visible(oneLine(r.Command))))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
