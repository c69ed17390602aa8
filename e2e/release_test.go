package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// installBound is how long helm may wait for a release: image and scheduler are
// there already, so it takes about 5 s on an idle machine.
const installBound = 2 * time.Minute

// release is one installation of the chart, in a namespace of its own in which
// the restricted Pod Security Standard is enforced.
type release struct {
	name      string
	namespace string
	host      string // that clients name; empty: the ingress answers for any
	token     string // empty with auth.mode kubernetes
}

func newRelease(name string) *release {
	return &release{name: name, namespace: namespacePrefix + name, host: name + "." + suite.domain}
}

// commonValues is what every release of the tests has. Times that a test would
// otherwise only wait for are short, and ten releases fit on two small nodes.
// Everything else is the chart's default.
func commonValues(host string) string {
	server, runner := imageValues(suite.serverImage), imageValues(suite.runnerImage)
	return fmt.Sprintf(`
image: %s
server: {resources: {requests: {cpu: 20m, memory: 64Mi}}}
runner: {image: %s, resources: {requests: {cpu: 20m, memory: 64Mi}}}
tests: {image: %s}
ingress: {host: %q, className: %q}
drain: {timeoutSeconds: 20}
limits: {cancelGraceSeconds: 2}
`, server, runner, runner, host, suite.ingressClass)
}

// imageValues writes repository:tag as the chart wants it.
func imageValues(image string) string {
	i := strings.LastIndex(image, ":")
	return fmt.Sprintf("{repository: %q, tag: %q, pullPolicy: IfNotPresent}", image[:i], image[i+1:])
}

// install makes a release for one test and removes it when the test is over.
// values are YAML documents; later ones win.
func install(t *testing.T, name string, values ...string) *release {
	t.Helper()
	r := newRelease(name)
	t.Cleanup(func() { r.cleanUp(t) })
	if err := r.create(t.Context(), values...); err != nil {
		t.Fatal(err)
	}
	return r
}

// create makes the namespace and installs the chart.
func (r *release) create(ctx context.Context, values ...string) error {
	if err := createNamespace(ctx, r.namespace); err != nil {
		return err
	}
	if err := r.upgrade(ctx, values...); err != nil {
		return err
	}
	if err := r.loadToken(ctx); err != nil {
		return err
	}
	return poll(ctx, 30*time.Second, r.served)
}

// served checks that the ingress controller has taken notice of the release.
// It does so a moment after the pod is ready, which helm does not wait for.
func (r *release) served(ctx context.Context) error {
	status, body, err := r.get(ctx, "/health")
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("/health through the ingress: %d %q, %w", status, body, err)
	}
	return nil
}

// createNamespace makes a namespace that refuses pods which are not restricted.
func createNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		"pod-security.kubernetes.io/enforce":         "restricted",
		"pod-security.kubernetes.io/enforce-version": "latest",
		e2eLabel: "true",
	}}}
	_, err := suite.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	// Pods cannot be made before the controller has given the namespace its account.
	return poll(ctx, 30*time.Second, func(ctx context.Context) error {
		_, err := suite.kube.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// upgrade installs or upgrades the release and waits until it is ready.
func (r *release) upgrade(ctx context.Context, values ...string) error {
	args := []string{
		"upgrade", "--install", r.name, suite.chart, "--namespace", r.namespace, "--wait", "--timeout",
		installBound.String(),
	}
	for _, doc := range append([]string{commonValues(r.host)}, values...) {
		f, err := os.CreateTemp("", "troupe-e2e-values-*.yaml")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString(doc)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		args = append(args, "--values", f.Name())
	}
	_, err := suite.output(ctx, "", suite.helm, args...)
	return err
}

// helm runs a helm command on the release.
func (r *release) helm(ctx context.Context, args ...string) (string, error) {
	return suite.output(ctx, "", suite.helm, append(args, "--namespace", r.namespace)...)
}

// selector matches the objects of the release.
func (r *release) selector() string { return "app.kubernetes.io/instance=" + r.name }

// podSelector matches the pods that serve, not those of helm test.
func (r *release) podSelector() string {
	return r.selector() + ",app.kubernetes.io/component!=test"
}

// loadToken reads the token that the chart made, if it made one.
func (r *release) loadToken(ctx context.Context) error {
	secrets, err := suite.kube.CoreV1().Secrets(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: r.selector()})
	if err != nil {
		return err
	}
	for _, s := range secrets.Items {
		for _, line := range strings.Split(string(s.Data["tokens"]), "\n") {
			if fields := strings.Fields(line); len(fields) == 2 && !strings.HasPrefix(line, "#") {
				r.token = fields[1]
				return nil
			}
		}
	}
	r.token = ""
	return nil
}

// pods lists the pods that serve, terminating ones included.
func (r *release) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := suite.kube.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: r.podSelector()})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// pod returns the one pod of the release that is ready and stays.
func (r *release) pod(t *testing.T) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, time.Minute, "one ready pod", func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		found = nil
		for i := range pods {
			if pods[i].DeletionTimestamp == nil && ready(&pods[i]) {
				found = &pods[i]
			}
		}
		if found == nil {
			return fmt.Errorf("none of %d pods is ready", len(pods))
		}
		return nil
	})
	return found
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// restarts returns how often a container of the pod was started again.
func restarts(ctx context.Context, pod *corev1.Pod, container string) (int32, error) {
	now, err := suite.kube.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	for _, c := range now.Status.ContainerStatuses {
		if c.Name == container {
			return c.RestartCount, nil
		}
	}
	return 0, fmt.Errorf("pod %s has no container %s", pod.Name, container)
}

// eventOn waits for an Event about the pod.
func eventOn(t *testing.T, pod *corev1.Pod, reason string) {
	t.Helper()
	eventually(t, 30*time.Second, "event "+reason+" on "+pod.Name, func(ctx context.Context) error {
		events, err := suite.kube.CoreV1().Events(pod.Namespace).List(ctx,
			metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod.Name})
		if err != nil {
			return err
		}
		var seen []string
		for _, ev := range events.Items {
			if ev.Reason == reason {
				return nil
			}
			seen = append(seen, ev.Reason)
		}
		return fmt.Errorf("only %s", strings.Join(seen, " "))
	})
}

// cleanUp keeps what tells of a failure, then removes the release and its namespace.
func (r *release) cleanUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), installBound)
	defer cancel()
	if t.Failed() {
		dir := filepath.Join(suite.artifacts, strings.ReplaceAll(t.Name(), "/", "_"))
		r.collect(ctx, dir)
		t.Logf("artifacts: %s", dir)
	}
	if os.Getenv("E2E_KEEP") != "" {
		return
	}
	if err := r.remove(ctx); err != nil {
		t.Errorf("cleaning up: %v", err)
	}
}

// remove uninstalls the release and deletes its namespace, without waiting for the end of that.
func (r *release) remove(ctx context.Context) error {
	_, err := r.helm(ctx, "uninstall", r.name, "--ignore-not-found")
	// The pods need not drain any more.
	zero := int64(0)
	_ = suite.kube.CoreV1().Pods(r.namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero},
		metav1.ListOptions{})
	nsErr := suite.kube.CoreV1().Namespaces().Delete(ctx, r.namespace, metav1.DeleteOptions{})
	if apierrors.IsNotFound(nsErr) {
		nsErr = nil
	}
	return errors.Join(err, nsErr)
}

// annotations returns the pod's annotations as they are now.
func annotations(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	now, err := suite.kube.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return now.Annotations, nil
}

// compact writes a value on one line, for messages.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
