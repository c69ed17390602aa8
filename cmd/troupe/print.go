package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// printer writes the events of executions.
type printer struct {
	a        *app
	json     bool
	encoding wire.Encoding // of Data in JSON
	dropOK   bool          // the user said --on-output-limit=drop
	screen   bool          // it is a terminal's, where a gap is nothing lost: what is drawn next covers it

	// Of the execution that is printed.
	execution string
	offset    int64    // transcript position up to which it was written
	gap       int64    // bytes that were no longer on the server
	reasons   []string // why the server dropped output
}

// rewind lets a later attach print again what was read from the server and could not be written.
func (p *printer) rewind(r *record) {
	if _, open := r.Offsets[p.execution]; open {
		r.Offsets[p.execution] = p.offset
	}
}

// follow prints an execution until the command has ended. Processes that are kept may continue to
// write; followKept shows that.
func (p *printer) follow(ctx context.Context, e *troupe.Execution) (*wire.Completed, error) {
	p.execution, p.offset, p.gap, p.reasons = e.ID(), e.Offset(), 0, nil
	for {
		ev, err := p.next(ctx, e)
		if errors.Is(err, io.EOF) {
			return e.Wait(ctx)
		}
		if err != nil {
			return nil, err
		}
		if done, ok := ev.(*troupe.Completed); ok {
			return &done.Completed, nil
		}
	}
}

// next waits for the next event and prints it.
func (p *printer) next(ctx context.Context, e *troupe.Execution) (troupe.Event, error) {
	ev, err := e.Next(ctx)
	if err != nil {
		return nil, err
	}
	if p.json {
		err = p.line(e.ID(), ev)
	} else {
		err = p.plain(ev)
	}
	if err != nil {
		return nil, err
	}
	switch ev := ev.(type) {
	case *troupe.Output:
		ev.Release()
	case *troupe.Gap:
		if t := p.a.tty.Load(); p.screen && t != nil {
			if err := t.gap(); err != nil {
				return nil, err
			}
		} else if !p.screen {
			p.gap += ev.Bytes
		}
	case *troupe.Screen:
		if t := p.a.tty.Load(); p.screen && t != nil {
			if err := t.draw(ev.Data); err != nil {
				return nil, err
			}
		}
	case *troupe.Warning:
		if reason, _, _ := strings.Cut(ev.Message, ": "); !slices.Contains(p.reasons, reason) {
			p.reasons = append(p.reasons, reason)
		}
	}
	p.offset = e.Offset()
	return ev, nil
}

// Bounds of the time between two questions whether kept processes live.
const (
	keptFirstPoll = 50 * time.Millisecond
	keptPoll      = time.Second
)

// followKept prints what processes write that have outlived the command, until they have ended too.
// No message tells of that, so it asks whenever they are silent.
func (p *printer) followKept(ctx context.Context, c *troupe.Client, e *troupe.Execution) error {
	p.execution, p.offset = e.ID(), e.Offset()
	for wait := keptFirstPoll; ; wait = min(2*wait, keptPoll) {
		quiet, stop := context.WithTimeout(ctx, wait)
		_, err := p.next(quiet, e)
		silent := quiet.Err() != nil && ctx.Err() == nil
		stop()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			continue
		case !silent || !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		now, known := status.Executions[e.ID()]
		if !known || now.State == wire.StateExited && e.Offset() >= now.Offset {
			return nil
		}
	}
}

// plain copies output byte for byte.
func (p *printer) plain(ev troupe.Event) error {
	switch ev := ev.(type) {
	case *troupe.Output:
		if ev.Stream == wire.Stderr {
			_, err := p.a.stderr.Write(ev.Data)
			return writeError("stderr", err)
		}
		_, err := p.a.stdout.Write(ev.Data)
		return err
	case *troupe.ProcessError:
		if ev.Error != nil {
			p.a.notef("%s", ev.Error.Message)
		}
	}
	return nil
}

// line prints an event as the notification that it came from. A gap becomes an output without data,
// as the server sends it when nothing follows.
func (p *printer) line(id string, ev troupe.Event) error {
	method, params := "", any(nil)
	switch ev := ev.(type) {
	case *troupe.Output:
		out := &wire.Output{
			ExecutionID: id, Type: ev.Stream, Data: string(ev.Data), Truncated: ev.Truncated,
			Offset: ev.Offset,
		}
		if p.encoding == wire.EncodingBase64 {
			out.Data, out.Encoding = base64.StdEncoding.EncodeToString(ev.Data), p.encoding
		}
		method, params = wire.MethodOutput, out
	case *troupe.Gap:
		method, params = wire.MethodOutput, &wire.Output{ExecutionID: id, Type: wire.Stdout, Offset: ev.Offset, Gap: ev.Bytes}
	case *troupe.Warning:
		method, params = wire.MethodWarning, ev.Warning
	case *troupe.Resized:
		method, params = wire.MethodResized, ev.Resized
	case *troupe.Screen:
		method, params = wire.MethodScreen, ev.Screen
	case *troupe.Control:
		method, params = ev.Method, ev.ControlEvent
	case *troupe.ProcessError:
		method, params = wire.MethodError, ev.ProcessError
	case *troupe.Completed:
		method, params = wire.MethodCompleted, ev.Completed
	}
	b, err := wire.AppendNotification(nil, method, params)
	if err != nil {
		return err
	}
	_, err = p.a.stdout.Write(append(b, '\n'))
	return err
}

// losses describes in one line what is missing from the output. It is empty if nothing is.
func (p *printer) losses(done *wire.Completed) string {
	var parts []string
	if done.DroppedBytes > 0 || done.DroppedLines > 0 {
		reason := strings.Join(p.reasons, "; ")
		if reason == "" { // the warning lies before the place where attach began
			reason = cmp.Or(done.DroppedReason, "the server gives no reason")
		}
		parts = append(parts, fmt.Sprintf("%d bytes in %d lines were dropped (%s)", done.DroppedBytes, done.DroppedLines,
			reason))
	}
	if done.TruncatedLines > 0 {
		parts = append(parts, fmt.Sprintf("%d lines were cut by %d bytes", done.TruncatedLines, done.TruncatedBytes))
	}
	if p.gap > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes were no longer on the server", p.gap))
	}
	if len(parts) == 0 {
		return ""
	}
	return "warning: output is incomplete: " + strings.Join(parts, ", ")
}

// report prints warnings about a followed execution and returns its exit code as an error.
func (p *printer) report(done *wire.Completed) error {
	if msg := p.losses(done); msg != "" {
		p.a.notef("%s", msg)
	}
	code, msg := outcome(done)
	dropped := done.DroppedBytes > 0 || done.DroppedLines > 0
	if code == 0 && (p.gap > 0 || dropped && !p.dropOK) {
		code = exitIncomplete
	}
	if code == 0 {
		return nil
	}
	if msg == "" {
		return &exitError{code: code}
	}
	return &exitError{code, errors.New(msg)}
}
