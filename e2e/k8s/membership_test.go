package k8s

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	product "github.com/troupe-dev/troupe/k8s"
)

// The EndpointSlices here are written by hand: no controller runs beside the API server.

const peerService = "troupe-peers"

// peersRule is all that a Membership needs.
var peersRule = rbacv1.PolicyRule{
	APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"},
	Verbs: []string{"list", "watch"},
}

// service makes the headless Service of peers, as the chart does.
func (s *space) service() {
	s.t.Helper()
	_, err := kube.CoreV1().Services(s.name).Create(s.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: peerService},
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true, Selector: map[string]string{"app": "troupe"},
			Ports: []corev1.ServicePort{{Name: "peer", Port: 9400, TargetPort: intstr.FromString("peer")}},
		},
	}, metav1.CreateOptions{})
	must(s.t, err)
}

// slice makes a slice of the Service, with a port.
func (s *space) slice(name string, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	portName, family := "peer", discoveryv1.AddressTypeIPv4
	if len(endpoints) > 0 && strings.Contains(endpoints[0].Addresses[0], ":") {
		family = discoveryv1.AddressTypeIPv6
	}
	for i := range endpoints {
		endpoints[i].TargetRef.Namespace = s.name
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: s.name,
			Labels: map[string]string{discoveryv1.LabelServiceName: peerService},
		},
		AddressType: family, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}, Endpoints: endpoints,
	}
}

// write creates or replaces a slice.
func (s *space) writeSlice(slice *discoveryv1.EndpointSlice) {
	s.t.Helper()
	api := kube.DiscoveryV1().EndpointSlices(s.name)
	old, err := api.Get(s.t.Context(), slice.Name, metav1.GetOptions{})
	if err != nil {
		_, err = api.Create(s.t.Context(), slice, metav1.CreateOptions{})
	} else {
		slice.ResourceVersion = old.ResourceVersion
		_, err = api.Update(s.t.Context(), slice, metav1.UpdateOptions{})
	}
	must(s.t, err)
}

// at is the endpoint of a pod.
func at(pod, ip string, conditions ...string) discoveryv1.Endpoint {
	ready, terminating := !slices.Contains(conditions, "not ready"), slices.Contains(conditions, "terminating")
	return discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: pod},
	}
}

