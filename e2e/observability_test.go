package e2e

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/e2e/observability"
)

// TestDashboardShowsThePods asks for every panel and every query of the runbooks, those about
// containers included, while a Prometheus scrapes a pod at work and the kubelet below it. What only
// a fault brings about is provoked in e2e/observability.
func TestDashboardShowsThePods(t *testing.T) {
	needPrometheus(t)
	t.Parallel()
	r := install(t, "observed", `
networkPolicy: {enabled: false} # the API server is not among those that may scrape
peers: {enabled: true} # one pod has no peers, but has the metrics
runner: {resources: {limits: {memory: 512Mi, cpu: "1"}}}
`)
	pod := r.pod(t)
	prom := startPrometheus(t, scrapeConfig(t, pod))
	check, err := observability.NewChecker(prom, observability.Files{
		Dashboard: filepath.Join(suite.chart, "files", "dashboard.json"), Runbooks: filepath.Join("..", "docs", "runbooks"),
	}, r.namespace)
	if err != nil {
		t.Fatal(err)
	}
	drained := false
	eventually(t, 2*time.Minute, "every panel to show something", func(ctx context.Context) error {
		work(ctx, t, r)
		if err := check.Round(ctx); err != nil {
			return err
		}
		problems := check.Problems()
		if len(problems) == 0 {
			return nil
		}
		if !drained && onlyAbout(problems, "troupe_draining") {
			drained = true
			drainWithCommand(ctx, t, r, pod)
		}
		return fmt.Errorf("%d expressions:\n%s", len(problems), strings.Join(problems, "\n"))
	})
}

// needPrometheus skips a test that needs one, but not in CI.
func needPrometheus(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("prometheus"); err != nil {
		const why = "prometheus is missing: apt-get install prometheus"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
}

// startPrometheus starts one that runs until the test is over.
func startPrometheus(t *testing.T, scrape string) *observability.Prometheus {
	t.Helper()
	prom, err := observability.StartPrometheus(t.Context(), observability.PrometheusConfig{
		Dir:    t.TempDir(),
		Scrape: scrape,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said := prom.Stop(); t.Failed() {
			t.Logf("prometheus said:\n%s", said)
		}
	})
	return prom
}

// onlyAbout reports whether all problems are with expressions that contain the text.
func onlyAbout(problems []string, text string) bool {
	for _, p := range problems {
		if !strings.Contains(p, text) {
			return false
		}
	}
	return true
}

// work is a client's ordinary day, and a mistake.
func work(ctx context.Context, t *testing.T, r *release) {
	t.Helper()
	c, err := troupe.Dial(ctx, r.url(), r.options())
	if err != nil {
		return // the pod is being drained
	}
	defer c.Close()
	for _, command := range []string{"seq 1 1000", "exit 3"} {
		_, _ = c.Run(ctx, wire.ExecuteParams{Command: command}, io.Discard, io.Discard) // refused while the pod drains
	}
	_, _ = c.Control(ctx, wire.ControlParams{Type: wire.ControlPause, ExecutionID: "unknown"}) // an error, on purpose
	e, err := c.Execute(ctx, wire.ExecuteParams{Command: "sleep 100"})
	if err != nil {
		return
	}
	_ = e.Cancel(ctx)
	_, _ = e.Wait(ctx)
}

// drainWithCommand deletes the pod while a command runs that it waits for.
func drainWithCommand(ctx context.Context, t *testing.T, r *release, pod *corev1.Pod) {
	t.Helper()
	c := r.dial(t)
	if _, err := c.Execute(ctx, wire.ExecuteParams{Command: "sleep 100"}); err != nil {
		t.Fatal(err)
	}
	if err := suite.kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// scrapeConfig has the pod and the kubelet of its node scraped through the API server, with the
// rights of the tests: what works on every cluster. The labels of the pod are those that a
// PodMonitor adds.
func scrapeConfig(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	server, err := url.Parse(suite.rest.Host)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, path string, data []byte) string {
		if len(data) > 0 {
			path = filepath.Join(dir, name)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	tls := suite.rest.TLSClientConfig
	var access strings.Builder
	fmt.Fprintf(&access, "  scheme: %s\n  tls_config: {ca_file: %q, cert_file: %q, key_file: %q, insecure_skip_verify: %v}\n", server.Scheme,
		file("ca", tls.CAFile, tls.CAData), file("cert", tls.CertFile, tls.CertData), file("key", tls.KeyFile, tls.KeyData),
		tls.Insecure)
	if token := suite.rest.BearerToken; token != "" {
		fmt.Fprintf(&access, "  authorization: {credentials_file: %q}\n", file("token", "", []byte(token)))
	}
	return fmt.Sprintf(`- job_name: pods
  metrics_path: /api/v1/namespaces/%[1]s/pods/%[2]s:9090/proxy/metrics
  scrape_interval: 2s
  scrape_timeout: 2s
%[3]s  static_configs: [{targets: [%[4]q], labels: {namespace: %[1]s, pod: %[2]s}}]
- job_name: cadvisor
  metrics_path: /api/v1/nodes/%[5]s/proxy/metrics/cadvisor
  scrape_interval: 5s
  scrape_timeout: 5s
%[3]s  static_configs: [{targets: [%[4]q]}]
`, pod.Namespace, pod.Name, access.String(), server.Host, pod.Spec.NodeName)
}
