package k8s

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is a kind of request to the API server.
type operation string

const (
	opTokenReview  operation = "tokenreview"
	opAccessReview operation = "subjectaccessreview"
	opPatch        operation = "patch" // of the pod's annotations
	opEvent        operation = "event"
	opList         operation = "list"  // of EndpointSlices
	opWatch        operation = "watch" // of EndpointSlices; until the response header
)

// isReport distinguishes requests that are retried until they succeed from requests that a client
// waits for. A refused report is retried once an hour, which is too rare for a rate to show the
// failure.
func (o operation) isReport() bool { return o == opPatch || o == opEvent }

// Metrics holds the metrics of this package. All series exist from the start.
type Metrics struct {
	failures *prometheus.CounterVec   // operation
	failing  *prometheus.GaugeVec     // operation, reports only
	seconds  *prometheus.HistogramVec // operation

	// Exported only if there is a Membership.
	following  prometheus.Gauge // 1 or 0
	pods       prometheus.Gauge
	registerer prometheus.Registerer // nil: none
}

// NewMetrics registers the metrics with r. If r is nil, they are not exported.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		registerer: r,
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "troupe_kubernetes_failures_total",
			Help: "Requests to the Kubernetes API that failed, by operation. " +
				"A token that is not valid is an answer, not a failure.",
		}, []string{"operation"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "troupe_kubernetes_failing",
			Help: "1 while the last report on the own pod has failed and is to be repeated, by operation.",
		}, []string{"operation"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "troupe_kubernetes_request_seconds",
			Help:    "From a request to the Kubernetes API to its answer or failure, by operation.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 11), // 1 ms to 9.5 s
		}, []string{"operation"}),
		following: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "troupe_kubernetes_following",
			Help: "1 while the EndpointSlices of --peer-service are listed and watched, " +
				"0 while they are not and what was known last is used.",
		}),
		pods: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "troupe_kubernetes_endpoints",
			Help: "Pods of --peer-service that are known by their EndpointSlices, this one included.",
		}),
	}
	for _, op := range []operation{opTokenReview, opAccessReview, opPatch, opEvent, opList, opWatch} {
		m.failures.WithLabelValues(string(op))
		m.seconds.WithLabelValues(string(op))
		if op.isReport() {
			m.failing.WithLabelValues(string(op))
		}
	}
	if r != nil {
		r.MustRegister(m.failures, m.failing, m.seconds)
	}
	return m
}

// exportMembership registers the metrics of a Membership.
func (m *Metrics) exportMembership() {
	if m.registerer != nil {
		m.registerer.MustRegister(m.following, m.pods)
	}
}

func (m *Metrics) observe(op operation, began time.Time, err error) {
	m.seconds.WithLabelValues(string(op)).Observe(time.Since(began).Seconds())
	if errors.Is(err, context.Canceled) { // Close was called
		return
	}
	failing := 0.0
	if err != nil {
		failing = 1
		m.failures.WithLabelValues(string(op)).Inc()
	}
	if op.isReport() {
		m.failing.WithLabelValues(string(op)).Set(failing)
	}
}
