package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/cmd/internal/settings"
)

// watchEvery is how often sessions --watch asks the server.
const watchEvery = 2 * time.Second

// Values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

type sessionsFlags struct {
	output string
	all    bool
	watch  bool
	local  bool
	labels []string
	name   string
}

const sessionsHelp = `List your sessions on the server, on all of its pods, whichever machine started
them: who runs what, since when, and how much it has printed. --all lists those of
everybody, which the server lets operators do.

A pod that does not answer within 2 seconds is named, and the exit code is 125: its
sessions are not in the list. Control characters in what others chose appear as
escapes such as \x1b.

--local lists what this machine remembers instead, and asks the server of each. Sessions
that are gone are listed one last time and then forgotten. Asking attaches briefly, so it
restarts a session's resume window.`

func (a *app) sessionsCommand() *cobra.Command {
	f := &sessionsFlags{output: outputTable}
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List sessions, and what runs in them",
		Long:  sessionsHelp,
		Args:  rangeArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			return orInterrupted(ctx, a.sessions(ctx, f))
		},
	}
	fs := cmd.Flags()
	fs.VarP(settings.Choice(&f.output, outputTable, outputJSON), "output", "o", "json: one object per session and line")
	settings.Bool(fs, &f.all, "all", "a", "list the sessions of everybody")
	settings.Bool(fs, &f.watch, "watch", "w", "list them again every 2 seconds")
	settings.Bool(fs, &f.local, "local", "", "list what this machine remembers")
	fs.VarP(settings.List(&f.labels, "key=value,...", ","), "label", "l", "only sessions with these labels")
	fs.Var(settings.Text(&f.name, "name"), "name", "only sessions of this name")
	settings.FlagOnly(fs, "all", "watch", "local", "label", "name")
	cmd.AddCommand(a.removeSessionsCommand())
	return cmd
}

