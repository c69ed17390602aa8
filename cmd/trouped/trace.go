package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// traceFlush is how long the end of the process waits for the collector. The
// commands are over by then, and so are the clients: only spans can be lost.
const traceFlush = 3 * time.Second

// spanCounts are what is known of the way of spans to the collector. The SDK queues
// 2,048 of them and drops what comes when the queue is full: nothing waits for a
// collector. The zero value is that of a server that exports none.
type spanCounts struct {
	ended    atomic.Int64 // sampled, and given to the queue
	exported atomic.Int64 // taken by the collector
	failed   atomic.Int64 // not taken by it
}

// openTracer returns the tracer of executions, nil if nobody is to hear of them,
// and the function that sends what is queued, for traceFlush at most.
func (t *spanCounts) openTracer(c *config, log *slog.Logger) (oteltrace.Tracer, func() error, error) {
	if c.traceEndpoint == "" {
		return nil, nil, nil
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(tracesURL(c.traceEndpoint)))
	if err != nil {
		return nil, nil, fmt.Errorf("--trace-endpoint: %w", err)
	}
	watched := &watchedExporter{SpanExporter: exporter, counts: t, log: log}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(watched.complain)) // the SDK has no other way to tell; it would print
	// Without a sampler here the SDK takes OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, and
	// by default records every execution whose client has no trace of its own that says otherwise.
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(traceResource(c)),
		sdktrace.WithSpanProcessor(countedProcessor{sdktrace.NewBatchSpanProcessor(watched), t}),
	)
	flush := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		return provider.Shutdown(ctx)
	}
	return provider.Tracer("github.com/troupe-dev/troupe/actors", oteltrace.WithInstrumentationVersion(version)), flush, nil
}

// tracesURL is where spans are posted: the endpoint as OTEL_EXPORTER_OTLP_ENDPOINT
// would have it, without a path, or with the one to use.
func tracesURL(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
		return u.String()
	}
	return endpoint
}

// traceResource says who recorded the spans. OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES add to it and win over it.
func traceResource(c *config) *resource.Resource {
	attrs := []attribute.KeyValue{
		attribute.String("service.name", "troupe"),
		attribute.String("service.version", version),
		attribute.String("service.instance.id", c.pod),
	}
	if c.kubernetes.namespace != "" {
		attrs = append(attrs, attribute.String("k8s.namespace.name", c.kubernetes.namespace), attribute.String("k8s.pod.name", c.pod))
	}
	own := resource.NewSchemaless(attrs...)
	merged, err := resource.Merge(own, resource.Environment())
	if err != nil {
		return own // of two schemas, and ours has none
	}
	return merged
}

// countedProcessor counts what the queue is given.
type countedProcessor struct {
	sdktrace.SpanProcessor
	counts *spanCounts
}

func (p countedProcessor) OnEnd(s sdktrace.ReadOnlySpan) {
	p.counts.ended.Add(1)
	p.SpanProcessor.OnEnd(s)
}

// watchedExporter counts what the collector takes, and warns once when it takes nothing more.
type watchedExporter struct {
	sdktrace.SpanExporter
	counts *spanCounts
	log    *slog.Logger
	silent atomic.Bool // it has warned
}

// ExportSpans is called by the one goroutine of the queue. It reports no error:
// the SDK would tell of each.
func (e *watchedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.counts.failed.Add(int64(len(spans)))
		e.complain(err)
		return nil
	}
	e.counts.exported.Add(int64(len(spans)))
	if e.silent.Swap(false) {
		e.log.Info("traces are exported again")
	}
	return nil
}

func (e *watchedExporter) complain(err error) {
	if !e.silent.Swap(true) {
		e.log.Warn("traces are not exported; commands are not affected, and this is said once until it is over", "err", err)
	}
}

// registerTraces exports the counts. What ended and was neither exported nor failed waits,
// or was dropped because the queue was full.
func registerTraces(r prometheus.Registerer, t *spanCounts) {
	e := exporter{r}
	e.counter("trace_spans_ended_total", "Spans recorded and queued for the collector.", func() float64 { return float64(t.ended.Load()) })
	e.counter("trace_spans_exported_total", "Spans that the collector took.", func() float64 { return float64(t.exported.Load()) })
	e.counter("trace_spans_failed_total", "Spans lost because the collector did not take them.", func() float64 { return float64(t.failed.Load()) })
}
