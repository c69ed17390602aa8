package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
)

// newRegistry returns the registry behind /metrics. It holds the metrics of the process itself and
// the limits that alerts compare with.
func newRegistry(c *config) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "troupe_build_info",
		Help:        "Always 1; the labels hold the versions of trouped and Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	e := exporter{r}
	e.gauge("limit_cancel_grace_seconds", "Configured time from SIGTERM to SIGKILL.", c.limits.CancelGrace.Seconds)
	e.gauge("limit_drain_timeout_seconds", "Configured time that executions have to finish when the server stops.",
		c.limits.DrainTimeout.Seconds)
	return r
}

// exporter registers metrics whose values other packages hold.
type exporter struct{ prometheus.Registerer }

func (e exporter) gauge(name, help string, value func() float64, labels ...string) {
	opts := prometheus.GaugeOpts{Name: "troupe_" + name, Help: help, ConstLabels: pairs(labels)}
	e.MustRegister(prometheus.NewGaugeFunc(opts, value))
}

func (e exporter) counter(name, help string, value func() float64, labels ...string) {
	opts := prometheus.CounterOpts{Name: "troupe_" + name, Help: help, ConstLabels: pairs(labels)}
	e.MustRegister(prometheus.NewCounterFunc(opts, value))
}

// pairs turns name, value, name, value into labels.
func pairs(list []string) prometheus.Labels {
	labels := prometheus.Labels{}
	for i := 0; i+1 < len(list); i += 2 {
		labels[list[i]] = list[i+1]
	}
	return labels
}

// registerRunner exports the metrics of the runner, whose package imports only the
// standard library.
func registerRunner(r prometheus.Registerer, status func() proc.Status) {
	e := exporter{r}
	e.gauge("runner_up", "1 while a runner accepts commands.", func() float64 { return truth(status().Up) })
	e.gauge("runner_cannot_start", "1 while no command can be started; /readyz says why.",
		func() float64 { return truth(status().CannotStart != "") })
	e.counter("runner_start_failures_total", "Inits that the runner could not start.",
		func() float64 { return float64(status().StartFailures) })
	for _, mode := range []string{proc.ContainmentCgroup, proc.ContainmentTree} {
		e.gauge("runner_containment",
			"1 for the containment in use: cgroup+tree (a cgroup for each execution) or tree.",
			func() float64 { return truth(status().Containment == mode) }, "mode", mode)
	}
	e.counter("runner_restarts_total", "Runners after the first.", func() float64 { return float64(status().Restarts) })
	e.counter("runner_escaped_total", "Processes killed by the runner because their init was killed.", func() float64 {
		return float64(status().Escaped)
	})
}

// registerStore exports the metrics of the transcripts, whose package imports only the
// standard library.
func registerStore(r prometheus.Registerer, stats func() transcript.Stats) {
	e := exporter{r}
	e.gauge("transcript_bytes", "Bytes of transcripts on disk.", func() float64 { return float64(stats().Bytes) })
	e.gauge("transcript_budget_bytes", "Bytes that transcripts may take on disk.",
		func() float64 { return float64(stats().Budget) })
	e.gauge("transcript_evictable_bytes", "Bytes of finished transcripts, which are evicted when space is needed.",
		func() float64 { return float64(stats().Evictable) })
	e.gauge("transcripts", "Transcripts kept.", func() float64 { return float64(stats().Transcripts) })
	e.counter("transcripts_evicted_total", "Transcripts evicted to stay within the budget.",
		func() float64 { return float64(stats().Evicted) })
	e.counter("transcript_evicted_bytes_total", "Bytes of evicted transcripts.",
		func() float64 { return float64(stats().EvictedBytes) })
	e.counter("transcript_write_failures_total", "Transcripts that lost output because the disk failed.", func() float64 {
		return float64(stats().WriteFailures)
	})
	e.counter("transcript_read_failures_total", "Gaps reported because a transcript could not be read.", func() float64 {
		return float64(stats().ReadFailures)
	})
	e.counter("output_bytes_total", "Bytes of output written to transcripts.",
		func() float64 { return float64(stats().OutputBytes) })
	e.counter("output_truncated_lines_total", "Lines cut at the line limit.",
		func() float64 { return float64(stats().TruncatedLines) })
	e.gauge("subject_transcript_bytes_highest", "Bytes of transcripts on disk of the subject that has most.",
		func() float64 { return float64(stats().LargestOwner) })
	for _, reason := range transcript.DropReasons() {
		e.counter("output_dropped_lines_total", "Lines of output dropped, by cause.", func() float64 {
			return float64(stats().DroppedLines[reason])
		}, "cause", reason.String())
		e.counter("output_dropped_bytes_total", "Bytes of output dropped, by cause.", func() float64 {
			return float64(stats().DroppedBytes[reason])
		}, "cause", reason.String())
	}
}

// registerLogs exports the number of lines that the logs lost.
func registerLogs(r prometheus.Registerer, l *logs) {
	e := exporter{r}
	for name, lost := range map[string]func() int64{"process": l.writer.lostLines.Load, "audit": l.writer.lostAudit.Load} {
		e.counter("log_dropped_lines_total", "Log lines dropped because their reader was too slow, by log.", func() float64 {
			return float64(lost())
		}, "log", name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
