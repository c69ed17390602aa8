package chart

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// TestPodsAreRestricted asks the code that enforces the Pod Security Standards
// in an API server. Protects from: a value, or a new container, that a
// restricted namespace would refuse.
func TestPodsAreRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		template := decode[appsv1.Deployment](t, r, "Deployment").Spec.Template
		test := decode[corev1.Pod](t, r, "Pod")
		for what, pod := range map[string]*corev1.Pod{
			"Deployment": {ObjectMeta: template.ObjectMeta, Spec: template.Spec},
			"helm test":  test,
		} {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
			if !result.Allowed {
				t.Errorf("%s is not restricted: %s", what, result.ForbiddenDetail())
			}
			if mount := pod.Spec.AutomountServiceAccountToken; mount == nil || *mount {
				t.Errorf("%s mounts a token in every container", what)
			}
		}
	})
}

// container returns a container of the Deployment's pods, and the pods.
func container(t *testing.T, r *rendering, name string) (corev1.Container, corev1.PodSpec) {
	t.Helper()
	spec := decode[appsv1.Deployment](t, r, "Deployment").Spec.Template.Spec
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		if c.Name == name {
			return c, spec
		}
	}
	t.Fatalf("there is no container %s", name)
	return corev1.Container{}, spec
}

// TestRunnerHoldsNoSecret: commands can read whatever their container can.
// Protects from: a token of a client or of the server, or a transcript, in the
// runner's mounts or environment.
func TestRunnerHoldsNoSecret(t *testing.T) {
	forEach(t, func(t *testing.T, name string, r *rendering) {
		runner, spec := container(t, r, "runner")
		if len(runner.Env) > 0 || len(runner.EnvFrom) > 0 {
			t.Errorf("the runner has an environment: %v", runner.Env)
		}
		want := map[string]bool{"bin": true, "run": true, "workspace": false, "tmp": false} // whether read-only
		if name == "placement" {
			want["cache"] = false
		}
		if name == "isolation" {
			maps.Copy(want, map[string]bool{"seed": true, "cache": false, "models": true})
		}
		for _, m := range runner.VolumeMounts {
			readOnly, ok := want[m.Name]
			if !ok || m.ReadOnly != readOnly {
				t.Errorf("the runner mounts %s at %s, read-only: %t", m.Name, m.MountPath, m.ReadOnly)
			}
			delete(want, m.Name)
		}
		if len(want) > 0 {
			t.Errorf("the runner does not mount %v", want)
		}
		if spec.ShareProcessNamespace == nil || *spec.ShareProcessNamespace {
			t.Error("the containers share their processes")
		}
	})
}

// TestServerHasATokenOnlyWhenItNeedsOne protects from: a server without the API
// access that it was configured for, and with one that it has no use for.
func TestServerHasATokenOnlyWhenItNeedsOne(t *testing.T) {
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		server, _ := container(t, r, "server")
		mounted := slices.ContainsFunc(server.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount"
		})
		config := r.config(t)
		needs := strings.Contains(config, "auth: kubernetes\n") || strings.Contains(config, "kubernetes: \"auto\"\n") ||
			r.hasPeers(t)
		if mounted != needs {
			t.Errorf("the token is mounted: %t, needed: %t", mounted, needs)
		}
		own := role(t, r, r.fullname(t))
		patches := own != nil &&
			slices.ContainsFunc(own.Rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "pods") })
		if reports := strings.Contains(config, "kubernetes: \"auto\"\n"); reports != patches {
			t.Errorf("pods report: %t, and there is a right for it: %t", reports, patches)
		}
	})
}

// role returns the Role of that name, or nil.
func role(t *testing.T, r *rendering, name string) *rbacv1.Role {
	t.Helper()
	for _, o := range r.find("Role") {
		into := &rbacv1.Role{}
		if err := yaml.UnmarshalStrict([]byte(o.text), into); err != nil {
			t.Fatal(err)
		}
		if into.Name == name {
			return into
		}
	}
	return nil
}

func sessionRights(verbs ...string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{APIGroups: []string{"troupe.dev"}, Resources: []string{"sessions"}, Verbs: verbs}}
}

// TestRightsAreThese: adding one takes a change here. Protects from: rights that
// nothing in trouped uses.
func TestRightsAreThese(t *testing.T) {
	for name, want := range map[string][]rbacv1.PolicyRule{
		"troupe": {
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"patch"}},
			{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		},
		"troupe-sessions":          sessionRights("create"),
		"troupe-sessions-viewer":   sessionRights("list", "get"),
		"troupe-sessions-operator": sessionRights("list", "get", "delete"),
		"troupe-sessions-auditor":  sessionRights("list", "get", "read"),
	} {
		found := role(t, renderNamed(t, "kubernetes"), name)
		if found == nil || len(found.Rules) != len(want) {
			t.Fatalf("Role %s: %+v, want the rules %v", name, found, want)
		}
		for i := range want {
			if found.Rules[i].String() != want[i].String() {
				t.Errorf("Role %s has %v, want %v", name, found.Rules[i], want[i])
			}
		}
	}
	for _, name := range []string{"default", "existing-secret", "none"} {
		if bound := renderNamed(t, name).find("ClusterRoleBinding"); len(bound) > 0 {
			t.Errorf("%s: a right in the whole cluster without auth.mode kubernetes", name)
		}
	}
}

