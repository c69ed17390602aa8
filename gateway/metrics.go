package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Kinds of authentication failures.
const (
	authMissing     = "missing"     // no token
	authMalformed   = "malformed"   // not a bearer token
	authInvalid     = "invalid"     // an unknown token
	authOften       = "often"       // likewise one of these, from an address that has sent too many
	authForbidden   = "forbidden"   // a known client without permission
	authUnavailable = "unavailable" // the check failed
	authOrigin      = "origin"      // a page of another origin
)

// Reasons to refuse a connection that was authenticated.
const (
	refusedFull      = "limit"         // MaxConnections are open
	refusedSubject   = "subject_limit" // its subject has as many as one may
	refusedReserve   = "reserved"      // what is left is for subjects that have no connection
	refusedUnresumed = "resume"        // closed without a session, since too many wait for resume
	refusedStopping  = "stopping"      // the server is stopping
)

// Values of the labels method and code in addition to the protocol's own.
const (
	methodInvalid = "invalid" // the message was not a request
	methodUnknown = "unknown" // the method is unknown
	codeOK        = "0"       // answered with a result
)

// metrics are the gateway's. All label values come from closed sets, and every series exists from
// the start, so that rate() does not miss the first event
// (https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics).
type metrics struct {
	connections      prometheus.Gauge
	closed           *prometheus.CounterVec // cause
	messagesReceived prometheus.Counter
	messagesSent     prometheus.Counter
	bytesReceived    prometheus.Counter
	bytesSent        prometheus.Counter
	requests         *prometheus.CounterVec // method, code
	authFailures     *prometheus.CounterVec // kind
	refused          *prometheus.CounterVec // reason
	gaps             prometheus.Counter
	gapBytes         prometheus.Counter
}

// outcomes lists the error codes of each method, in addition to those of malformed requests, which
// all methods share. docs/openrpc.json lists the same.
var outcomes = map[string][]wire.Code{
	wire.MethodExecute: {
		wire.CodeInternal, wire.CodeSessionLimit, wire.CodeNotAllowed, wire.CodeExecutionLimit, wire.CodeNoSession,
		wire.CodeSessionLost, wire.CodeDraining, wire.CodeStartFailed,
	},
	wire.MethodControl: {wire.CodeInternal, wire.CodeNoProcess, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodInput: {
		wire.CodeInternal, wire.CodeSessionLimit, wire.CodeNoProcess, wire.CodeNoSession, wire.CodeSessionLost,
		wire.CodeInputUnavailable,
	},
	wire.MethodSignal: {wire.CodeInternal, wire.CodeNoProcess, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodResize: {wire.CodeInternal, wire.CodeNoProcess, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodStatus: {wire.CodeInternal, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodResume: {wire.CodeInternal, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodClose:  {wire.CodeInternal, wire.CodeNoSession, wire.CodeSessionLost},
	wire.MethodAck:    {wire.CodeInternal, wire.CodeNoProcess, wire.CodeNoSession, wire.CodeSessionLost},
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "troupe_" + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "troupe_" + name, Help: help}, labels)
	}
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "troupe_connections", Help: "WebSocket connections that are open.",
		}),
		closed:           vec("connections_closed_total", "WebSocket connections that have ended, by cause.", "cause"),
		messagesReceived: counter("messages_received_total", "WebSocket messages received."),
		messagesSent:     counter("messages_sent_total", "WebSocket messages sent."),
		bytesReceived:    counter("received_bytes_total", "Bytes received on WebSocket connections, framing included."),
		bytesSent:        counter("sent_bytes_total", "Bytes sent on WebSocket connections, framing included."),
		requests: vec("requests_total",
			"Requests answered, by method and JSON-RPC error code; 0 is success.", "method", "code"),
		authFailures: vec("auth_failures_total", "Connections refused by authentication, by kind.", "kind"),
		refused:      vec("connections_refused_total", "Connections refused after authentication, by reason.", "reason"),
		gaps: counter("output_gaps_total",
			"Gaps reported to clients in place of output that was evicted or could not be read."),
		gapBytes: counter("output_gap_bytes_total", "Bytes of output that these gaps stand for."),
	}
	for _, cause := range wire.Causes() {
		m.closed.WithLabelValues(string(cause))
	}
	for _, kind := range []string{
		authMissing, authMalformed, authInvalid, authOften, authForbidden, authUnavailable, authOrigin,
	} {
		m.authFailures.WithLabelValues(kind)
	}
	for _, reason := range []string{refusedFull, refusedSubject, refusedReserve, refusedUnresumed, refusedStopping} {
		m.refused.WithLabelValues(reason)
	}
	m.expectRequests()
	if reg != nil {
		reg.MustRegister(m.connections, m.closed, m.messagesReceived, m.messagesSent, m.bytesReceived, m.bytesSent,
			m.requests, m.authFailures, m.refused, m.gaps, m.gapBytes)
	}
	return m
}

// expectRequests creates the series of every possible answer.
func (m *metrics) expectRequests() {
	series := func(method string, code wire.Code) { m.requests.WithLabelValues(method, strconv.Itoa(int(code))) }
	for _, method := range wire.Methods() {
		m.requests.WithLabelValues(method, codeOK)
		for _, code := range outcomes[method] {
			series(method, code)
		}
		series(method, wire.CodeInvalidRequest)
		series(method, wire.CodeInvalidParams)
	}
	series(methodUnknown, wire.CodeMethodNotFound)
	series(methodInvalid, wire.CodeParse)
	series(methodInvalid, wire.CodeInvalidRequest)
}

// answered counts a request by its method and outcome.
func (m *metrics) answered(method string, err *wire.Error) {
	code := codeOK
	if err != nil {
		code = strconv.Itoa(int(err.Code))
	}
	m.requests.WithLabelValues(method, code).Inc()
}

// register exports how many permits are in use.
func (p *permits) register(reg prometheus.Registerer, size string) {
	gauge := func(name, help string, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "troupe_" + name, Help: help, ConstLabels: prometheus.Labels{"size": size},
		}, func() float64 { return float64(of()) })
	}
	reg.MustRegister(
		gauge("message_permits_used", "Permits held for messages that are read or executed, by size.", p.used),
		gauge("message_permits_awaited", "Connections whose reading waits for such a permit.", p.awaited),
	)
}
