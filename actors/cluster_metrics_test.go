package actors

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/relay"
)

// TestCertificateExpiryIsTold: the gauges are those of the certificate that a handshake would use
// now. Connections between pods last, so for days there may be no handshake that reads a renewed
// one.
func TestCertificateExpiryIsTold(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir() // it lasts a day
	write := func(lifetime time.Duration) func() {
		return func() {
			ca.Lifetime = lifetime
			sign(t, ca, dir, peers.CertName)
		}
	}
	replace := func(file string, by *peerca.Authority) func() {
		return func() {
			other := t.TempDir()
			sign(t, by, other, peers.CertName)
			if err := os.Rename(filepath.Join(other, file), filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ca.Lifetime = 3 * time.Hour
	security := load(t, sign(t, ca, dir, peers.CertName))
	reg := prometheus.NewRegistry()
	newClusterMetrics(&metrics{registerer: reg}, new(relay.Counters), security, new(linksHeld),
		func() (int, int) { return 0, 0 })
	for _, c := range []struct {
		name           string
		change         func()
		left, lifetime time.Duration
	}{
		{"as it was", func() {}, 3 * time.Hour, 4 * time.Hour},
		{"renewed", write(9 * time.Hour), 9 * time.Hour, 10 * time.Hour},
		{"without its key", replace("tls.crt", ca), 9 * time.Hour, 10 * time.Hour},
		{"longer than its authority", write(90 * time.Hour), 24 * time.Hour, 91 * time.Hour},
		{"of an authority that is not trusted", replace("ca.crt", newAuthority(t)), 0, 91 * time.Hour},
		{"expired", write(-30 * time.Minute), -30 * time.Minute, 30 * time.Minute},
	} {
		c.change()
		got := map[string]float64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
		left := got["troupe_peer_certificate_expiry_timestamp_seconds"] - float64(time.Now().Unix())
		if d := left - c.left.Seconds(); d < -60 || d > 60 ||
			got["troupe_peer_certificate_lifetime_seconds"] != c.lifetime.Seconds() {
			t.Errorf("%s: %v s left of %v s, want %v of %v", c.name, left, got["troupe_peer_certificate_lifetime_seconds"],
				c.left, c.lifetime)
		}
	}
}
