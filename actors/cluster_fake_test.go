package actors

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/wire"
)

// load makes of certificate files what an engine wants.
func load(t testing.TB, f peerca.Files) *peers.TLS {
	t.Helper()
	p, err := peers.NewTLS(f.Cert, f.Key, f.CA, "", nil)
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
	ca    *peerca.Authority
	files []peerca.Files
}

// testDirectory is a peers.Directory that a test changes.
type testDirectory struct {
	mu      sync.Mutex
	peers   peers.Static
	missing peers.Knowledge // of a pod that is not there
	subs    map[int]func()
	next    int
}

func (d *testDirectory) Lookup(pod string) (peers.Peer, peers.Knowledge) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, k := d.peers.Lookup(pod)
	if k == peers.Unknown {
		k = d.missing
	}
	return p, k
}

func (d *testDirectory) Peers() []peers.Peer {
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
func (d *testDirectory) set(missing peers.Knowledge, all ...peers.Peer) {
	d.mu.Lock()
	d.peers, d.missing = all, missing
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

// newService starts n pods, pod-0 and so on, and waits until every pod knows every other.
func newService(t testing.TB, n int, change func(*Config)) *service {
	t.Helper()
	s := &service{t: t, dir: &testDirectory{}, ca: newAuthority(t)}
	listeners := make([]net.Listener, n)
	for i := range listeners {
		listeners[i] = listenLoopback(t, "127.0.0.1:0")
		s.dir.peers = append(s.dir.peers, peers.Peer{Pod: fmt.Sprintf("pod-%d", i), Addr: listeners[i].Addr().String()})
		s.files = append(s.files, sign(t, s.ca, t.TempDir(), peers.CertName))
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
		cfg.Peers = &PeersConfig{Directory: s.dir, Listener: l, TLS: load(s.t, s.files[i])}
		if change != nil {
			change(cfg)
		}
	}, nil)
}

// meet waits until every pod knows every other.
func (s *service) meet() {
	s.t.Helper()
	for _, h := range s.pods {
		eventually(s.t, 10*time.Second, h.pod+" knows the others", func() bool {
			alive, _ := h.cluster.peerStates()
			return alive == len(s.pods)-1
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

func newAuthority(t testing.TB) *peerca.Authority {
	t.Helper()
	a, err := peerca.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sign(t testing.TB, a *peerca.Authority, dir, name string, trusted ...*peerca.Authority) peerca.Files {
	t.Helper()
	f, err := a.Sign(dir, name, trusted...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
