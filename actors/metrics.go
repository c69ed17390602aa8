package actors

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/wire"
)

// metrics are the engine's. Labels come from closed sets; ids are never labels.
type metrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	opened       prometheus.Counter
	refused      *prometheus.CounterVec // reason
	resumed      prometheus.Counter
	ended        *prometheus.CounterVec // cause
	started      prometheus.Counter
	notStarted   *prometheus.CounterVec // reason
	executions   *prometheus.CounterVec // reason
	openSeconds  prometheus.Histogram
	startSeconds prometheus.Histogram
	firstOutput  prometheus.Histogram
	cancelToDead prometheus.Histogram
	duration     prometheus.Histogram
	survivors    prometheus.Counter
	panics       *prometheus.CounterVec // actor
}

// Reasons for which an execute request is refused before anything runs.
const (
	refusedLimit      = "execution_limit" // the session runs as many as it may; see also refusedSubject
	refusedNotAllowed = "not_allowed"     // not on the allow-list
	refusedDraining   = "draining"        // the server is stopping
	refusedEnding     = "session_ending"  // its session is
)

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
	reasons := make([]string, 0, len(wire.Reasons()))
	for _, r := range wire.Reasons() {
		reasons = append(reasons, string(r))
	}
	fast := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	slow := prometheus.ExponentialBuckets(0.01, 4, 10)   // 10 ms to 45 min

	m.opened = counter("sessions_opened_total", "Sessions opened.")
	m.refused = vec("sessions_refused_total", "Sessions refused, by reason.", "reason",
		refusedFull, refusedSubject, refusedReserve, string(wire.CauseDraining), string(wire.CauseInternal))
	m.resumed = counter("sessions_resumed_total", "Connections that took a session up again.")
	m.ended = vec("sessions_ended_total", "Sessions ended, by cause.", "cause", sessionEnds()...)
	m.started = counter("executions_started_total", "Commands that began to run.")
	m.notStarted = vec("executions_refused_total",
		"Requests to execute that were refused before anything ran, by reason.", "reason",
		refusedLimit, refusedSubject, refusedNotAllowed, refusedDraining, refusedEnding)
	m.executions = vec("executions_ended_total", "Executions ended, by reason.", "reason", reasons...)
	m.openSeconds = histogram("session_open_seconds", "From an accepted connection to its new session.",
		prometheus.ExponentialBuckets(0.00005, 2, 14)) // 50 us to 0.4 s
	m.startSeconds = histogram("execution_start_seconds", "From the request to the running command.", fast)
	m.firstOutput = histogram("execution_first_output_seconds", "From the request to the command's first byte of output.",
		fast)
	m.cancelToDead = histogram("execution_cancel_seconds",
		"From the decision to end an execution to the death of its last process.", fast)
	m.duration = histogram("execution_duration_seconds", "From the running command to its end.", slow)
	m.survivors = counter("execution_survivors_total", "Processes that outlived their command and were killed.")
	e.input.refused = counter("input_refused_total",
		"Input refused because the memory for input that commands have not read is spent.")
	m.panics = vec("actor_panics_total", "Panics recovered in actors, by kind of actor.", "actor", "manager", "session",
		"process", "connection", "reaper")
	m.gauges(e)
	if r != nil {
		r.MustRegister(m.all...)
	}
	return m
}

// gauges adds what is read from the engine when somebody asks.
func (m *metrics) gauges(e *Engine) {
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "troupe_" + name, Help: help}, f))
	}
	truth := func(f func() bool) func() float64 {
		return func() float64 {
			if f() {
				return 1
			}
			return 0
		}
	}
	gauge("sessions", "Session slots in use.", func() float64 { return float64(e.sessions.Load()) })
	gauge("sessions_max", "Session slots.", func() float64 { return float64(e.limits.MaxSessions) })
	gauge("sessions_reserved", "Session slots that only subjects get which hold none.",
		func() float64 { return float64(e.reserved()) })
	gauge("subject_sessions_highest", "Session slots of the subject that has most.",
		func() float64 { return float64(e.most.Load()) })
	gauge("sessions_detached", "Sessions without a connection, kept for the resume window.",
		func() float64 { return float64(e.detached.Load()) })
	gauge("executions", "Executions that are not dead.", func() float64 { return float64(e.executions.all()) })
	gauge("input_waiting_bytes", "Input that commands have not read, beyond what each may always have.", e.input.bytes)
	gauge("ready", "1 while new sessions and commands are accepted.", truth(e.Ready))
	gauge("draining", "1 while the server is draining.", truth(e.draining.Load))
	gauge("drain_deadline_timestamp_seconds",
		"When the drain cancels what still runs, in seconds since the epoch; 0 while the server is not draining.",
		func() float64 {
			return float64(e.drainDeadline.Load()) / 1e9
		})
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}