// members follows the Service as trouped does. change is applied to the cluster's configuration.
func (s *space) members(change func(*product.Cluster)) *product.Membership {
	s.t.Helper()
	cluster := s.cluster()
	if change != nil {
		change(cluster)
	}
	c, err := product.NewClient(product.ClientConfig{
		Cluster: cluster, Version: "e2e",
		Logger:  slog.New(slog.NewTextHandler(&s.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: product.NewMetrics(s.reg),
	})
	must(s.t, err)
	m, err := product.NewMembership(product.MembershipConfig{
		Client: c, Namespace: s.name, Service: peerService,
		Port: "peer",
	})
	must(s.t, err)
	s.t.Cleanup(m.Close)
	return m
}

// are is a check for eventually: these are the members, "pod=host:port …".
func are(m *product.Membership, want string) func(context.Context) error {
	return func(context.Context) error {
		var all []string
		for _, x := range m.Members() {
			all = append(all, x.Pod+"="+x.Addr)
		}
		if got := strings.Join(all, " "); got != want {
			return fmt.Errorf("the members are %q, want %q", got, want)
		}
		return nil
	}
}

// TestMembers come, move and go as the EndpointSlices of a real API server say.
func TestMembers(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.grant("peers", "troupe", peersRule)
	s.service()
	m := s.members(nil)
	becomes := func(what, want string) {
		t.Helper()
		eventually(t, what, are(m, want))
	}
	s.writeSlice(s.slice("a", 9400, at("p0", "10.0.0.1"), at("p1", "10.0.0.2", "not ready"),
		at("p2", "10.0.0.3", "not ready", "terminating")))
	becomes("the first slice", "p0=10.0.0.1:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9400")
	s.writeSlice(s.slice("b", 9401, at("p3", "10.0.0.4")))
	becomes("another slice, of another port", "p0=10.0.0.1:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9400 p3=10.0.0.4:9401")
	s.writeSlice(s.slice("b", 9401, at("p3", "10.0.0.4"), at("p2", "10.0.0.3")))
	becomes("a pod in two slices", "p0=10.0.0.1:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9401 p3=10.0.0.4:9401")
	s.writeSlice(s.slice("a", 9400, at("p0", "10.0.9.9"), at("p1", "10.0.0.2")))
	becomes("another address", "p0=10.0.9.9:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9401 p3=10.0.0.4:9401")
	s.writeSlice(s.slice("c", 9400, at("p0", "fd00::1"), at("p4", "fd00::4")))
	becomes("IPv6 as well", "p0=10.0.9.9:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9401 p3=10.0.0.4:9401 p4=[fd00::4]:9400")

	other := s.slice("other", 9400, at("q0", "10.0.0.5"))
	other.Labels[discoveryv1.LabelServiceName] = "other"
	s.writeSlice(other)
	relabelled := s.slice("b", 9401, at("p3", "10.0.0.4"), at("p2", "10.0.0.3"))
	relabelled.Labels = nil
	s.writeSlice(relabelled)
	becomes("a slice that is another Service's now", "p0=10.0.9.9:9400 p1=10.0.0.2:9400 p4=[fd00::4]:9400")
	must(t, kube.DiscoveryV1().EndpointSlices(s.name).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	becomes("a slice is deleted", "p0=[fd00::1]:9400 p4=[fd00::4]:9400")
	eventually(t, "what is gone is unknown", func(context.Context) error {
		if _, known := m.Lookup("p1"); known != product.Unknown {
			return fmt.Errorf("p1 is %d", known)
		}
		return nil
	})
	if s.failures() != 0 || s.logs.count("level=WARN") > 0 {
		t.Errorf("%d failures; the log:\n%s", s.failures(), &s.logs)
	}
}

// TestMembersWithoutPermission: nothing is known and said once; as soon as somebody grants it, all
// is.
func TestMembersWithoutPermission(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.writeSlice(s.slice("a", 9400, at("p0", "10.0.0.1")))
	m := s.members(nil)
	eventually(t, "the refusal", func(context.Context) error {
		if s.logs.count("refuses to list and watch EndpointSlices") == 0 {
			return errors.New("not a word")
		}
		return nil
	})
	if _, known := m.Lookup("p0"); known != product.Unresolved {
		t.Errorf("p0 is %d", known)
	}
	s.grant("peers", "troupe", peersRule)
	eventually(t, "granted", are(m, "p0=10.0.0.1:9400"))
	if s.logs.count("level=WARN") != 1 || s.failures() == 0 {
		t.Errorf("%d failures; the log:\n%s", s.failures(), &s.logs)
	}
}

// tripper passes requests on, with another resourceVersion for watches while that is not 0.
type tripper struct {
	next    http.RoundTripper
	version *atomic.Int64
}

func (w tripper) RoundTrip(r *http.Request) (*http.Response, error) {
	if q := r.URL.Query(); q.Get("watch") != "" && w.version.Load() != 0 {
		r = r.Clone(r.Context())
		q.Set("resourceVersion", strconv.FormatInt(w.version.Load(), 10))
		r.URL.RawQuery = q.Encode()
	}
	return w.next.RoundTrip(r)
}

// TestMembersOutliveTheAPIServer: it is killed, and another begins with the same store. Then
// nothing is missing: not what it was told before it could tell, and not what comes
// later. A watch from before its time, which it has no history of, is no refusal.
func TestMembersOutliveTheAPIServer(t *testing.T) {
	s := newSpace(t)
	s.grant("peers", "troupe", peersRule)
	s.writeSlice(s.slice("a", 9400, at("p0", "10.0.0.1")))
	version := new(atomic.Int64)
	m := s.members(func(c *product.Cluster) {
		c.REST.Wrap(func(next http.RoundTripper) http.RoundTripper { return tripper{next, version} })
	})
	eventually(t, "the first list", are(m, "p0=10.0.0.1:9400"))
	for round := range 2 {
		start := kill(t)
		defer start()
		eventually(t, "the outage is noticed", func(context.Context) error {
			if n := s.logs.count("peers cannot be followed now"); n <= round {
				return fmt.Errorf("%d warnings", n)
			}
			return nil
		})
		must(t, are(m, "p0=10.0.0.1:9400")(t.Context()))
		if round == 1 {
			version.Store(1)
		}
		start()
		s.writeSlice(s.slice("b", 9400, at("p1", "10.0.0.2")))
		eventually(t, "what is new", are(m, "p0=10.0.0.1:9400 p1=10.0.0.2:9400"))
		if round == 0 {
			must(t, kube.DiscoveryV1().EndpointSlices(s.name).Delete(t.Context(), "b", metav1.DeleteOptions{}))
			eventually(t, "and what is gone", are(m, "p0=10.0.0.1:9400"))
			eventually(t, "it is followed again", func(context.Context) error {
				if s.logs.count("peers are followed again") == 0 {
					return errors.New("not a word")
				}
				return nil
			})
		}
	}
	eventually(t, "the real API server's word", func(context.Context) error {
		if s.logs.count("too old resource version") == 0 {
			return errors.New("not a word")
		}
		return nil
	})
	version.Store(0)
	s.writeSlice(s.slice("c", 9400, at("p2", "10.0.0.3")))
	eventually(t, "the last", are(m, "p0=10.0.0.1:9400 p1=10.0.0.2:9400 p2=10.0.0.3:9400"))
	if s.logs.count("level=WARN") > 2 {
		t.Errorf("the log:\n%s", &s.logs)
	}
}

// ownAddress is an address of this machine that may be in an EndpointSlice: not a loopback one.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has no IPv4 address but loopback")
	return ""
}

// TestPeersByEndpointSlices: two trouped that know of each other by them alone. A
// session is resumed through the other pod, also while the API server is frozen. This
// test is not parallel: the others need the API server.
func TestPeersByEndpointSlices(t *testing.T) {
	s := newSpace(t)
	s.grant("peers", "troupe", peersRule)
	s.service()
	ip := ownAddress(t)
	ca, err := peerca.New()
	must(t, err)
	peer := func(name string) (*process, discoveryv1.Endpoint, int32) {
		l, err := net.Listen("tcp", ip+":0")
		must(t, err)
		_, number, err := net.SplitHostPort(l.Addr().String())
		must(t, err)
		must(t, l.Close())
		port, err := strconv.ParseInt(number, 10, 32)
		must(t, err)
		files, err := ca.Sign(t.TempDir(), "troupe-peer", ca)
		must(t, err)
		p := s.launchAs(name, "--peer-service", peerService, "--peer-listen", l.Addr().String(), "--peer-cert-name",
			"troupe-peer",
			"--peer-cert", files.Cert, "--peer-key", files.Key, "--peer-ca", files.CA)
		return p, at(name, ip), int32(port)
	}
	a, atA, portA := peer("troupe-a")
	b, atB, portB := peer("troupe-b")
	c, err := a.dial("")
	must(t, err)
	session := c.Detach()
	resume := func(p *process) error {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		c, err := troupe.Attach(ctx, "ws://"+p.addr+"/ws", session.ID, session.ResumeToken,
			session.Offsets, troupe.Options{})
		if err != nil {
			return err
		}
		if done, err := c.Run(ctx, wire.ExecuteParams{Command: "exit 3"}, io.Discard, io.Discard); err != nil ||
			done.ExitCode != 3 {
			t.Errorf("a command ended with %+v, %v", done, err)
		}
		session = c.Detach()
		return nil
	}
	if err := resume(b); wire.CodeOf(err) != wire.CodeSessionLost { // no slice, so no pod
		t.Errorf("through a pod that knows no peer: %v", err)
	}
	s.writeSlice(s.slice("a", portA, atA))
	s.writeSlice(s.slice("b", portB, atB))
	eventually(t, "resumed through the other pod", func(context.Context) error { return resume(b) })
	must(t, resume(a))

	thaw := freeze(t)
	for _, p := range []*process{b, a, b} {
		must(t, resume(p))
	}
	thaw()
	for _, p := range []*process{a, b} {
		p.drain()
		if p.logs.count(`"level":"ERROR"`) > 0 {
			t.Error("there were errors")
		}
	}
}

// TestMembersOfAFrozenAPIServer: nothing waits for it, and all is known when it is back.
func TestMembersOfAFrozenAPIServer(t *testing.T) {
	s := newSpace(t)
	s.grant("peers", "troupe", peersRule)
	s.writeSlice(s.slice("a", 9400, at("p0", "10.0.0.1")))
	cluster := s.cluster()
	thaw := freeze(t)
	began := time.Now()
	m := s.members(func(c *product.Cluster) { *c = *cluster })
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to begin", took)
	}
	if _, known := m.Lookup("p0"); known != product.Unresolved {
		t.Errorf("p0 is %d", known)
	}
	eventually(t, "the outage is noticed", func(context.Context) error {
		if s.logs.count("peers cannot be followed now") == 0 {
			return errors.New("not a word")
		}
		return nil
	})
	thaw()
	eventually(t, "it is back", are(m, "p0=10.0.0.1:9400"))
	if s.logs.count("level=WARN") != 1 {
		t.Errorf("the log:\n%s", &s.logs)
	}
}
