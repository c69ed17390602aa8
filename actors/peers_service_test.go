package actors

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/troupe-dev/troupe/gateway/wire"
)

// authority signs certificates of peers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "peers"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// files are a certificate, its key and the authorities on disk.
type files struct{ cert, key, ca string }

// sign writes a certificate for name into dir, replacing what is there as a mounted Secret does.
func (a *authority) sign(t testing.TB, dir, name string, trusted ...*authority) files {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var roots []byte
	for _, ca := range append(trusted, a) {
		roots = append(roots, ca.pem...)
	}
	f := files{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")}
	for name, content := range map[string][]byte{
		f.cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		f.key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		f.ca:   roots,
	} {
		if err := os.WriteFile(name+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f files) load(t testing.TB) *PeerTLS {
	t.Helper()
	p, err := NewPeerTLS(f.cert, f.key, f.ca, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// service is some engines that are peers of each other, over loopback with TLS.
type service struct {
	t     testing.TB
	pods  []*harness
	dir   *testDirectory
	ca    *authority
	files []files
}

// testDirectory is a Directory that a test changes.
type testDirectory struct {
	mu      sync.Mutex
	peers   StaticDirectory
	missing PeerKnowledge // of a pod that is not there
	subs    map[int]func()
	next    int
}

func (d *testDirectory) Lookup(pod string) (Peer, PeerKnowledge) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, k := d.peers.Lookup(pod)
	if k == PeerUnknown {
		k = d.missing
	}
	return p, k
}

func (d *testDirectory) Peers() []Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers.Peers()
}

func (d *testDirectory) Subscribe(f func()) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.subs == nil {
		d.subs = map[int]func(){}
	}
	n := d.next
	d.next++
	d.subs[n] = f
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.subs, n)
	}
}

// set replaces what the directory says.
func (d *testDirectory) set(missing PeerKnowledge, peers ...Peer) {
	d.mu.Lock()
	d.peers, d.missing = peers, missing
	var subs []func()
	for _, f := range d.subs {
		subs = append(subs, f)
	}
	d.mu.Unlock()
	for _, f := range subs {
		f()
	}
}

func listenLoopback(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newService starts n pods, pod-0 and so on, and waits until all have heard of all.
func newService(t testing.TB, n int, change func(*Config)) *service {
	t.Helper()
	s := &service{t: t, dir: &testDirectory{}, ca: newAuthority(t)}
	listeners := make([]net.Listener, n)
	for i := range listeners {
		listeners[i] = listenLoopback(t, "127.0.0.1:0")
		s.dir.peers = append(s.dir.peers, Peer{Pod: fmt.Sprintf("pod-%d", i), Addr: listeners[i].Addr().String()})
		s.files = append(s.files, s.ca.sign(t, t.TempDir(), PeerCertName))
	}
	for i, l := range listeners {
		s.pods = append(s.pods, s.start(i, l, change))
	}
	s.meet()
	return s
}

// start starts pod i on a listener.
func (s *service) start(i int, l net.Listener, change func(*Config)) *harness {
	return newHarness(s.t, newFakeRunner(running), func(cfg *Config) {
		cfg.Pod = s.dir.peers[i].Pod
		cfg.Peers = &PeersConfig{Directory: s.dir, Listener: l, TLS: s.files[i].load(s.t)}
		if change != nil {
			change(cfg)
		}
	}, nil)
}

// meet waits until every pod has heard of every other.
func (s *service) meet() {
	s.t.Helper()
	for _, h := range s.pods {
		eventually(s.t, 10*time.Second, h.pod+" knows the others", func() bool {
			return int(h.peers.alive.Load()) == len(s.pods)-1
		})
	}
}

// stop closes all pods, the clients' sockets first.
func (s *service) stop(clients ...*testClient) {
	s.t.Helper()
	for _, c := range clients {
		if _, ended := c.hasEnded(); !ended {
			c.Disconnect(wire.CauseDraining)
		}
	}
	for _, h := range s.pods {
		h.stop(s.t)
	}
}

// eventually waits for something that real time brings.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// settled waits until a client is connected or was refused.
func (c *testClient) settled(t testing.TB) (connected *wire.Connected, refused *wire.Error) {
	t.Helper()
	eventually(t, 20*time.Second, "an answer to the connection", func() bool {
		connected = find[wire.Connected](c)
		if r := c.reply("null"); r != nil {
			refused = r.err
		}
		return connected != nil || refused != nil
	})
	return connected, refused
}

// answered waits for the answer to a request.
func (c *testClient) answered(t testing.TB, id string) *sent {
	t.Helper()
	var r *sent
	eventually(t, 10*time.Second, "an answer to request "+id, func() bool {
		r = c.reply(id)
		return r != nil
	})
	return r
}

// metricValue reads a counter or a gauge.
func metricValue(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	if out.Counter != nil {
		return out.GetCounter().GetValue()
	}
	return out.GetGauge().GetValue()
}
