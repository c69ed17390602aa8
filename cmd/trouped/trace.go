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

// traceFlush is how long trouped waits for the collector before it exits. By then all commands and
// clients are gone, so only spans can be lost.
const traceFlush = 3 * time.Second

// spanCounts counts spans on their way to the collector. The SDK queues up to 2,048 spans and drops
// the rest, so that nothing waits for a collector.
type spanCounts struct {
	ended    atomic.Int64 // sampled and queued
	exported atomic.Int64 // accepted by the collector
	failed   atomic.Int64 // not accepted by the collector
}

// openTracer returns the tracer for executions and a function that sends the queued spans within
// traceFlush. The tracer is nil without --trace-endpoint.
func (t *spanCounts) openTracer(c *config, log *slog.Logger) (oteltrace.Tracer, func() error, error) {
	if c.traceEndpoint == "" {
		return nil, nil, nil
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(tracesURL(c.traceEndpoint)))
	if err != nil {
		return nil, nil, fmt.Errorf("--trace-endpoint: %w", err)
	}
	watched := &watchedExporter{SpanExporter: exporter, counts: t, log: log}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(watched.complain)) // the SDK prints errors by default
	// The SDK configures the sampler from OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. By default
	// it records every execution unless the client's own trace is not sampled.
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(traceResource(c)),
		sdktrace.WithSpanProcessor(countedProcessor{sdktrace.NewBatchSpanProcessor(watched), t}),
	)
	flush := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		return provider.Shutdown(ctx)
	}
	return provider.Tracer(
		"github.com/troupe-dev/troupe/actors",
		oteltrace.WithInstrumentationVersion(version),
	), flush, nil
}

// tracesURL returns the URL to which spans are posted. An endpoint without a path gets
// /v1/traces, as OTEL_EXPORTER_OTLP_ENDPOINT would.
func tracesURL(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
		return u.String()
	}
	return endpoint
}

// traceResource describes the server that recorded the spans. OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES add to it and take precedence.
func traceResource(c *config) *resource.Resource {
	attrs := []attribute.KeyValue{
		attribute.String("service.name", "troupe"),
		attribute.String("service.version", version),
		attribute.String("service.instance.id", c.pod),
	}
	if c.kubernetes.namespace != "" {
		attrs = append(
			attrs,
			attribute.String("k8s.namespace.name", c.kubernetes.namespace),
			attribute.String("k8s.pod.name", c.pod),
		)
	}
	own := resource.NewSchemaless(attrs...)
	merged, err := resource.Merge(own, resource.Environment())
	if err != nil {
		return own // the schemas conflict, and own has none
	}
	return merged
}

// countedProcessor counts the spans that enter the queue.
type countedProcessor struct {
	sdktrace.SpanProcessor
	counts *spanCounts
}

func (p countedProcessor) OnEnd(s sdktrace.ReadOnlySpan) {
	p.counts.ended.Add(1)
	p.SpanProcessor.OnEnd(s)
}

// watchedExporter counts the spans that the collector accepts, and warns once when it stops
// accepting them.
type watchedExporter struct {
	sdktrace.SpanExporter
	counts *spanCounts
	log    *slog.Logger
	silent atomic.Bool // the warning was logged
}

// ExportSpans runs on the queue's goroutine. It never returns an error, because the SDK would
// report every one.
func (e *watchedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.counts.failed.Add(int64(len(spans)))
		e.complain(err)
		return nil
	}
	e.counts.exported.Add(int64(len(spans)))
	if e.silent.Swap(false) {
		e.log.Info("exporting traces works again")
	}
	return nil
}

func (e *watchedExporter) complain(err error) {
	if !e.silent.Swap(true) {
		e.log.Warn("cannot export traces; commands are not affected; logged once until exporting works again", "err", err)
	}
}

// registerTraces exports the counts. Spans that ended and were neither exported nor failed
// are in the queue, or were dropped because it was full.
func registerTraces(r prometheus.Registerer, t *spanCounts) {
	e := exporter{r}
	e.counter("trace_spans_ended_total", "Spans recorded and queued for the collector.",
		func() float64 { return float64(t.ended.Load()) })
	e.counter("trace_spans_exported_total", "Spans that the collector accepted.",
		func() float64 { return float64(t.exported.Load()) })
	e.counter("trace_spans_failed_total", "Spans lost because the collector did not accept them.",
		func() float64 { return float64(t.failed.Load()) })
}
