package actors

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
)

// clusterMetrics are those of the service of many pods. Pods are never labels: their number is not
// bounded over time.
type clusterMetrics struct {
	*peers.Metrics
	ended  *prometheus.CounterVec // role, cause
	placed *prometheus.CounterVec // outcome
}

// Outcomes of asking a peer for a session. The set is closed.
const (
	placedThere   = "placed"
	placedRefused = "refused" // it was full, or draining: the next one is asked
	placedLost    = "lost"    // it stopped answering: the next one is asked
	placedNowhere = "nowhere" // all refused; counted once for each session, not for each peer
)

// Roles of a link's end. The set is closed.
const (
	roleProxy  = "guest" // a proxy: this pod has the client
	roleOrigin = "host"  // an origin: this pod has the session
)

// newClusterMetrics makes them; those of the certificate if there is one.
func newClusterMetrics(
	m *metrics, c *relay.Counters, security *peers.TLS, held *linksHeld, state func() (alive, dead int),
) *clusterMetrics {
	add := func(c prometheus.Collector) {
		m.all = append(m.all, c)
		if m.registerer != nil {
			m.registerer.MustRegister(c)
		}
	}
	p := &clusterMetrics{Metrics: peers.NewMetrics(add)}
	vec := func(name, help string, labels []string, values ...[]string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "troupe_" + name, Help: help}, labels)
		for _, v := range values {
			c.WithLabelValues(v...)
		}
		add(c)
		return c
	}
	counter := func(name, help string, f func() uint64) {
		opts := prometheus.CounterOpts{Name: "troupe_" + name, Help: help}
		add(prometheus.NewCounterFunc(opts, func() float64 { return float64(f()) }))
	}
	var ends [][]string
	for _, e := range relay.EndedCauses() {
		ends = append(ends, []string{roleProxy, string(e)}, []string{roleOrigin, string(e)})
	}
	p.ended = vec("links_ended_total", "Links between pods that ended, by role and cause.",
		[]string{"role", "cause"}, ends...)
	p.placed = vec("placements_total", "Attempts to open a session on a peer, by outcome.", []string{"outcome"},
		[]string{placedThere}, []string{placedRefused}, []string{placedLost}, []string{placedNowhere})

	for _, role := range []string{roleProxy, roleOrigin} {
		add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "troupe_links", Help: "Links to peers: as guest, clients here of sessions elsewhere; as host, the reverse.",
			ConstLabels: prometheus.Labels{"role": role},
		}, func() float64 { return float64(held.of(role).Load()) }))
	}
	for _, s := range []string{"alive", "dead"} {
		add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "troupe_peers", Help: "Other pods of the service, by whether they answer.",
			ConstLabels: prometheus.Labels{"state": s},
		}, func() float64 {
			alive, dead := state()
			if s == "alive" {
				return float64(alive)
			}
			return float64(dead)
		}))
	}
	if security != nil {
		gauge := func(name, help string, f func() float64) {
			add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "troupe_" + name, Help: help}, f))
		}
		gauge("peer_certificate_expiry_timestamp_seconds",
			"When peers begin to refuse the certificate in force, in seconds since the epoch.", func() float64 {
				until, _ := security.Validity(time.Now())
				return float64(until.UnixMilli()) / 1e3
			})
		gauge("peer_certificate_lifetime_seconds", "For how long the certificate in force was made.", func() float64 {
			_, lifetime := security.Validity(time.Now())
			return lifetime.Seconds()
		})
	}
	counter("link_frames_total", "Frames sent over links.", c.Frames.Load)
	counter("link_resends_total", "Frames sent again because the peer did not acknowledge them.", c.Resends.Load)
	counter("link_duplicates_total", "Frames that arrived a second time and were dropped.", c.Duplicates.Load)
	counter("link_unknown_total", "Frames of a kind this release does not know, passed over.", c.Unknown.Load)
	counter("link_violations_total", "Frames that no release sends.", c.Violations.Load)
	counter("link_output_bytes_total", "Bytes of output carried over links.", c.OutputBytes.Load)
	return p
}
