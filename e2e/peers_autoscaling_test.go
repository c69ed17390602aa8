package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// adapterRule is a rule of prometheus-adapter.
type adapterRule struct{ SeriesQuery, MetricsQuery string }

// readAdapterRule takes the rule from the chart's README, where those who set up autoscaling take
// it.
func readAdapterRule(t *testing.T) adapterRule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(suite.chart, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "For prometheus-adapter:\n\n```yaml\n")
	block, _, found := strings.Cut(after, "```")
	var config struct {
		Rules struct{ Custom []adapterRule }
	}
	if err := yaml.Unmarshal([]byte(block), &config); err != nil || !found || len(config.Rules.Custom) != 1 {
		t.Fatalf("the README's rule is %q: %v", block, err)
	}
	return config.Rules.Custom[0]
}

// query is what the adapter asks when the autoscaler wants a metric of these pods.
func (a adapterRule) query(pods []corev1.Pod) string {
	var names []string
	for i := range pods {
		names = append(names, pods[i].Name)
	}
	return strings.NewReplacer("<<.Series>>", "troupe_sessions", "<<.GroupBy>>", "pod",
		"<<.LabelMatchers>>", fmt.Sprintf(`namespace="%s",pod=~"%s"`, pods[0].Namespace,
			strings.Join(names, "|"))).Replace(a.MetricsQuery)
}

// autoscalerSeesEachPod asks a real Prometheus, which scrapes the pods, what the
// adapter's rule asks. Protects from: an autoscaler that adds pods for sessions
// of others, or has no metric to look at.
func autoscalerSeesEachPod(t *testing.T, r *release) {
	needPrometheus(t)
	pods := r.readyPods(t, replicas)
	rule := readAdapterRule(t)
	want := map[string]float64{}
	for i := range pods {
		for range i + 1 { // all sockets are on the first pod or on the session's own: it is the session that counts
			c := r.dialWith(t, r.optionsTo(&pods[i]))
			session := c.Detach()
			r.attach(t, session, &pods[0], nil)
		}
		want[pods[i].Name] = float64(i + 1)
	}
	var scrape strings.Builder
	for i := range pods {
		job, _, _ := strings.Cut(scrapeConfig(t, &pods[i]), "- job_name: cadvisor")
		scrape.WriteString(strings.Replace(job, "job_name: pods", fmt.Sprintf("job_name: pod%d", i), 1))
	}
	prom := startPrometheus(t, scrape.String())
	query := rule.query(pods)
	eventually(t, 30*time.Second, query, func(ctx context.Context) error {
		for _, q := range []string{rule.SeriesQuery, query} {
			samples, err := prom.Query(ctx, q)
			if err != nil {
				return err
			}
			got := map[string]float64{}
			for _, s := range samples {
				got[s.Labels["pod"]] = s.Value
			}
			if compact(got) != compact(want) {
				return fmt.Errorf("%s is %s, want %s", q, compact(got), compact(want))
			}
		}
		return nil
	})
	t.Logf("%s: %s", query, compact(want))
}
