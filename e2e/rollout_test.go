package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// loadClients run one command after the other, and loadOneShots open a session for
// each command: together a tenth of a pod's sessions, as many as two cores serve
// before the clients themselves become the load.
const loadClients, loadOneShots = 10, 3

// TestRolloutUnderLoadLosesNothing changes the pod template while clients run
// commands that are shorter than the drain time. Protects from: a rollout that
// cuts commands off, output that is cut short, clients that are told nothing,
// and clients that are sent to a pod that no longer accepts sessions.
func TestRolloutUnderLoadLosesNothing(t *testing.T) {
	r := suite.shared
	before := r.pod(t)
	l := startLoad(t, r, loadClients, loadOneShots)
	eventually(t, time.Minute, "the load runs", l.finishedOn(before.Name, 2*loadClients))
	began := time.Now()
	if err := r.upgrade(t.Context(), fmt.Sprintf("podAnnotations: {e2e.troupe.dev/rollout: %q}",
		began.String())); err != nil {
		t.Error(err)
	}
	gone(t, before)
	t.Logf("the old pod was gone %s after helm upgrade began", time.Since(began).Round(100*time.Millisecond))
	after := r.pod(t)
	if after.UID == before.UID {
		t.Error("the pod is the same")
	}
	eventually(t, time.Minute, "the clients have come to the new pod", l.finishedOn(after.Name, 2*loadClients))
	l.end(t)
	eventOn(t, before, "Draining")
	eventOn(t, before, "Drained")
}

// gone waits until a pod is gone, for as long as its grace allows.
func gone(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	bound := time.Minute + time.Duration(*pod.Spec.TerminationGracePeriodSeconds)*time.Second
	eventually(t, bound, "pod "+pod.Name+" is gone", func(ctx context.Context) error {
		now, err := suite.kube.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return err
		case now.UID != pod.UID:
			return nil
		}
		return fmt.Errorf("phase %s, deletion asked for at %s", now.Status.Phase, now.DeletionTimestamp)
	})
}

// TestDrainedNodeLosesNothing drains the pod's node as an operator does before
// maintenance. Protects from: an eviction that a disruption budget refuses for
// ever, and from the losses that a rollout is protected from.
func TestDrainedNodeLosesNothing(t *testing.T) {
	r := suite.shared
	nodes, err := suite.kube.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes.Items) < 2 {
		t.Skip("needs a second node for the pod to go to")
	}
	before := r.pod(t)
	if err := r.covered(t.Context(), before); err != nil {
		t.Error(err)
	}
	l := startLoad(t, r, loadClients, 0) // one replica: for a moment no pod accepts new sessions
	eventually(t, time.Minute, "the load runs", l.finishedOn(before.Name, 2*loadClients))
	node := before.Spec.NodeName
	t.Cleanup(func() {
		if _, err := suite.output(context.Background(), "", suite.kubectl, "uncordon", node); err != nil {
			t.Error(err)
		}
	})
	began := time.Now()
	kubectl(t, "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
	t.Logf("kubectl drain took %s", time.Since(began).Round(100*time.Millisecond))
	gone(t, before)
	after := r.pod(t)
	if after.Spec.NodeName == node {
		t.Errorf("the new pod is on %s, which was drained", node)
	}
	eventually(t, time.Minute, "the clients have come to the new pod", l.finishedOn(after.Name, 2*loadClients))
	l.end(t)
}

// covered checks that a disruption budget counts the pod and allows it to go.
func (r *release) covered(ctx context.Context, pod *corev1.Pod) error {
	budgets, err := suite.kube.PolicyV1().PodDisruptionBudgets(r.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, b := range budgets.Items {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			return err
		}
		if !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if b.Status.DisruptionsAllowed < 1 {
			return fmt.Errorf("disruption budget %s allows no eviction: %s", b.Name, compact(b.Status))
		}
		return nil
	}
	return fmt.Errorf("none of %d disruption budgets covers pod %s", len(budgets.Items), pod.Name)
}
