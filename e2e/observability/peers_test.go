package observability

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/wire"
)

const (
	peerPort = 9400                                 // of every pod: a Service has one
	peerName = "troupe-peers." + namespace + ".svc" // in the certificates
)

// peerFiles are what a server needs to be one of many pods.
type peerFiles struct {
	ca    *peerca.Authority
	files peerca.Files
	ip    string
}

// newPeer gives a pod a certificate and an address of its own, which no server on 127.0.0.1 can
// occupy.
func newPeer(t *testing.T, ca *peerca.Authority) *peerFiles {
	t.Helper()
	files, err := ca.Sign(t.TempDir(), peerName)
	if err != nil {
		t.Fatal(err)
	}
	return &peerFiles{ca: ca, files: files, ip: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256),
		1+rand.IntN(253))}
}

func (p *peerFiles) addr() string { return net.JoinHostPort(p.ip, strconv.Itoa(peerPort)) }

func (p *peerFiles) args() []string {
	return []string{
		"--peer-service", "troupe-peers", "--peer-listen", p.addr(),
		"--peer-cert", p.files.Cert, "--peer-key", p.files.Key, "--peer-ca", p.files.CA, "--peer-cert-name", peerName,
	}
}

// sliceAPI serves the EndpointSlice of the peers' Service.
type sliceAPI struct {
	mu      sync.Mutex
	version int
	pods    map[string]string // addresses by name
	changed chan struct{}     // closed at the next change
	ended   chan struct{}     // closed when watches are to end
}

func newSliceAPI() *sliceAPI {
	return &sliceAPI{changed: make(chan struct{}), ended: make(chan struct{})}
}

// set replaces the pods.
func (a *sliceAPI) set(pods map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.pods = pods
	close(a.changed)
	a.changed = make(chan struct{})
}

// cut ends the watches that are open.
func (a *sliceAPI) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.ended)
	a.ended = make(chan struct{})
}

func (a *sliceAPI) now() (slice discoveryv1.EndpointSlice, changed, ended <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, port := "peer", int32(peerPort)
	slice = discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		ObjectMeta:  metav1.ObjectMeta{Name: "troupe-peers-1", ResourceVersion: strconv.Itoa(a.version)},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for _, pod := range slices.Sorted(maps.Keys(a.pods)) {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.pods[pod]}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod},
		})
	}
	return slice, a.changed, a.ended
}

func (a *sliceAPI) serve(w http.ResponseWriter, r *http.Request) {
	slice, changed, ended := a.now()
	if r.URL.Query().Get("watch") == "" {
		list := discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{
			Kind:       "EndpointSliceList",
			APIVersion: slice.APIVersion,
		}}
		list.ResourceVersion, list.Items = slice.ResourceVersion, []discoveryv1.EndpointSlice{slice}
		answer(w, list)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w)
	for news := r.URL.Query().Get("resourceVersion") != slice.ResourceVersion; ; news = true {
		if news {
			// a client that has gone is noticed below
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": slice})
		}
		_ = flush.Flush()
		select {
		case <-changed:
			slice, changed, _ = a.now()
		case <-ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// startPeers starts d and e, which find each other.
func (s *scenario) startPeers(bin string) {
	s.t.Helper()
	ca, err := peerca.New()
	if err != nil {
		s.t.Fatal(err)
	}
	d, e := newPeer(s.t, ca), newPeer(s.t, ca)
	s.api.peers.set(map[string]string{"troupe-d": d.ip, "troupe-e": e.ip})
	s.d = startServer(s.t, bin, serverConfig{
		pod: "troupe-d", token: "token-of-troupe-d-0123456789", cluster: s.api,
		peers: d,
	})
	s.e = startServer(s.t, bin, serverConfig{
		pod: "troupe-e", token: "token-of-troupe-e-0123456789", cluster: s.api,
		peers: e,
	})
}

// sessionsElsewhere opens more sessions at d than it has slots.
func (s *scenario) sessionsElsewhere() {
	for range maxSessions + 3 {
		s.crowd = append(s.crowd, s.d.dial())
	}
	for _, c := range s.crowd[maxSessions:] {
		if !strings.HasPrefix(c.ID(), s.e.pod+".") {
			s.t.Errorf("session %s of a client of %s, which is full", c.ID(), s.d.pod)
		}
		if done := s.run(c, wire.ExecuteParams{Command: "seq 1 2000"}); done == nil || done.ExitCode != 0 {
			s.t.Errorf("a command on another pod ended with %+v", done)
		}
	}
}

// strangersKnock connects to the peers' ports without TLS, and with TLS but without a certificate.
func (s *scenario) strangersKnock() {
	for _, addr := range []string{s.d.peers.addr(), s.e.peers.addr()} {
		plain, err := net.Dial("tcp", addr)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprint(plain, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, plain) // until the server closes it
		_ = plain.Close()
		if secure, err := tls.Dial("tcp", addr, &tls.Config{
			InsecureSkipVerify: true,
			NextProtos:         []string{"h2"},
		}); err == nil {
			_, _ = io.Copy(io.Discard, secure)
			_ = secure.Close()
		}
	}
}

// closeWay gives d a wrong address of e: nothing that d sends arrives, while e still reaches d.
func (s *scenario) closeWay() {
	s.api.peers.set(map[string]string{s.d.pod: s.d.peers.ip, s.e.pod: "127.0.0.1"})
	for _, c := range s.crowd[maxSessions:] {
		go func() {
			_, _ = c.Control(s.t.Context(), wire.ControlParams{Type: wire.ControlPause, ExecutionID: "unknown"})
		}() // the request gets no answer
	}
}

func (s *scenario) openWay() {
	s.api.peers.set(map[string]string{s.d.pod: s.d.peers.ip, s.e.pod: s.e.peers.ip})
	for _, c := range s.crowd[:maxSessions] {
		_ = c.Close()
	}
	for _, c := range s.crowd[maxSessions:] {
		c.Detach() // e has ended their sessions
	}
	s.crowd = nil
}

// certificateAges gives e a certificate that expires soon.
func (s *scenario) certificateAges() {
	s.e.peers.ca.Lifetime = 5 * time.Minute
	if _, err := s.e.peers.ca.Sign(filepath.Dir(s.e.peers.files.Cert), peerName); err != nil {
		s.t.Fatal(err)
	}
}
