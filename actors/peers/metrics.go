package peers

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what a Transport does. Pods are never labels, because their number over time is
// unbounded.
type Metrics struct {
	Bytes     *prometheus.CounterVec // direction
	Lost      *prometheus.CounterVec // reason
	Refused   *prometheus.CounterVec // reason
	Malformed prometheus.Counter
}

// Reasons why a connection between pods is refused. The set is closed.
const (
	RefusedPlaintext   = "plaintext"   // the other side does not speak TLS
	RefusedCertificate = "certificate" // missing, not signed by the authority, expired, or for another name
	RefusedHandshake   = "handshake"   // the handshake broke off for another reason
	RefusedConnections = "connections" // it made room for another, see limitedListener
)

// Directions, and the reasons why an envelope is lost. The sets are closed.
const (
	sent      = "sent"
	received  = "received"
	queueFull = "queue_full"
	noAddress = "no_address"
)

// NewMetrics makes the counters, with every series at zero, and passes each of them to register.
func NewMetrics(register func(prometheus.Collector)) *Metrics {
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		register(c)
		return c
	}
	m := &Metrics{
		Bytes: vec("troupe_peer_bytes_total", "Bytes of envelopes exchanged with peers.", "direction", sent, received),
		Lost: vec("troupe_peer_envelopes_lost_total",
			"Envelopes not sent because the peer's queue was full or its address is not known. Links send theirs again.",
			"reason", queueFull, noAddress),
		Refused: vec("troupe_peers_refused_total", "Connections between pods refused, by reason.",
			"reason", RefusedPlaintext, RefusedCertificate, RefusedHandshake, RefusedConnections),
		Malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "troupe_peer_malformed_total",
			Help: "Messages of peers that were ignored because they could not be understood.",
		}),
	}
	register(m.Malformed)
	return m
}