// TestGraceCoversTheDrain protects from: a pod that is killed while executions
// may still finish, or while their clients are being told.
func TestGraceCoversTheDrain(t *testing.T) {
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		server, spec := container(t, r, "server")
		preStop := int64(0)
		if server.Lifecycle != nil {
			preStop = server.Lifecycle.PreStop.Sleep.Seconds
		}
		config := r.config(t)
		// trouped kills survivors after 2 s, and gives up closing after 20 s.
		least := preStop + seconds(t, config, "drain-timeout") + seconds(t, config, "cancel-grace") + 2 + 20
		if grace := *spec.TerminationGracePeriodSeconds; grace < least {
			t.Errorf("the grace period is %d s, the drain may take %d s", grace, least)
		}
		for _, c := range spec.Containers {
			if c.Name == "runner" && c.Lifecycle != nil {
				t.Error("the runner has a hook of its own, and would end before the server has drained")
			}
		}
	})
}

// setting returns a line of trouped's configuration file.
func setting(t *testing.T, config, key string) string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + key + `: "?([^"\n]*)"?$`).FindStringSubmatch(config)
	if match == nil {
		t.Fatalf("the configuration has no %s:\n%s", key, config)
	}
	return match[1]
}

func seconds(t *testing.T, config, key string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSuffix(setting(t, config, key), "s"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTranscriptsFitTheirVolume protects from: a pod that is evicted because its
// transcripts, which are within their budget, are too large for their volume.
func TestTranscriptsFitTheirVolume(t *testing.T) {
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		_, spec := container(t, r, "server")
		budget, err := strconv.ParseInt(setting(t, r.config(t), "transcript-budget"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range spec.Volumes {
			if v.Name == "data" && v.EmptyDir.SizeLimit.Value() < budget*5/4 {
				t.Errorf("the volume has %d bytes, the budget is %d", v.EmptyDir.SizeLimit.Value(), budget)
			}
		}
	})
}

// TestMemoryLimitReachesTheCollector protects from: a server that the kernel
// ends because Go did not know how little memory there is.
func TestMemoryLimitReachesTheCollector(t *testing.T) {
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		server, _ := container(t, r, "server")
		limit, limited := server.Resources.Limits[corev1.ResourceMemory]
		i := slices.IndexFunc(server.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
		if limited != (i >= 0) {
			t.Fatalf("there is a memory limit: %t, and GOMEMLIMIT: %t", limited, i >= 0)
		}
		if !limited {
			return
		}
		soft, err := strconv.ParseInt(server.Env[i].Value, 10, 64)
		if share := float64(soft) / float64(limit.Value()); err != nil || share < 0.89 || share > 0.91 {
			t.Errorf("GOMEMLIMIT is %q of %s (%v), want 90 %%", server.Env[i].Value, limit.String(), err)
		}
	})
}

// TestSelectorsChooseServersOnly: one list of labels for Deployment, Service,
// NetworkPolicy, PodDisruptionBudget and PodMonitor. Protects from: a selector
// that matches nothing, or the pod of helm test.
func TestSelectorsChooseServersOnly(t *testing.T) {
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		deployment := decode[appsv1.Deployment](t, r, "Deployment")
		server, test := labels.Set(deployment.Spec.Template.Labels), labels.Set(decode[corev1.Pod](t, r, "Pod").Labels)
		selectors := map[string]labels.Selector{
			"Deployment": selector(t, deployment.Spec.Selector),
			"Service":    labels.SelectorFromSet(decodeNamed[corev1.Service](t, r, "Service", deployment.Name).Spec.Selector),
		}
		if r.hasPeers(t) {
			selectors["peers"] = labels.SelectorFromSet(decodeNamed[corev1.Service](t, r, "Service",
				deployment.Name+"-peers").Spec.Selector)
		}
		if len(r.find("NetworkPolicy")) > 0 {
			selectors["NetworkPolicy"] = selector(t, &decode[networkingv1.NetworkPolicy](t, r, "NetworkPolicy").Spec.PodSelector)
		}
		if len(r.find("PodDisruptionBudget")) > 0 {
			selectors["PodDisruptionBudget"] = selector(t, decode[policyv1.PodDisruptionBudget](t, r,
				"PodDisruptionBudget").Spec.Selector)
		}
		if len(r.find("PodMonitor")) > 0 {
			selectors["PodMonitor"] = selector(t, &decode[monitoringv1.PodMonitor](t, r, "PodMonitor").Spec.Selector)
		}
		for what, s := range selectors {
			if !s.Matches(server) || s.Matches(test) || s.Empty() {
				t.Errorf("%s chooses the server: %t, the test: %t", what, s.Matches(server), s.Matches(test))
			}
		}
		for _, o := range r.objects {
			if o.Metadata.Labels["app.kubernetes.io/instance"] != releaseName {
				t.Errorf("%s %s does not say that it is of this release", o.Kind, o.Metadata.Name)
			}
			if cluster := o.Kind == "ClusterRoleBinding"; (o.Metadata.Namespace == namespace) == cluster {
				t.Errorf("%s %s is in namespace %q", o.Kind, o.Metadata.Name, o.Metadata.Namespace)
			}
		}
	})
}

