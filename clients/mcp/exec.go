package mcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

type execInput struct {
	Session     string            `json:"session"`
	Command     string            `json:"command"`
	Argv        []string          `json:"argv"`
	Cwd         string            `json:"cwd"`
	Env         map[string]string `json:"env"`
	Stdin       string            `json:"stdin"`
	KeepStdin   bool              `json:"keep_stdin"`
	Terminal    bool              `json:"terminal"`
	MaxSeconds  float64           `json:"max_seconds"`
	ExecutionID string            `json:"execution_id"`
	bounds
}

// exec runs a command, and waits for its end for a while.
func (d *Door) exec(ctx context.Context, req *sdk.CallToolRequest, in execInput) (*report, error) {
	params, err := in.params(req)
	if err != nil {
		return nil, err
	}
	w := newWatcher(req, in.yield(defaultYield), newExcerpt(in.output(), 0))
	who := callerOf(req.Extra)
	start, cancel := context.WithDeadline(ctx, later(w.until, w.began.Add(answerTime)))
	defer cancel()
	session, err := d.session(start, who, in.Session)
	if err != nil {
		return nil, explain(err)
	}
	c, err := d.sessions.take(start, who, session)
	if err != nil {
		return nil, explain(err)
	}
	defer d.sessions.release(who, c)
	e, err := c.Execute(start, params)
	if err != nil {
		return nil, explainExec(err, session, params.ExecutionID)
	}
	if in.Terminal {
		return d.execTerminal(ctx, c, e, in)
	}
	taken := len(in.Stdin)
	if in.Stdin != "" {
		taken, err = w.feed(ctx, e, in.Stdin, !in.KeepStdin)
	}
	if err == nil || unread(err) { // it has ended, or closed its stdin: its end says more
		err = w.watch(ctx, e)
	}
	if err != nil {
		return nil, explainExec(err, session, params.ExecutionID)
	}
	r := w.report(c, e.ID())
	if taken < len(in.Stdin) && w.done == nil {
		r.partly(taken, len(in.Stdin))
	}
	return r, nil
}

// execTerminal waits until a program that was started in a terminal has drawn.
func (d *Door) execTerminal(
	ctx context.Context, c *troupe.Client, e *troupe.Execution, in execInput,
) (*report, error) {
	v := d.newView(c, e, in.yield(screenYield))
	defer v.leave()
	err := v.resize(ctx, terminalCols, terminalRows)
	if err == nil {
		err = v.watch(ctx, true)
	}
	if err != nil {
		return nil, explainExec(err, c.ID(), e.ID())
	}
	return v.report(), nil
}

// partly says that a command has not read all that was passed to it.
func (r *report) partly(taken, of int) {
	r.Stdin = &taken
	r.Message = joinSentences(r.Message,
		fmt.Sprintf("%d of %d bytes of stdin are passed on, the command reads no more: pass the rest with write_stdin", taken, of))
}

func (in *execInput) params(req *sdk.CallToolRequest) (wire.ExecuteParams, error) {
	p := wire.ExecuteParams{
		Command: in.Command, Argv: in.Argv, ExecutionID: in.ExecutionID, Cwd: in.Cwd, Env: in.Env,
		Stdin: in.Stdin != "" || in.KeepStdin, MaxDuration: in.MaxSeconds,
		Framing: wire.FramingRaw, Encoding: wire.EncodingBase64,
	}
	switch {
	case in.Command != "" && len(in.Argv) > 0:
		return p, errors.New("command and argv exclude each other: give command for a line of shell, argv for a program")
	case in.Command == "" && len(in.Argv) == 0:
		return p, errors.New("give command, a line of shell, or argv, a program with its arguments")
	case in.Terminal && p.Stdin:
		return p, errors.New("terminal excludes stdin and keep_stdin: send_keys and write_stdin type")
	case in.Terminal:
		p.Terminal = &wire.Terminal{Cols: terminalCols, Rows: terminalRows}
		p.Framing = ""
	}
	if p.ExecutionID == "" {
		p.ExecutionID = strings.ToLower(rand.Text()[:13])
	}
	if traceparent, ok := req.Params.Meta["traceparent"].(string); ok {
		p.Traceparent = traceparent
	}
	return p, nil
}

// feed writes stdin. It gives up when the time of the call is over, and returns how much the server
// has taken to pass on.
func (w *watcher) feed(ctx context.Context, e *troupe.Execution, stdin string, last bool) (taken int, err error) {
	ctx, cancel := context.WithDeadline(ctx, later(w.until, w.began.Add(answerTime)))
	defer cancel()
	taken, err = e.Input(ctx, []byte(stdin))
	if err == nil && last {
		err = e.CloseInput(ctx)
	}
	var partly *troupe.InputError
	if errors.Is(err, context.DeadlineExceeded) {
		if errors.As(err, &partly) {
			taken += partly.InDoubt // it arrives once the command reads
		}
		return taken, nil
	}
	return taken, err
}

// unread reports whether err says that no process reads stdin any more.
func unread(err error) bool {
	code := wire.CodeOf(err)
	return code == wire.CodeInputUnavailable || code == wire.CodeNoProcess
}

type executionInput struct {
	Session   string `json:"session"`
	Execution string `json:"execution"`
}

type waitInput struct {
	executionInput
	Offset *int64 `json:"offset"`
	bounds
}

// wait waits for the end of an execution for a while.
func (d *Door) wait(ctx context.Context, req *sdk.CallToolRequest, in waitInput) (*report, error) {
	f, err := d.follow(ctx, req, in.executionInput, func(status wire.ExecutionStatus) int64 {
		if in.Offset != nil {
			return *in.Offset
		}
		return max(0, status.Offset-int64(in.output()))
	})
	if err != nil {
		return nil, err
	}
	defer f.close()
	return f.report(ctx, newWatcher(req, in.yield(defaultYield), newExcerpt(in.output(), f.offset)))
}

type stdinInput struct {
	executionInput
	Text string `json:"text"`
	EOF  bool   `json:"eof"`
	bounds
}

// stdinYield is how long write_stdin waits for what the command answers.
const stdinYield = time.Second

// writeStdin passes text to a command, and returns what it prints after that.
func (d *Door) writeStdin(ctx context.Context, req *sdk.CallToolRequest, in stdinInput) (*report, error) {
	if in.Text == "" && !in.EOF {
		return nil, errors.New("give text, or eof true to close stdin")
	}
	f, err := d.follow(ctx, req, in.executionInput, fromEnd)
	if err != nil {
		return nil, err
	}
	defer f.close()
	w := newWatcher(req, in.yield(stdinYield), newExcerpt(in.output(), f.offset))
	taken, err := w.feed(ctx, f.execution, in.Text, in.EOF)
	switch {
	case unread(err):
		return nil, fmt.Errorf("execution %s reads no stdin: it has ended, its stdin is closed, "+
			"or it was started without stdin or keep_stdin", in.Execution)
	case err != nil:
		return nil, explain(err)
	}
	r, err := f.report(ctx, w)
	if err == nil && taken < len(in.Text) {
		r.partly(taken, len(in.Text))
	}
	return r, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