func (a *app) sessions(ctx context.Context, f *sessionsFlags) error {
	if f.local {
		if f.all || f.watch || len(f.labels) > 0 || f.name != "" {
			return usageError(errors.New("--local goes with --output only: the other flags ask the server"))
		}
		return a.localSessions(ctx, f.output == outputJSON)
	}
	query := troupe.SessionQuery{All: f.all, Own: !f.all, Name: f.name, Limit: 500}
	for _, label := range f.labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok {
			return usageError(fmt.Errorf("label %q: write key=value", label))
		}
		if query.Labels == nil {
			query.Labels = make(map[string]string, len(f.labels))
		}
		query.Labels[key] = value
	}
	for {
		list, err := a.listSessions(ctx, query)
		if err != nil {
			return err
		}
		if err := a.printSessions(f, list); err != nil {
			return err
		}
		if !f.watch {
			return incomplete(list)
		}
		if err := incomplete(list); err != nil {
			a.notef("%v", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// listSessions returns all pages.
func (a *app) listSessions(ctx context.Context, query troupe.SessionQuery) (*wire.SessionList, error) {
	all := new(wire.SessionList)
	return all, a.withAPI(func(api *troupe.API) error {
		for {
			page, err := api.Sessions(ctx, query)
			if err != nil {
				return err
			}
			all.Sessions = append(all.Sessions, page.Sessions...)
			all.Missing = page.Missing
			if query.After = page.Continue; query.After == "" {
				return nil
			}
		}
	})
}

// withAPI calls the configured server's API and explains its error.
func (a *app) withAPI(f func(*troupe.API) error) error {
	url, err := serverURL(a.settings.server)
	if err != nil {
		return err
	}
	opt, err := a.options(a.configured())
	if err != nil {
		return err
	}
	api, err := troupe.NewAPI(url, opt)
	if err != nil {
		return err
	}
	err = f(api)
	var refused *troupe.APIError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return a.explain(url, err)
	case refused.StatusCode == 401:
		return &explained{fmt.Sprintf("%s did not authenticate you (401 %s): set TROUPE_TOKEN or --token-file",
			url, oneLine(refused.Detail)), err}
	case hasNoAPI(err):
		return &explained{url + " has no HTTP API (404): its release is before 0.2, or a proxy passes /ws only", err}
	}
	return err
}

// hasNoAPI reports whether err is the answer of a server that does not serve the API.
func hasNoAPI(err error) bool {
	var refused *troupe.APIError
	return errors.As(err, &refused) && refused.StatusCode == 404 && !refused.Problem
}

// incomplete says which pods are not in a list.
func incomplete(list *wire.SessionList) error {
	if len(list.Missing) == 0 {
		return nil
	}
	var pods []string
	for _, m := range list.Missing {
		pods = append(pods, fmt.Sprintf("%s (%s)", visible(m.Pod), visible(m.Reason)))
	}
	return fmt.Errorf("the list lacks the sessions of %s", strings.Join(pods, ", "))
}

func (a *app) printSessions(f *sessionsFlags, list *wire.SessionList) error {
	if f.output == outputJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		for _, s := range list.Sessions {
			if err := enc.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	if f.watch && a.onTerminal() {
		fmt.Fprint(a.stdout, "\x1b[H\x1b[2J") // the cursor to the corner, and everything erased
	}
	return sessionTable(a.stdout, list.Sessions, f.all, time.Now())
}

// sessionTable prints a line for each execution that is not over, and one for each session without any.
func sessionTable(out io.Writer, sessions []wire.Session, subjects bool, now time.Time) error {
	if len(sessions) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	head := []string{
		"SESSION",
		"NAME",
		"SUBJECT",
		"STATE",
		"ISOLATION",
		"AGE",
		"EXECUTION",
		"STATE",
		"FOR",
		"BYTES",
		"MEMORY",
		"COMMAND",
	}
	line := func(cells []string) {
		if !subjects {
			cells = append(cells[:2:2], cells[3:]...)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	line(head)
	for _, s := range sessions {
		about := []string{
			visible(s.ID), cmp.Or(visible(s.Name), "-"), visible(s.Subject), visible(string(s.State)),
			cmp.Or(visible(s.Isolation), "-"), since(s.CreatedAt, now),
		}
		if len(s.Executions) == 0 {
			line(append(about[:6:6], "-", "-", "-", "-", "-", ""))
		}
		for _, x := range s.Executions {
			line(append(about[:6:6], visible(x.ID), visible(string(x.State)), since(x.StartedAt, now),
				fmt.Sprint(x.Offset), amount(x.MemoryBytes), visible(oneLine(x.Command))))
		}
		if n := s.ExecutionsOmitted; n > 0 {
			line(append(about[:6:6], fmt.Sprintf("and %d more", n), "", "", "", "", ""))
		}
	}
	return w.Flush()
}

// since returns how long ago a time was, for people.
func since(timestamp string, now time.Time) string {
	t, err := time.Parse(time.RFC3339Nano, timestamp)
	if err != nil {
		return "-"
	}
	switch d := max(0, now.Sub(t)); { // clocks differ
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// amount returns a number of bytes, for people.
func amount(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n < 1<<20:
		return fmt.Sprintf("%dKi", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%dMi", n>>20)
	}
	return fmt.Sprintf("%dGi", n>>30)
}

func (a *app) removeSessionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm SESSION...",
		Short: "End sessions, and what runs in them",
		Long: `End sessions on the server, whichever machine started them: what runs in them is
cancelled. troupe does not wait for the end. A session may be named by the beginning
of its id. The server lets operators end the sessions of others.`,
		Args: func(cmd *cobra.Command, args []string) error { return rangeArgs(1, max(1, len(args)))(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			var errs []error
			for _, name := range args {
				errs = append(errs, a.endSession(ctx, name))
			}
			return orInterrupted(ctx, errors.Join(errs...))
		},
	}
}

func (a *app) endSession(ctx context.Context, name string) error {
	id, err := a.sessionOnServer(ctx, name, false)
	if err != nil {
		return err
	}
	err = a.withAPI(func(api *troupe.API) error {
		_, err := api.EndSession(ctx, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", visible(id), err)
	}
	fmt.Fprintf(a.stdout, "%s is ending\n", visible(id))
	return nil
}

// idDigits is how many hexadecimal digits are at the end of a session's id, behind a dot.
const idDigits = 32

// sessionOnServer returns the id of the session on the server whose id begins with name.
func (a *app) sessionOnServer(ctx context.Context, name string, own bool) (string, error) {
	if dot := strings.LastIndexByte(name, '.'); dot > 0 && len(name)-dot-1 == idDigits {
		return name, plainID(name)
	}
	list, err := a.listSessions(ctx, troupe.SessionQuery{Own: own, Limit: 500})
	if err != nil {
		return "", err
	}
	var found []string
	for _, s := range list.Sessions {
		if strings.HasPrefix(s.ID, name) {
			found = append(found, s.ID)
		}
	}
	switch {
	case len(found) == 1 && len(list.Missing) == 0:
		return found[0], plainID(found[0])
	case len(found) > 1:
		return "", fmt.Errorf(
			"%d sessions begin with %q, such as %s and %s",
			len(found),
			name,
			visible(found[0]),
			visible(found[1]),
		)
	case len(list.Missing) > 0:
		return "", fmt.Errorf("give the whole id of %q: %w", name, incomplete(list))
	}
	return "", fmt.Errorf(
		"no such session: none begins with %q, neither here nor on the server; see troupe sessions",
		name,
	)
}
