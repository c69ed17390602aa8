package e2e

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestAnnotationsFollowTheSessions: the pod says how many sessions it has, which
// is what Kubernetes asks when it has to choose a pod to remove. Protects from:
// a scale-in that takes the busiest pod.
func TestAnnotationsFollowTheSessions(t *testing.T) {
	t.Parallel()
	r := install(t, "annotated")
	pod := r.pod(t)
	var clients []interface{ Close() error }
	for range 3 {
		clients = append(clients, r.dial(t))
	}
	eventually(t, annotationBound, "three sessions", sessionsAnnotated(pod, 3))
	for _, c := range clients[:2] {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, annotationBound, "one session", sessionsAnnotated(pod, 1))
	if err := clients[2].Close(); err != nil {
		t.Error(err)
	}
	eventually(t, annotationBound, "no session", sessionsAnnotated(pod, 0))
}

// annotationBound is generous: the server writes at most once in 10 s.
const annotationBound = 45 * time.Second

// sessionsAnnotated is a check for eventually: the pod's annotations say n sessions.
func sessionsAnnotated(pod *corev1.Pod, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		notes, err := annotations(ctx, pod)
		if err != nil {
			return err
		}
		for _, key := range []string{"troupe.dev/sessions", "controller.kubernetes.io/pod-deletion-cost"} {
			if notes[key] != strconv.Itoa(n) {
				return fmt.Errorf("%s is %q, want %d", key, notes[key], n)
			}
		}
		return nil
	}
}
