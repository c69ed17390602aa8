package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// askTimeout bounds the query about one remembered session.
const askTimeout = 5 * time.Second

// nothing follows no execution: querying a session must not replay its output.
var nothing = map[string]int64{}

// seen is a remembered session and what its server says about it.
type seen struct {
	Session   string    `json:"session_id"`
	Server    string    `json:"server"`
	Execution string    `json:"execution_id"`
	State     string    `json:"state"` // wire.State, or gone, unreachable, none
	Offset    int64     `json:"output_bytes"`
	Started   time.Time `json:"started"`
	Command   string    `json:"command"`
	Error     string    `json:"error,omitempty"`
}

func (a *app) sessionsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the sessions started here and ask their servers about them",
		Long: `List the sessions that troupe started on this machine and did not end, with the
state that their servers report. Sessions that are gone are listed one last time
and then forgotten. Asking attaches briefly, so it restarts a session's resume
window. Control characters in names and commands appear as escapes such as \x1b;
--json has the text itself.`,
		Args: rangeArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sessions(cmd.Context(), asJSON) },
	}
	settings.Bool(cmd.Flags(), &asJSON, "json", "", "print one JSON object per line")
	return cmd
}

func (a *app) sessions(ctx context.Context, asJSON bool) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	st := a.store()
	records, broken, err := st.list()
	if err != nil {
		return err
	}
	for _, err := range broken {
		a.notef("%v", err)
	}
	var rows []seen
	for _, r := range records {
		found, gone := a.look(ctx, r)
		if ctx.Err() != nil {
			return orInterrupted(ctx, ctx.Err())
		}
		rows = append(rows, found...)
		if gone {
			st.remove(r)
		} else if !asJSON && found[0].Error != "" {
			a.notef("%s: %s", r.ID, found[0].Error)
		}
	}
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		for _, row := range rows {
			if err := enc.Encode(row); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tEXECUTION\tSTATE\tBYTES\tAGE\tCOMMAND")
	for _, row := range rows {
		age := max(0, time.Since(row.Started).Round(time.Second)) // the clock may have been set back
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", visible(row.Session), visible(row.Execution), visible(row.State),
			row.Offset, age, visible(oneLine(row.Command)))
	}
	return w.Flush()
}

// look asks a session's server about the session. gone means that the session no longer exists.
func (a *app) look(ctx context.Context, r *record) (rows []seen, gone bool) {
	row := seen{Session: r.ID, Server: r.URL, Execution: r.Execution, Started: r.Started, Command: r.Command}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := a.attachTo(ctx, r, nothing, false)
	if err != nil {
		gone = r.forgettable(err)
		row.State, row.Error = "unreachable", err.Error()
		if gone {
			row.State = "gone"
		}
		return []seen{row}, gone
	}
	defer c.Detach()
	status, err := c.Status(ctx)
	if err != nil {
		row.State, row.Error = "unreachable", err.Error()
		return []seen{row}, false
	}
	if len(status.Executions) == 0 {
		row.State = "none"
		return []seen{row}, false
	}
	for _, id := range slices.Sorted(maps.Keys(status.Executions)) {
		e := status.Executions[id]
		row := row
		if id != r.Execution {
			row.Command = ""
		}
		row.Execution, row.State, row.Offset = id, string(e.State), e.Offset
		rows = append(rows, row)
	}
	return rows, false
}

// oneLine shortens a command for a table.
func oneLine(s string) string {
	const most = 60
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

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
