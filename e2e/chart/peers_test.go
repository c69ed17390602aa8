package chart

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// peersSecret is the Secret that helm generates.
const peersSecret = "troupe-peers"

// hasPeers reports whether the pods of a rendering know each other.
func (r *rendering) hasPeers(t testing.TB) bool {
	return strings.Contains(r.config(t), "peer-listen: ")
}

// TestPeersAreFoundAndReached: port, Service, Role, policy and certificates of
// one rendering belong together, and are all there or none. Protects from: pods
// that listen on a port that no peer uses, that may not list their peers, or whose
// sessions cannot be reached while they drain.
func TestPeersAreFoundAndReached(t *testing.T) {
	want := map[string]bool{
		"placement": true, "autoscaling-sessions": true, "autoscaling-cpu": true, "bare": true,
		"peers": true, "peers-one": true, "peers-cert-manager": true, "peers-issuer": true, "largest": true,
	}
	forEach(t, func(t *testing.T, name string, r *rendering) {
		config := r.config(t)
		if got := r.hasPeers(t); got != want[name] {
			t.Fatalf("the pods are peers: %t, want %t", got, want[name])
		}
		services := r.find("Service")
		server, _ := container(t, r, "server")
		i := slices.IndexFunc(server.Ports, func(p corev1.ContainerPort) bool { return p.Name == "peer" })
		rights := role(t, r, r.fullname(t))
		mayAsk := rights != nil && slices.ContainsFunc(rights.Rules, func(rule rbacv1.PolicyRule) bool {
			return slices.Equal(rule.Resources, []string{"endpointslices"}) &&
				slices.Equal(rule.Verbs, []string{"list", "watch"})
		})
		if !want[name] {
			if len(services) != 1 || i >= 0 || mayAsk || strings.Contains(config, "peer-") {
				t.Errorf("without peers there are %d Services, a port %t, a right %t", len(services), i >= 0, mayAsk)
			}
			return
		}
		if len(services) != 2 || i < 0 || !mayAsk {
			t.Fatalf("there are %d Services, a port: %t, the right to ask: %t", len(services), i >= 0, mayAsk)
		}
		service := decodeNamed[corev1.Service](t, r, "Service", setting(t, config, "peer-service"))
		if spec := service.Spec; spec.ClusterIP != "None" || !spec.PublishNotReadyAddresses || len(spec.Ports) != 1 ||
			spec.Ports[0].Name != "peer" {
			t.Errorf("the peers' Service is %+v", spec)
		}
		if listen := setting(t, config, "peer-listen"); listen != fmt.Sprintf(":%d", server.Ports[i].ContainerPort) {
			t.Errorf("trouped listens on %s, the port is %d", listen, server.Ports[i].ContainerPort)
		}
	})
}

// fullname is the name of the Deployment.
func (r *rendering) fullname(t testing.TB) string {
	return decode[appsv1.Deployment](t, r, "Deployment").Name
}

// TestPeersAreLetInAndOthersAreNot protects from: a policy that separates the
// pods, and from one that lets other pods try the peers' port.
func TestPeersAreLetInAndOthersAreNot(t *testing.T) {
	r := renderNamed(t, "peers")
	np := decode[networkingv1.NetworkPolicy](t, r, "NetworkPolicy").Spec
	server := labels.Set(decode[appsv1.Deployment](t, r, "Deployment").Spec.Template.Labels)
	test := labels.Set(decode[corev1.Pod](t, r, "Pod").Labels)
	only := func(peers []networkingv1.NetworkPolicyPeer) bool {
		return len(peers) == 1 && peers[0].PodSelector != nil && peers[0].NamespaceSelector == nil &&
			peers[0].IPBlock == nil &&
			selector(t, peers[0].PodSelector).Matches(server) && !selector(t, peers[0].PodSelector).Matches(test)
	}
	in := slices.IndexFunc(np.Ingress,
		func(rule networkingv1.NetworkPolicyIngressRule) bool { return rule.Ports[0].Port.StrVal == "peer" })
	if in < 0 || !only(np.Ingress[in].From) {
		t.Errorf("ingress is %+v, want the port peer for pods of the release only", np.Ingress)
	}
	out := slices.IndexFunc(np.Egress,
		func(rule networkingv1.NetworkPolicyEgressRule) bool { return rule.Ports[0].Port.IntValue() == 9400 })
	if out < 0 || !only(np.Egress[out].To) {
		t.Errorf("egress is %+v, want the peers' port of pods of the release only", np.Egress)
	}
}

