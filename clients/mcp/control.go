package mcp

import (
	"context"
	"fmt"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// cancelTime is how long cancel waits for a tree to die, beyond the server's grace.
const cancelTime = 10 * time.Second

// cancel ends an execution, and answers when all of its processes are dead.
func (d *Door) cancel(ctx context.Context, req *sdk.CallToolRequest, in executionInput) (*report, error) {
	f, err := d.follow(ctx, req, in, func(status wire.ExecutionStatus) int64 {
		return max(0, status.Offset-(defaultBytes-reportBytes))
	})
	if err != nil {
		return nil, err
	}
	defer f.close()
	ask, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := f.execution.Cancel(ask); err != nil && wire.CodeOf(err) != wire.CodeNoProcess { // it has ended by itself
		return nil, explain(err)
	}
	grace := time.Duration(f.client.Limits().CancelGrace * float64(time.Second))
	w := newWatcher(req, grace+cancelTime, newExcerpt(defaultBytes-reportBytes, f.offset))
	r, err := f.report(ctx, w)
	if err == nil && w.done == nil {
		r.State = wire.StateCanceling
		r.Message = joinSentences(r.Message, "the command is being killed, but is not dead yet: wait for it")
	}
	return r, err
}

type signalInput struct {
	executionInput
	Signal string `json:"signal"`
}

// controlled is the result of signal, pause and resume.
type controlled struct {
	Session   string `json:"session"`
	Execution string `json:"execution"`
	Status    string `json:"status"`
}

// signal sends a signal to the process group of a command.
func (d *Door) signal(ctx context.Context, req *sdk.CallToolRequest, in signalInput) (*controlled, error) {
	return d.control(ctx, req, in.executionInput, func(ctx context.Context, c *troupe.Client) (string, error) {
		return "sent", c.Signal(ctx, wire.SignalParams{ExecutionID: in.Execution, Signal: in.Signal})
	})
}

// pause and resume stop a tree of processes and let it go on.
func (d *Door) pause(ctx context.Context, req *sdk.CallToolRequest, in executionInput) (*controlled, error) {
	return d.control(ctx, req, in, controlType(wire.ControlPause, in.Execution))
}

func (d *Door) resume(ctx context.Context, req *sdk.CallToolRequest, in executionInput) (*controlled, error) {
	return d.control(ctx, req, in, controlType(wire.ControlResume, in.Execution))
}

func controlType(kind, execution string) func(context.Context, *troupe.Client) (string, error) {
	return func(ctx context.Context, c *troupe.Client) (string, error) {
		result, err := c.Control(ctx, wire.ControlParams{Type: kind, ExecutionID: execution})
		if err != nil {
			return "", err
		}
		return result.Status, nil
	}
}

func (d *Door) control(
	ctx context.Context, req *sdk.CallToolRequest, in executionInput,
	do func(context.Context, *troupe.Client) (string, error),
) (*controlled, error) {
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
	defer d.sessions.release(who, c)
	status, err := do(ctx, c)
	if wire.CodeOf(err) == wire.CodeNoProcess {
		return nil, fmt.Errorf("execution %s is not running: it has ended, or never was in this session", in.Execution)
	}
	if err != nil {
		return nil, explain(err)
	}
	return &controlled{session, in.Execution, status}, nil
}

func (c *controlled) result() *sdk.CallToolResult {
	return textResult(fmt.Sprintf("%s: execution %s in session %s", c.Status, c.Execution, c.Session))
}

func textResult(s string) *sdk.CallToolResult {
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
}