func selector(t *testing.T, s *metav1.LabelSelector) labels.Selector {
	t.Helper()
	made, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// metadata is where clouds answer with a node's credentials.
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

// TestMetadataIsOutOfReach protects from: an egress rule, DNS included, through
// which a command gets the node's credentials; and from a closed network in
// which no name resolves.
func TestMetadataIsOutOfReach(t *testing.T) {
	for _, name := range []string{"default", "closed-network"} {
		np := decode[networkingv1.NetworkPolicy](t, renderNamed(t, name), "NetworkPolicy")
		dns := name == "default" // everything is allowed
		for _, rule := range np.Spec.Egress {
			dns = dns || slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool {
				return p.Port.IntValue() == 53 && *p.Protocol == corev1.ProtocolUDP
			})
			if name == "closed-network" && len(rule.Ports) > 0 && rule.Ports[0].Port.IntValue() == 53 {
				want := map[string]string{"kubernetes.io/metadata.name": "kube-system"}
				if len(rule.To) != 1 || rule.To[0].IPBlock != nil || !maps.Equal(rule.To[0].NamespaceSelector.MatchLabels, want) {
					t.Errorf("%s: DNS goes to %v", name, rule.To)
				}
			}
			if len(rule.To) == 0 {
				t.Errorf("%s: a rule allows every address", name)
			}
			for _, to := range rule.To {
				for _, address := range metadata {
					holds := func(cidr string) bool {
						prefix, err := netip.ParsePrefix(cidr)
						return err == nil && prefix.Contains(address)
					}
					if to.IPBlock != nil && holds(to.IPBlock.CIDR) && !slices.ContainsFunc(to.IPBlock.Except, holds) {
						t.Errorf("%s: %v leaves %s", name, to.IPBlock, address)
					}
				}
			}
		}
		if !dns {
			t.Errorf("%s: names do not resolve", name)
		}
	}
}

// TestMetricsAreForThoseWhoAreNamed protects from: an admin port that every pod
// of the cluster reaches, and from a client port that helm test cannot reach.
func TestMetricsAreForThoseWhoAreNamed(t *testing.T) {
	ports := func(name string) map[string][]networkingv1.NetworkPolicyPeer {
		from := map[string][]networkingv1.NetworkPolicyPeer{}
		for _, rule := range decode[networkingv1.NetworkPolicy](t, renderNamed(t, name), "NetworkPolicy").Spec.Ingress {
			for _, p := range rule.Ports {
				from[p.Port.StrVal] = rule.From
			}
		}
		return from
	}
	open := ports("default")
	if _, metrics := open["metrics"]; metrics || len(open["http"]) != 0 {
		t.Errorf("by default the policy allows %v, want http from anyone and nothing else", open)
	}
	closed := ports("closed-network")
	test := labels.Set(decode[corev1.Pod](t, renderNamed(t, "closed-network"), "Pod").Labels)
	if len(closed["metrics"]) != 1 || !slices.ContainsFunc(closed["http"], func(p networkingv1.NetworkPolicyPeer) bool {
		return p.PodSelector != nil && p.NamespaceSelector == nil && selector(t, p.PodSelector).Matches(test)
	}) {
		t.Errorf("with peers the policy allows %v, want one for metrics, and helm test for http", closed)
	}
}

// TestScaleDownWaitsForDrains protects from: an autoscaler that takes away pod
// after pod while the first still drains, or a behavior the API server refuses.
func TestScaleDownWaitsForDrains(t *testing.T) {
	hpa := decode[autoscalingv2.HorizontalPodAutoscaler](t, renderNamed(t, "autoscaling-sessions"),
		"HorizontalPodAutoscaler")
	down := hpa.Spec.Behavior.ScaleDown
	if len(down.Policies) != 1 || down.Policies[0].Value != 1 || down.Policies[0].PeriodSeconds != 1800 ||
		*down.StabilizationWindowSeconds != 1800 {
		t.Errorf("with a drain of 1800 s the behavior is %+v, %+v", down, down.Policies)
	}
	deployment := decode[appsv1.Deployment](t, renderNamed(t, "autoscaling-sessions"), "Deployment")
	if deployment.Spec.Replicas != nil {
		t.Error("the Deployment sets the replicas back at every upgrade")
	}
}

// TestOneReplicaCanBeDrained protects from: a budget that blocks the drain of a node forever.
func TestOneReplicaCanBeDrained(t *testing.T) {
	pdb := decode[policyv1.PodDisruptionBudget](t, renderNamed(t, "default"), "PodDisruptionBudget").Spec
	if pdb.MinAvailable != nil || pdb.MaxUnavailable == nil || pdb.MaxUnavailable.IntValue() != 1 {
		t.Errorf("the budget is %v and %v, want maxUnavailable 1", pdb.MinAvailable, pdb.MaxUnavailable)
	}
}