// TestPodsAreSpread protects from: three replicas on the node that fails.
func TestPodsAreSpread(t *testing.T) {
	spec := func(name string) corev1.PodSpec {
		return decode[appsv1.Deployment](t, renderNamed(t, name), "Deployment").Spec.Template.Spec
	}
	for name, want := range map[string]struct{ apart, spread, nodes bool }{
		"default": {}, "peers": {apart: true, spread: true}, "peers-off": {},
		"placement": {apart: true, spread: true, nodes: true}, // affinity for nodes, and a spread of its own
	} {
		s := spec(name)
		apart := s.Affinity != nil && s.Affinity.PodAntiAffinity != nil &&
			len(s.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 1
		nodes := s.Affinity != nil && s.Affinity.NodeAffinity != nil
		if apart != want.apart || (len(s.TopologySpreadConstraints) == 1) != want.spread || nodes != want.nodes {
			t.Errorf("%s: affinity %+v, spread %+v", name, s.Affinity, s.TopologySpreadConstraints)
		}
		for _, c := range s.TopologySpreadConstraints {
			if c.WhenUnsatisfiable != corev1.ScheduleAnyway {
				t.Errorf("%s: a pod waits for a zone: %+v", name, c)
			}
		}
	}
}

// TestGeneratedCertificatesAreThoseOfPeers verifies as a peer does, both ways.
// Protects from: pods that refuse each other, and from an authority's key or a
// certificate's in the runner's container.
func TestGeneratedCertificatesAreThoseOfPeers(t *testing.T) {
	r := renderNamed(t, "peers")
	secret := decodeNamed[corev1.Secret](t, r, "Secret", peersSecret)
	leaf := verifyPeer(t, secret.Data, setting(t, r.config(t), "peer-cert-name"))
	if life := time.Until(leaf.NotAfter); life < 89*24*time.Hour || life > 90*24*time.Hour {
		t.Errorf("the certificate lives for %s, want 90 days", life)
	}
	_, spec := container(t, r, "server")
	for _, v := range spec.Volumes {
		if v.Secret != nil {
			t.Errorf("volume %s is a whole Secret", v.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.Secret == nil || s.Secret.Name != peersSecret {
				continue
			}
			for _, item := range s.Secret.Items {
				if item.Key == "ca.key" {
					t.Error("the authority's key is mounted")
				}
			}
			if v.Name != "config" || len(s.Secret.Items) != 3 { // what TestRunnerHoldsNoSecret keeps from the runner
				t.Errorf("volume %s has %v", v.Name, s.Secret.Items)
			}
		}
	}
	if again := decodeNamed[corev1.Secret](t, renderNamed(t, "peers"), "Secret",
		peersSecret); string(again.Data["ca.crt"]) == string(secret.Data["ca.crt"]) {
		t.Error("two installations have the same authority")
	}
}

// verifyPeer returns the certificate of a Secret if peers would take it.
func verifyPeer(t *testing.T, data map[string][]byte, name string) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data["ca.crt"]) {
		t.Fatal("ca.crt has no certificate")
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{
			DNSName: name, Roots: roots,
			KeyUsages: []x509.ExtKeyUsage{use},
		}); err != nil {
			t.Errorf("use %v: %v", use, err)
		}
	}
	return pair.Leaf
}

