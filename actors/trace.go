package actors

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors/wire"
)

// executionTrace is the trace of one execution's life:
//
//	execution              from the request to the completion
//	├─ start               from the request to the running command
//	└─ cancel              from the decision to end it to the death of its last process
//
// with the events first_output, paused, resumed, output_dropped and exited. A nil
// trace records nothing and costs nothing: that is what an Engine without a Tracer has.
//
// Attributes name the session, the execution, its subject and how it ended. They
// never hold arguments, environment or output, which are the client's.
//
// The process actor records, and for one that failed its session, which may come
// to tell of the end while the process actor still works: hence the lock.
type executionTrace struct {
	tracer trace.Tracer
	root   trace.Span

	mu     sync.Mutex
	start  trace.Span // nil once ended
	cancel trace.Span // nil until there is one, and once ended
	ended  bool
}

// Attributes of an execution's spans.
const (
	attrSession   = attribute.Key("troupe.session")
	attrExecution = attribute.Key("troupe.execution")
	attrSubject   = attribute.Key("troupe.subject")
	attrReason    = attribute.Key("troupe.reason")
	attrSurvivors = attribute.Key("troupe.survivors")
	attrBytes     = attribute.Key("troupe.output.bytes")
	attrDropped   = attribute.Key("troupe.output.dropped_bytes")
	attrLines     = attribute.Key("troupe.output.dropped_lines")
	attrTruncated = attribute.Key("troupe.output.truncated_lines")
	attrCause     = attribute.Key("troupe.cause")
	attrPID       = attribute.Key("process.pid")       // in the runner's namespace
	attrExitCode  = attribute.Key("process.exit.code") // negative for a signal
)

// traceExecution begins the trace of x. parent is the client's span; without one
// the execution is the root of a trace of its own.
func (e *Engine) traceExecution(x *execution, parent trace.SpanContext) *executionTrace {
	if e.tracer == nil {
		return nil
	}
	ctx := context.Background()
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	began := trace.WithTimestamp(x.requested)
	_, root := e.tracer.Start(ctx, "execution", began, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attrSession.String(x.session), attrExecution.String(x.id), attrSubject.String(x.subject)))
	t := &executionTrace{tracer: e.tracer, root: root}
	t.start = t.child("start", began)
	return t
}

func (t *executionTrace) child(name string, opts ...trace.SpanStartOption) trace.Span {
	_, span := t.tracer.Start(trace.ContextWithSpan(context.Background(), t.root), name, opts...)
	return span
}

// running ends the start span: the command runs.
func (t *executionTrace) running(pid int, at time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.start != nil {
		t.start.SetAttributes(attrPID.Int(pid))
		t.start.End(trace.WithTimestamp(at))
		t.start = nil
	}
}

// event notes something that happened to the execution.
func (t *executionTrace) event(name string) {
	if t != nil {
		t.root.AddEvent(name)
	}
}

// dropping notes that output is lost from here on.
func (t *executionTrace) dropping(cause string) {
	if t != nil {
		t.root.AddEvent("output_dropped", trace.WithAttributes(attrCause.String(cause)))
	}
}

// canceling begins the cancel span, at the time at which the end was decided.
func (t *executionTrace) canceling(reason wire.Reason, at time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel == nil && !t.ended {
		t.cancel = t.child("cancel", trace.WithTimestamp(at), trace.WithAttributes(attrReason.String(string(reason))))
	}
}

// dead ends the cancel span: nothing of the execution lives.
func (t *executionTrace) dead(survivors int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel != nil {
		t.cancel.SetAttributes(attrSurvivors.Int(survivors))
		t.cancel.End()
		t.cancel = nil
	}
}

// completed ends the trace, and whatever of it has not come to its own end.
func (t *executionTrace) completed(c *wire.Completed) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for _, span := range []trace.Span{t.start, t.cancel} {
		if span != nil {
			span.SetStatus(codes.Error, string(c.Reason))
			span.End()
		}
	}
	t.start, t.cancel = nil, nil
	t.root.SetAttributes(attrReason.String(string(c.Reason)), attrExitCode.Int(c.ExitCode), attrBytes.Int64(c.OutputBytes),
		attrDropped.Int64(c.DroppedBytes), attrLines.Int64(c.DroppedLines), attrTruncated.Int64(c.TruncatedLines))
	if c.PID != 0 {
		t.root.SetAttributes(attrPID.Int(c.PID))
	}
	if c.Survivors != nil {
		t.root.SetAttributes(attrSurvivors.Int(c.Survivors.Count))
	}
	switch c.Reason {
	case wire.ReasonExited, wire.ReasonSignaled, wire.ReasonCanceled, wire.ReasonSessionClosed:
		// The command's own end, or what the client asked for: no failure of the execution.
	default:
		t.root.SetStatus(codes.Error, string(c.Reason))
	}
	t.root.End()
}

// traceparent reads a W3C traceparent (https://www.w3.org/TR/trace-context/,
// section 3.2). One that is malformed is no parent, as that document demands: a
// command is not refused for it.
func traceparent(s string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": s})
	return trace.SpanContextFromContext(ctx)
}
