package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
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

// localSessions lists the sessions that troupe has started on this machine and asks their servers about them.
func (a *app) localSessions(ctx context.Context, asJSON bool) error {
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
