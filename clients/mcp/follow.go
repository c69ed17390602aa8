package mcp

import (
	"context"
	"fmt"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// following is a connection that follows one execution from offset on.
type following struct {
	d         *Door
	who       caller
	client    *troupe.Client
	execution *troupe.Execution
	status    wire.ExecutionStatus
	offset    int64
}

// fromEnd follows an execution from what it prints next.
func fromEnd(status wire.ExecutionStatus) int64 { return status.Offset }

// follow connects to an execution of any age, at the offset that from chooses.
func (d *Door) follow(
	ctx context.Context, req *sdk.CallToolRequest, in executionInput, from func(wire.ExecutionStatus) int64,
) (*following, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	who := callerOf(req.Extra)
	session, err := d.session(ctx, who, in.Session)
	if err != nil {
		return nil, explain(err)
	}
	return d.followIn(ctx, who, session, in.Execution, from)
}

func (d *Door) followIn(
	ctx context.Context, who caller, session, execution string, from func(wire.ExecutionStatus) int64,
) (*following, error) {
	status, err := d.status(ctx, who, session, execution)
	if err != nil {
		return nil, err
	}
	offset := from(status)
	if offset < 0 || offset > status.Offset {
		return nil, fmt.Errorf("offset %d is outside of the output of execution %s, which has %d bytes so far",
			offset, execution, status.Offset)
	}
	c, err := d.sessions.attach(ctx, who, session, map[string]int64{execution: offset})
	if err != nil {
		return nil, explain(err)
	}
	f := &following{
		d: d, who: who, client: c, execution: c.Executions()[execution], status: status, offset: offset,
	}
	if f.execution == nil {
		f.close()
		return nil, errNoExecution(execution)
	}
	return f, nil
}

func errNoExecution(id string) error {
	return fmt.Errorf("no execution %.80q in this session: list shows those that there are", id)
}

// status asks for the state of an execution.
func (d *Door) status(ctx context.Context, who caller, session, execution string) (wire.ExecutionStatus, error) {
	all, err := d.statusOf(ctx, who, session)
	if err != nil {
		return wire.ExecutionStatus{}, err
	}
	status, ok := all.Executions[execution]
	if !ok {
		return status, errNoExecution(execution)
	}
	return status, nil
}

// statusOf asks for the state of a session.
func (d *Door) statusOf(ctx context.Context, who caller, session string) (*wire.StatusResult, error) {
	c, err := d.sessions.take(ctx, who, session)
	if err != nil {
		return nil, explain(err)
	}
	defer d.sessions.release(who, c)
	all, err := c.Status(ctx)
	return all, explain(err)
}

// close gives the connection back. One that has not seen the end of its execution is of no more use.
func (f *following) close() { f.d.sessions.release(f.who, f.client) }

// report waits for the end of the execution with w, and says what it saw.
func (f *following) report(ctx context.Context, w *watcher) (*report, error) {
	if began, err := time.Parse(time.RFC3339, f.status.StartedAt); err == nil {
		w.age = max(0, w.began.Sub(began).Seconds())
	}
	if err := w.watch(ctx, f.execution); err != nil {
		return nil, explain(err)
	}
	r := w.report(f.client, f.execution.ID())
	if w.done == nil {
		r.State = f.status.State
	}
	return r, nil
}
