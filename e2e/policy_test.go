package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// metadata is where clouds answer with a node's credentials.
var metadata = netip.MustParseAddr("169.254.169.254")

// TestNetworkPolicyCoversThePod: the policy is there, chooses the pod, and lets
// no command reach the cloud's metadata. The cluster of these tests has a
// network that does not enforce policies, so this is as far as it can be
// proved. Protects from: a policy whose selector matches nothing.
func TestNetworkPolicyCoversThePod(t *testing.T) {
	r := suite.shared
	pod := r.pod(t)
	policies, err := suite.kube.NetworkingV1().NetworkPolicies(r.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var covering []networkingv1.NetworkPolicy
	for _, p := range policies.Items {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Matches(labels.Set(pod.Labels)) {
			covering = append(covering, p)
		}
	}
	if len(covering) == 0 {
		t.Fatalf("none of %d policies chooses the pod", len(policies.Items))
	}
	var types []networkingv1.PolicyType
	for _, p := range covering {
		types = append(types, p.Spec.PolicyTypes...)
		for _, rule := range p.Spec.Egress {
			if err := keepsMetadataOut(rule); err != nil {
				t.Errorf("policy %s: %v", p.Name, err)
			}
		}
	}
	for _, want := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
		if !slices.Contains(types, want) {
			t.Errorf("no policy restricts %s", want)
		}
	}
}

// keepsMetadataOut checks that a rule does not allow the metadata address.
func keepsMetadataOut(rule networkingv1.NetworkPolicyEgressRule) error {
	if len(rule.To) == 0 {
		return errors.New("a rule allows every address")
	}
	holds := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(metadata)
	}
	for _, to := range rule.To {
		if to.IPBlock != nil && holds(to.IPBlock.CIDR) && !slices.ContainsFunc(to.IPBlock.Except, holds) {
			return fmt.Errorf("%s is allowed but for %v, which leaves %s", to.IPBlock.CIDR, to.IPBlock.Except, metadata)
		}
	}
	return nil
}

// TestRestrictedPodSecurityIsEnforced: the namespace that the chart's pods run
// in refuses others. Protects from: a claim that rests on a label that is
// not enforced.
func TestRestrictedPodSecurityIsEnforced(t *testing.T) {
	r := suite.shared
	pod := r.pod(t)
	forbidden := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "forbidden", Namespace: r.namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "root", Image: suite.runnerImage}}},
	}
	_, err := suite.kube.CoreV1().Pods(r.namespace).Create(t.Context(), forbidden,
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("a pod that may be root is refused with %v, want a violation of PodSecurity", err)
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("container %s can write to its root filesystem", c.Name) // more than restricted asks for
		}
	}
}

// TestHelmTestPasses protects from: a chart whose own test does not run where
// pods are restricted, or that looks at nothing.
func TestHelmTestPasses(t *testing.T) {
	r := suite.shared
	out, err := r.helm(t.Context(), "test", r.name, "--timeout", installBound.String())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "Succeeded") {
		t.Errorf("helm test ran nothing:\n%s", out)
	}
}

// TestHealthIsServedThroughTheIngress protects from: a path that the ingress
// does not send on, and admin pages that it does.
func TestHealthIsServedThroughTheIngress(t *testing.T) {
	r := suite.shared
	status, body, err := r.get(t.Context(), "/health")
	if err != nil || status != 200 || !strings.Contains(body, `"status":"healthy"`) {
		t.Errorf("/health: %d %q %v", status, body, err)
	}
	for _, path := range []string{"/metrics", "/readyz", "/debug/pprof/"} {
		if status, body, err := r.get(t.Context(), path); err != nil || status != 404 {
			t.Errorf("%s through the ingress: %d %.80q %v, want 404", path, status, body, err)
		}
	}
}