// TestCertManagerMakesWhatIsMounted protects from: a Certificate whose Secret or
// name nothing uses, and from an authority that a renewal replaces.
func TestCertManagerMakesWhatIsMounted(t *testing.T) {
	for name, issuer := range map[string]string{
		"peers-cert-manager": "Issuer/troupe-peers",
		"peers-issuer":       "ClusterIssuer/internal",
	} {
		r := renderNamed(t, name)
		cert := decodeNamed[cmv1.Certificate](t, r, "Certificate", "troupe-peers").Spec
		if got := cert.IssuerRef.Kind + "/" + cert.IssuerRef.Name; got != issuer {
			t.Errorf("%s: the issuer is %s, want %s", name, got, issuer)
		}
		if cert.SecretName != peersSecret || !slices.Equal(cert.DNSNames,
			[]string{setting(t, r.config(t), "peer-cert-name")}) ||
			!slices.Contains(cert.Usages, cmv1.UsageServerAuth) || !slices.Contains(cert.Usages, cmv1.UsageClientAuth) {
			t.Errorf("%s: the certificate is %+v", name, cert)
		}
		for _, o := range r.find("Secret") {
			if o.Metadata.Name == peersSecret {
				t.Errorf("%s: helm makes the Secret that cert-manager makes", name)
			}
		}
	}
	r := renderNamed(t, "peers-cert-manager")
	ca := decodeNamed[cmv1.Certificate](t, r, "Certificate", "troupe-peers-ca").Spec
	own := decodeNamed[cmv1.Issuer](t, r, "Issuer", "troupe-peers").Spec
	if !ca.IsCA || own.CA == nil || own.CA.SecretName != ca.SecretName ||
		ca.PrivateKey.RotationPolicy != cmv1.RotationPolicyNever {
		t.Errorf("the authority is %+v, its issuer %+v", ca, own)
	}
}

// TestPeersKeepTrustingEachOther: an upgrade keeps authority and certificate;
// past half of its days it signs a new certificate with the same authority, and
// also when its name changes. A removed Secret is created again. Protects from: pods of
// one release that refuse each other during a rollout, and from a certificate
// that expires because none was made.
func TestPeersKeepTrustingEachOther(t *testing.T) {
	h := newHelm(t, "peers")
	const three = "peers: {enabled: true}\n"
	if err := h.install(t, three); err != nil {
		t.Fatal(err)
	}
	name := "troupe-peers." + h.namespace + ".svc"
	first := h.peers(t)
	verifyPeer(t, first, name)

	h.upgrade(t, three+"limits: {maxSessions: 5}")
	if now := h.peers(t); !equal(now, first, "ca.crt", "ca.key", "tls.crt", "tls.key") {
		t.Error("an upgrade made other certificates")
	}

	h.patchPeers(t, fmt.Sprintf(`{"metadata":{"annotations":{"troupe.dev/renew-after":%q}}}`,
		time.Now().Format(time.DateOnly)))
	h.upgrade(t, three)
	renewed := h.peers(t)
	verifyPeer(t, renewed, name)
	if !equal(renewed, first, "ca.crt", "ca.key") || equal(renewed, first, "tls.crt") {
		t.Error("after half of its days the certificate was not renewed by the same authority")
	}

	h.upgrade(t, "peers: {enabled: true, tls: {certName: runs.example.com}}")
	verifyPeer(t, h.peers(t), "runs.example.com")
	if !equal(h.peers(t), first, "ca.crt", "ca.key") {
		t.Error("another name made another authority")
	}

	// What an operator does whose keys are known to others.
	if err := h.api.client.Resource(secrets).Namespace(h.namespace).Delete(t.Context(), peersSecret,
		metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.upgrade(t, three)
	verifyPeer(t, h.peers(t), name)
	if equal(h.peers(t), first, "ca.crt") {
		t.Error("without its Secret the authority is the same")
	}
}

func equal(a, b map[string][]byte, keys ...string) bool {
	return !slices.ContainsFunc(keys,
		func(key string) bool { return len(a[key]) == 0 || string(a[key]) != string(b[key]) })
}

// peers returns the peers' Secret as it is in the cluster.
func (h *helm) peers(t *testing.T) map[string][]byte {
	t.Helper()
	secret, err := h.api.client.Resource(secrets).Namespace(h.namespace).Get(t.Context(), peersSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	encoded, _, _ := unstructured.NestedStringMap(secret.Object, "data")
	data := map[string][]byte{}
	for key, text := range encoded {
		if data[key], err = base64.StdEncoding.DecodeString(text); err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(data[key]); block == nil {
			t.Fatalf("%s is not PEM", key)
		}
	}
	return data
}

func (h *helm) patchPeers(t *testing.T, patch string) {
	t.Helper()
	_, err := h.api.client.Resource(secrets).Namespace(h.namespace).Patch(t.Context(), peersSecret,
		"application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}
