package chart

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	cmv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kinds has the Go type of every kind of object that the chart renders.
var kinds = map[string]func() any{
	"Certificate":             func() any { return &cmv1.Certificate{} },
	"ClusterRoleBinding":      func() any { return &rbacv1.ClusterRoleBinding{} },
	"ConfigMap":               func() any { return &corev1.ConfigMap{} },
	"Deployment":              func() any { return &appsv1.Deployment{} },
	"HTTPRoute":               func() any { return &gatewayv1.HTTPRoute{} },
	"HorizontalPodAutoscaler": func() any { return &autoscalingv2.HorizontalPodAutoscaler{} },
	"Ingress":                 func() any { return &networkingv1.Ingress{} },
	"Issuer":                  func() any { return &cmv1.Issuer{} },
	"NetworkPolicy":           func() any { return &networkingv1.NetworkPolicy{} },
	"Pod":                     func() any { return &corev1.Pod{} },
	"PodDisruptionBudget":     func() any { return &policyv1.PodDisruptionBudget{} },
	"PodMonitor":              func() any { return &monitoringv1.PodMonitor{} },
	"PrometheusRule":          func() any { return &monitoringv1.PrometheusRule{} },
	"Role":                    func() any { return &rbacv1.Role{} },
	"RoleBinding":             func() any { return &rbacv1.RoleBinding{} },
	"Secret":                  func() any { return &corev1.Secret{} },
	"Service":                 func() any { return &corev1.Service{} },
	"ServiceAccount":          func() any { return &corev1.ServiceAccount{} },
}

// TestEveryFieldIsKnown reads every object strictly into the type that its API
// has. Protects from: a misspelt or misplaced field, also of kinds that the
// cluster of the tests does not have, and from a key that is there twice.
func TestEveryFieldIsKnown(t *testing.T) {
	seen := map[string]bool{}
	forEach(t, func(t *testing.T, _ string, r *rendering) {
		names := map[string]bool{}
		for _, o := range r.objects {
			seen[o.Kind] = true
			into, known := kinds[o.Kind]
			if !known {
				t.Errorf("nothing checks objects of kind %s", o.Kind)
				continue
			}
			if err := strict([]byte(o.text), into()); err != nil {
				t.Errorf("%s %s: %v", o.Kind, o.Metadata.Name, err)
			}
			// A hook of another event is another object: the generated Secret has one to be made and one to
			// be removed.
			if id := o.Kind + "/" + o.Metadata.Name + " " + o.Metadata.Annotations["helm.sh/hook"]; names[id] {
				t.Errorf("%s is there twice", id)
			} else {
				names[id] = true
			}
		}
	})
	for kind := range kinds {
		if !seen[kind] {
			t.Errorf("no file of testdata/values renders a %s", kind)
		}
	}
}

// strict decodes as an API server with strict field validation does: unknown
// fields, fields in the wrong case and repeated keys are errors.
func strict(text []byte, into any) error {
	b, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	problems, err := kjson.UnmarshalStrict(b, into)
	return errors.Join(append(problems, err)...)
}

// TestLongRequestsPassTheGateway: a request that lasts as long as its connection, an upload or an agent's call
// needs a timeout of zero, which means none.
func TestLongRequestsPassTheGateway(t *testing.T) {
	r := renderNamed(t, "gateway")
	for _, rule := range decode[gatewayv1.HTTPRoute](t, r, "HTTPRoute").Spec.Rules {
		if rule.Timeouts == nil || *rule.Timeouts.Request != "0s" || *rule.Timeouts.BackendRequest != "0s" {
			t.Errorf("the rule is %+v, want timeouts of 0s", rule)
		}
	}
	if port := decode[corev1.Service](t, r, "Service").Spec.Ports[0]; port.AppProtocol == nil ||
		*port.AppProtocol != "kubernetes.io/ws" {
		t.Errorf("the port does not say that it speaks WebSocket: %+v", port)
	}
}

// TestEveryDoorIsReachable: an Ingress and an HTTPRoute pass on the same paths, which are those of the server;
// what tells agents where to get a token only where there is something to tell.
func TestEveryDoorIsReachable(t *testing.T) {
	const oauth = "auth: {oauth: {resource: 'https://a.example/mcp', authorizationServers: ['https://b.example']}}\n"
	const wellKnown = "/.well-known/oauth-protected-resource"
	for values, more := range map[string][]string{"": nil, oauth: {wellKnown + " prefix"}} {
		want := append([]string{"/api/v1 prefix", "/health exact", "/mcp exact", "/ws prefix"}, more...)
		slices.Sort(want)
		r, err := render(loadChart(t), parse(t, values+"httpRoute: {enabled: true, parentRefs: [{name: a}]}"))
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, p := range decode[networkingv1.Ingress](t, r, "Ingress").Spec.Rules[0].HTTP.Paths {
			paths = append(paths, p.Path+" "+strings.ToLower(string(*p.PathType)))
		}
		slices.Sort(paths)
		if !slices.Equal(paths, want) {
			t.Errorf("the Ingress has %v, want %v", paths, want)
		}
		paths = nil
		for _, rule := range decode[gatewayv1.HTTPRoute](t, r, "HTTPRoute").Spec.Rules {
			for _, m := range rule.Matches {
				kind := strings.ToLower(strings.TrimPrefix(string(*m.Path.Type), "Path"))
				paths = append(paths, *m.Path.Value+" "+kind)
			}
		}
		slices.Sort(paths)
		if !slices.Equal(paths, want) {
			t.Errorf("the HTTPRoute has %v, want %v", paths, want)
		}
	}
}

// TestRulesAndDashboardAreWhole protects from: a package without the files, and
// from a template that eats the double braces of Prometheus and Grafana.
func TestRulesAndDashboardAreWhole(t *testing.T) {
	c := loadChart(t)
	files := map[string]string{}
	for _, f := range c.Files {
		files[f.Name] = string(f.Data)
	}
	r := renderNamed(t, "monitoring")

	var want, got monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(files["files/rules.yaml"]), &want); err != nil || len(want.Groups) == 0 {
		t.Fatalf("files/rules.yaml has %d groups: %v", len(want.Groups), err)
	}
	got = decode[monitoringv1.PrometheusRule](t, r, "PrometheusRule").Spec
	if a, b := compact(t, want), compact(t, got); a != b {
		t.Errorf("the PrometheusRule is not what files/rules.yaml says:\n%s\n%s", a, b)
	}
	for _, group := range want.Groups {
		for _, rule := range group.Rules {
			if rule.Alert != "" && !regexp.MustCompile(`/`+strings.ToLower(rule.Alert)+`(\.md)?$|/`+rule.Alert+`(\.md)?$`).MatchString(rule.Annotations["runbook_url"]) {
				t.Errorf("alert %s has the runbook %q", rule.Alert, rule.Annotations["runbook_url"])
			}
		}
	}

	for _, o := range r.find("ConfigMap") {
		if !strings.HasSuffix(o.Metadata.Name, "-dashboard") {
			continue
		}
		var data struct{ Data map[string]string }
		if err := yaml.Unmarshal([]byte(o.text), &data); err != nil {
			t.Fatal(err)
		}
		if o.Metadata.Labels["grafana_dashboard"] != "1" || !json.Valid([]byte(files["files/dashboard.json"])) ||
			strings.TrimSpace(data.Data["troupe.json"]) != strings.TrimSpace(files["files/dashboard.json"]) {
			t.Errorf("the ConfigMap of the dashboard, labels %v, is not files/dashboard.json", o.Metadata.Labels)
		}
		return
	}
	t.Error("there is no ConfigMap with the dashboard")
}

func compact(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
