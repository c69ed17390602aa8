package actors

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/gateway/wire"
)

// metrics are the engine's. Labels come from closed sets; ids are never labels.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	opened       prometheus.Counter
	refused      *prometheus.CounterVec // reason
	ended        *prometheus.CounterVec // reason of sessions
	executions   *prometheus.CounterVec // reason
	openSeconds  prometheus.Histogram
	startSeconds prometheus.Histogram
	firstOutput  prometheus.Histogram
	cancelToDead prometheus.Histogram
	duration     prometheus.Histogram
	outputBytes  prometheus.Counter
	droppedLines prometheus.Counter
	droppedBytes prometheus.Counter
	truncated    prometheus.Counter
	survivors    prometheus.Counter
	panics       *prometheus.CounterVec // actor
}

func newMetrics(r prometheus.Registerer, e *Engine) *metrics {
	m := &metrics{registerer: r}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "troupe_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "troupe_" + name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v) // a rate over a series that does not exist yet loses its first increment
		}
		m.all = append(m.all, c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "troupe_" + name, Help: help, Buckets: buckets})
		m.all = append(m.all, h)
		return h
	}
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "troupe_" + name, Help: help}, f))
	}
	reasons := make([]string, 0, len(wire.Reasons()))
	for _, r := range wire.Reasons() {
		reasons = append(reasons, string(r))
	}
	fast := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	slow := prometheus.ExponentialBuckets(0.01, 4, 10)   // 10 ms to 45 min

	m.opened = counter("sessions_opened_total", "Sessions opened.")
	m.refused = vec("sessions_refused_total", "Sessions refused, by reason.", "reason", "session_limit", "draining", "internal")
	m.ended = vec("sessions_ended_total", "Sessions ended, by cause.", "cause", sessionEnds()...)
	m.executions = vec("executions_total", "Executions ended, by reason.", "reason", reasons...)
	m.openSeconds = histogram("session_open_seconds", "From an accepted connection to its new session.", prometheus.ExponentialBuckets(0.00005, 2, 14)) // 50 us to 0.4 s
	m.startSeconds = histogram("execution_start_seconds", "From the request to the running command.", fast)
	m.firstOutput = histogram("execution_first_output_seconds", "From the request to the command's first byte of output.", fast)
	m.cancelToDead = histogram("execution_cancel_seconds", "From the decision to end an execution to the death of its last process.", fast)
	m.duration = histogram("execution_duration_seconds", "From the running command to its end.", slow)
	m.outputBytes = counter("output_bytes_total", "Bytes of output kept in transcripts.")
	m.droppedLines = counter("output_dropped_lines_total", "Lines dropped at the output limit or because the data directory failed.")
	m.droppedBytes = counter("output_dropped_bytes_total", "Bytes dropped at the output limit or because the data directory failed.")
	m.truncated = counter("output_truncated_lines_total", "Lines cut at the line limit.")
	m.survivors = counter("execution_survivors_total", "Processes that outlived their command and were killed.")
	m.panics = vec("actor_panics_total", "Panics recovered in actors, by kind of actor.", "actor", "manager", "session", "process", "connection", "reaper")
	gauge("sessions", "Session slots in use.", func() float64 { return float64(e.sessions.Load()) })
	gauge("sessions_max", "Session slots.", func() float64 { return float64(e.limits.MaxSessions) })
	gauge("executions", "Executions that are not dead.", func() float64 { return float64(e.executions.Load()) })
	gauge("draining", "1 while the server is draining.", func() float64 {
		if e.draining.Load() {
			return 1
		}
		return 0
	})
	if r != nil {
		r.MustRegister(m.all...)
	}
	return m
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
