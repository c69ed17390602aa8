package mcp

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
)

type openInput struct {
	Name string `json:"name"`
}

type opened struct {
	Session     string  `json:"session"`
	Pod         string  `json:"pod"`
	Isolation   string  `json:"isolation"`
	IdleSeconds float64 `json:"idle_seconds"` // it lasts this long when nothing runs
}

// openSession opens a session.
func (d *Door) openSession(ctx context.Context, req *sdk.CallToolRequest, in openInput) (*opened, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerTime)
	defer cancel()
	who := callerOf(req.Extra)
	options := wire.SessionOptions{Name: in.Name}
	if err := options.Check(); err != nil {
		return nil, err
	}
	c, err := d.sessions.open(ctx, who, options)
	if err != nil {
		return nil, explain(err)
	}
	defer d.sessions.release(who, c)
	hello := c.Connected()
	return &opened{
		Session: c.ID(), Pod: hello.Pod, Isolation: hello.Isolation, IdleSeconds: c.Limits().IdleTimeout,
	}, nil
}

func (o *opened) result() *sdk.CallToolResult {
	return textResult(fmt.Sprintf("session %s on pod %s, isolation %s", o.Session, o.Pod, o.Isolation))
}

type sessionInput struct {
	Session string `json:"session"`
}

type closed struct {
	Session string `json:"session"`
	Status  string `json:"status"`
}

// closeSession ends a session and what runs in it.
func (d *Door) closeSession(ctx context.Context, req *sdk.CallToolRequest, in sessionInput) (*closed, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	who := callerOf(req.Extra)
	session, err := d.session(ctx, who, in.Session)
	if err != nil {
		return nil, explain(err)
	}
	c, err := d.sessions.take(ctx, who, session)
	if err != nil {
		return nil, explain(err)
	}
	if err := c.Close(); err != nil {
		return nil, explain(err)
	}
	d.sessions.forget(sessionKey{who.subject, session})
	d.mu.Lock()
	if d.own == session {
		d.own = ""
	}
	d.mu.Unlock()
	return &closed{session, "closed"}, nil
}

func (c *closed) result() *sdk.CallToolResult {
	return textResult(fmt.Sprintf("session %s is closed", c.Session))
}

// listed is the result of list.
type listed struct {
	Session    string            `json:"session"`
	Pod        string            `json:"pod"`
	Executions []listedExecution `json:"executions"`
	More       int               `json:"more,omitempty"` // older ones that are not shown
}

type listedExecution struct {
	Execution string      `json:"execution"`
	State     wire.State  `json:"state"`
	Started   string      `json:"started"`
	Bytes     int64       `json:"output_bytes"`
	Reason    wire.Reason `json:"reason,omitempty"`
	ExitCode  *int        `json:"exit_code,omitempty"`
}

// maxListed bounds a list. A session remembers about as many executions.
const maxListed = 60

// list shows the executions of a session, the newest first.
func (d *Door) list(ctx context.Context, req *sdk.CallToolRequest, in sessionInput) (*listed, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	who := callerOf(req.Extra)
	session, err := d.session(ctx, who, in.Session)
	if err != nil {
		return nil, explain(err)
	}
	status, err := d.statusOf(ctx, who, session)
	if err != nil {
		return nil, err
	}
	out := &listed{Session: session, Pod: status.Pod, Executions: []listedExecution{}}
	for id, x := range status.Executions {
		if strings.HasPrefix(id, fileExecution) {
			continue
		}
		e := listedExecution{Execution: id, State: x.State, Started: x.StartedAt, Bytes: x.Offset}
		if done := x.Completed; done != nil {
			e.Reason = done.Reason
			if done.ExitCode >= 0 {
				e.ExitCode = &done.ExitCode
			}
		}
		out.Executions = append(out.Executions, e)
	}
	slices.SortFunc(out.Executions, func(a, b listedExecution) int {
		return cmp.Or(cmp.Compare(b.Started, a.Started), cmp.Compare(a.Execution, b.Execution))
	})
	if more := len(out.Executions) - maxListed; more > 0 {
		out.Executions, out.More = out.Executions[:maxListed], more
	}
	return out, nil
}

func (l *listed) result() *sdk.CallToolResult {
	var b strings.Builder
	fmt.Fprintf(&b, "session %s on pod %s: %d executions\n", l.Session, l.Pod, len(l.Executions)+l.More)
	for _, e := range l.Executions {
		fmt.Fprintf(&b, "%s %s since %s, %d bytes of output", e.Execution, e.State, e.Started, e.Bytes)
		if e.ExitCode != nil {
			fmt.Fprintf(&b, ", exit code %d", *e.ExitCode)
		} else if e.Reason != "" {
			fmt.Fprintf(&b, ", %s", e.Reason)
		}
		b.WriteString("\n")
	}
	if l.More > 0 {
		fmt.Fprintf(&b, "and %d older ones\n", l.More)
	}
	return textResult(b.String())
}
