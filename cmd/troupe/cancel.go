package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

func (a *app) cancelCommand() *cobra.Command {
	var end bool
	var resumeToken string
	cmd := &cobra.Command{
		Use:   "cancel SESSION [EXECUTION]",
		Short: "Cancel the executions of a session",
		Long: `Cancel one execution of a session, or all of them: the server sends SIGTERM to
their processes, and SIGKILL after its grace. troupe does not wait for them to
end. With --end the session ends immediately, and everything in it with it.`,
		Args:              rangeArgs(1, 2),
		ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return orInterrupted(ctx, a.cancel(ctx, args, resumeToken, end))
		},
	}
	fs := cmd.Flags()
	settings.Bool(fs, &end, "end", "", "end the session")
	fs.Var(settings.Text(&resumeToken, "token"), "resume-token", "the session's resume token; prefer TROUPE_RESUME_TOKEN")
	settings.FlagOnly(fs, "end")
	return cmd
}

func (a *app) cancel(ctx context.Context, args []string, resumeToken string, end bool) error {
	r, st, err := a.session(args[0], resumeToken)
	if err != nil {
		return err
	}
	c, err := a.attachTo(ctx, r, nothing, true)
	if err != nil {
		if r.forgettable(err) {
			st.remove(r)
		}
		return err
	}
	if end {
		if err := c.Close(); err != nil {
			return err
		}
		st.remove(r)
		return nil
	}
	defer c.Detach()
	if len(args) == 2 {
		return cancelOne(ctx, c, args[1])
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for id, e := range status.Executions {
		if e.State == wire.StateExited {
			continue
		}
		if err := cancelOne(ctx, c, id); wire.CodeOf(err) != wire.CodeNoProcess { // else it has ended meanwhile
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func cancelOne(ctx context.Context, c *troupe.Client, id string) error {
	_, err := c.Control(ctx, wire.ControlParams{Type: wire.ControlCancel, ExecutionID: id})
	if err != nil {
		return fmt.Errorf("cancelling %s: %w", id, err)
	}
	return nil
}
