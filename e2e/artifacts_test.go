package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// collect writes what tells of the release into dir: its manifest and values,
// its objects, its events and the logs of all its containers, those of a
// container's run before the last restart too. What cannot be had is noted in its file.
func (r *release) collect(ctx context.Context, dir string) {
	for name, args := range map[string][]string{
		"manifest.yaml": {"get", "manifest", r.name},
		"values.yaml":   {"get", "values", r.name, "--all"},
		"history.txt":   {"history", r.name},
	} {
		out, err := r.helm(ctx, args...)
		keep(dir, name, out, err)
	}
	collectNamespace(ctx, dir, r.namespace)
}

// collectNamespace writes objects, events and logs of one namespace.
func collectNamespace(ctx context.Context, dir, namespace string) {
	for name, args := range map[string][]string{
		"objects.yaml":   {"get", "deployments,replicasets,pods,services,endpointslices,ingresses,configmaps,networkpolicies,poddisruptionbudgets,roles,rolebindings,serviceaccounts", "--output", "yaml"},
		"events.txt":     {"get", "events", "--sort-by", ".lastTimestamp"},
		"describe.txt":   {"describe", "pods"},
		"ingresses.txt":  {"describe", "ingresses"},
		"namespace.yaml": {"get", "namespace", namespace, "--output", "yaml"},
	} {
		out, err := suite.output(ctx, "", suite.kubectl, append(args, "--namespace", namespace)...)
		keep(dir, name, out, err)
	}
	pods, err := suite.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		keep(dir, "logs.txt", "", err)
		return
	}
	for i := range pods.Items {
		collectLogs(ctx, dir, &pods.Items[i])
	}
}

func collectLogs(ctx context.Context, dir string, pod *corev1.Pod) {
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		out, err := podLog(ctx, pod, status.Name, false)
		keep(dir, fmt.Sprintf("log-%s-%s.txt", pod.Name, status.Name), out, err)
		if status.RestartCount > 0 {
			out, err := podLog(ctx, pod, status.Name, true)
			keep(dir, fmt.Sprintf("log-%s-%s-previous.txt", pod.Name, status.Name), out, err)
		}
	}
}

func podLog(ctx context.Context, pod *corev1.Pod, container string, previous bool) (string, error) {
	stream, err := suite.kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name,
		&corev1.PodLogOptions{Container: container, Previous: previous}).Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	b, err := io.ReadAll(stream)
	return string(b), err
}

// keep writes one artifact. Artifacts are for people who look for a cause:
// failing to write one must not hide the failure that it is about.
func keep(dir, name, content string, err error) {
	if err != nil {
		content += "\n# " + err.Error() + "\n"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "artifacts:", err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "artifacts:", err)
	}
}

// collectCluster writes what is not of one release: the ingress controller's
// log, the nodes' daemons and the state of the nodes.
func (e *environment) collectCluster(ctx context.Context) {
	dir := filepath.Join(e.artifacts, "cluster")
	for name, args := range map[string][]string{
		"nodes.txt": {"describe", "nodes"},
		"pods.txt":  {"get", "pods", "--all-namespaces", "--output", "wide"},
	} {
		out, err := e.output(ctx, "", e.kubectl, args...)
		keep(dir, name, out, err)
	}
	if namespace, _, ok := strings.Cut(e.ingressPods, "/"); ok {
		collectNamespace(ctx, filepath.Join(dir, "ingress"), namespace)
	}
	for _, n := range e.nodes {
		files, err := filepath.Glob(filepath.Join(n.LogDir(), "*.log"))
		if err != nil {
			continue
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			keep(filepath.Join(dir, n.Name()), filepath.Base(file), string(b), err)
		}
	}
}
