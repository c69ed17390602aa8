package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
)

// newRegistry returns the registry of /metrics with what is known of the process itself.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "troupe_build_info",
		Help:        "1, with the version as labels.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// registerLeaves exports the figures of the runner and the transcripts: their
// packages import the standard library only, so the wiring does it for them.
func registerLeaves(r prometheus.Registerer, runner func() proc.Status, store func() transcript.Stats) {
	gauge := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "troupe_" + name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "troupe_" + name, Help: help}, value))
	}
	gauge("runner_up", "1 while a runner takes commands.", func() float64 { return truth(runner().Up) })
	gauge("runner_cgroup", "1 when executions run in cgroups of their own.", func() float64 {
		return truth(runner().Containment == "cgroup+tree")
	})
	counter("runner_restarts_total", "Runners after the first.", func() float64 { return float64(runner().Restarts) })
	counter("runner_escaped_total", "Processes killed by the runner because their init was killed.", func() float64 {
		return float64(runner().Escaped)
	})
	gauge("transcript_bytes", "Bytes of transcripts on disk.", func() float64 { return float64(store().Bytes) })
	gauge("transcript_budget_bytes", "Bytes of transcripts that the disk may hold.", func() float64 { return float64(store().Budget) })
	gauge("transcripts", "Transcripts kept.", func() float64 { return float64(store().Transcripts) })
	counter("transcripts_evicted_total", "Transcripts evicted for the budget.", func() float64 { return float64(store().Evicted) })
	counter("transcript_evicted_bytes_total", "Bytes of evicted transcripts.", func() float64 { return float64(store().EvictedBytes) })
	counter("transcript_write_failures_total", "Transcripts that lost output because the disk failed.", func() float64 {
		return float64(store().WriteFailures)
	})
	counter("transcript_read_failures_total", "Gaps reported because a transcript could not be read.", func() float64 {
		return float64(store().ReadFailures)
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
