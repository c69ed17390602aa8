package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// errNobodyReads means that stdout or stderr was closed by its reader.
var errNobodyReads = errors.New("the reader of the output is gone")

// printer writes the events of executions.
type printer struct {
	a        *app
	json     bool
	encoding wire.Encoding // of Data in JSON
	gap      int64
}

// follow prints an execution until the command has ended. Processes that are kept may continue to
// write; a later attach shows that.
func (p *printer) follow(ctx context.Context, e *troupe.Execution) (*wire.Completed, error) {
	for {
		ev, err := e.Next(ctx)
		if errors.Is(err, io.EOF) {
			return e.Wait(ctx)
		}
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
		if done, ok := ev.(*troupe.Completed); ok {
			return &done.Completed, nil
		}
	}
}

// plain copies output byte for byte.
func (p *printer) plain(ev troupe.Event) error {
	switch ev := ev.(type) {
	case *troupe.Output:
		w := p.a.stdout
		if ev.Stream == wire.Stderr {
			w = p.a.stderr
		}
		if _, err := w.Write(ev.Data); err != nil {
			return fmt.Errorf("%w: %w", errNobodyReads, err)
		}
	case *troupe.Gap:
		p.gap += ev.Bytes
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
		p.gap += ev.Bytes
		method, params = wire.MethodOutput, &wire.Output{ExecutionID: id, Type: wire.Stdout, Offset: ev.Offset, Gap: ev.Bytes}
	case *troupe.Warning:
		method, params = wire.MethodWarning, ev.Warning
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
	if _, err := p.a.stdout.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%w: %w", errNobodyReads, err)
	}
	return nil
}

// losses describes in one line what is missing from the output. It is empty if nothing is.
func (p *printer) losses(done *wire.Completed) string {
	var parts []string
	if done.DroppedBytes > 0 || done.DroppedLines > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes in %d lines were dropped at the output limit", done.DroppedBytes,
			done.DroppedLines))
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
	if code == 0 {
		return nil
	}
	if msg == "" {
		return &exitError{code: code}
	}
	return &exitError{code, errors.New(msg)}
}
