package k8s

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	product "github.com/troupe-dev/troupe/k8s"
)

// annotated is a check for eventually: the pod's annotations say n sessions, and what was there
// before is still there.
func annotated(pod product.Pod, n int) func(context.Context) error {
	want := map[string]string{
		"controller.kubernetes.io/pod-deletion-cost": strconv.Itoa(n), "troupe.dev/sessions": strconv.Itoa(n),
		"example.com/note": "mine",
	}
	return func(ctx context.Context) error {
		got, err := kube.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && !maps.Equal(got.Annotations, want) {
			err = fmt.Errorf("the annotations are %v, want %v", got.Annotations, want)
		}
		return err
	}
}

// TestAnnotations are written as the service account that may patch pods and nothing
// else of them. When that is withdrawn there is one warning.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pod := s.pod("troupe-0", "troupe")
	var sessions atomic.Int64
	sessions.Store(7) // of the container that ran before, say
	a, err := product.NewAnnotator(product.AnnotatorConfig{
		Client: s.client(), Pod: pod,
		Sessions: func() int { return int(sessions.Load()) },
	})
	must(t, err)
	defer a.Close()
	eventually(t, "the first number", annotated(pod, 7))
	sessions.Store(100)
	eventually(t, "another number", annotated(pod, 100))
	sessions.Store(0)
	eventually(t, "the third number", annotated(pod, 0))
	if n := s.failures(); n != 0 {
		t.Errorf("%d failures were counted; the log:\n%s", n, &s.logs)
	}

	s.withdraw("troupe")
	sessions.Store(1)
	eventually(t, "the refusal", func(context.Context) error {
		if s.logs.count("the API server refuses them") == 0 {
			return errors.New("not a word")
		}
		return nil
	})
	if s.failures() != 1 || s.logs.count("level=WARN") != 1 {
		t.Errorf("%d failures were counted; the log:\n%s", s.failures(), &s.logs)
	}
}

// described returns the Events that kubectl describe shows of a pod, by reason.
func described(ctx context.Context, pod product.Pod) (map[string]corev1.Event, error) {
	list, err := kube.CoreV1().Events(pod.Namespace).List(ctx,
		metav1.ListOptions{FieldSelector: fields.SelectorFromSet(fields.Set{
			"involvedObject.name": pod.Name, "involvedObject.namespace": pod.Namespace, "involvedObject.uid": pod.UID,
		}).String()})
	if err != nil {
		return nil, err
	}
	all := map[string]corev1.Event{}
	for _, e := range list.Items {
		if _, twice := all[e.Reason]; twice {
			return nil, fmt.Errorf("there are two Events for %s", e.Reason)
		}
		all[e.Reason] = e
	}
	return all, nil
}

// TestEvents: what happens often is one Event with a count, and the last ones are
// there when Close has returned.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	pod := s.pod("troupe-0", "troupe")
	r, err := product.NewRecorder(product.RecorderConfig{Client: s.client(), Pod: pod})
	must(t, err)
	r.Record(product.SessionLimitReached, "all sessions are in use")
	eventually(t, "the first event", func(ctx context.Context) error {
		all, err := described(ctx, pod)
		if err == nil && all["SessionLimitReached"].Count != 1 {
			err = fmt.Errorf("there are %v", all)
		}
		return err
	})
	for range 41 {
		r.Record(product.SessionLimitReached, "all sessions are in use")
	}
	r.Record(product.RunnerLost, "the runner is gone")
	r.Record(product.RunnerConnected, "there is another")
	r.Record(product.Draining, "no new sessions")
	r.Record(product.Drained, "no session is left")
	r.Close()
	all, err := described(t.Context(), pod)
	must(t, err)
	for reason, want := range map[string]corev1.Event{
		"SessionLimitReached": {Type: "Warning", Count: 42, Message: "all sessions are in use"},
		"RunnerLost":          {Type: "Warning", Count: 1, Message: "the runner is gone"},
		"RunnerConnected":     {Type: "Normal", Count: 1, Message: "there is another"},
		"Draining":            {Type: "Normal", Count: 1, Message: "no new sessions"},
		"Drained":             {Type: "Normal", Count: 1, Message: "no session is left"},
	} {
		got := all[reason]
		if got.Type != want.Type || got.Count != want.Count || got.Message != want.Message ||
			got.Source.Component != "trouped" || got.LastTimestamp.IsZero() {
			t.Errorf("%s: %+v", reason, got)
		}
	}
	if len(all) != 5 || s.failures() != 0 {
		t.Errorf("%d Events, %d failures; the log:\n%s", len(all), s.failures(), &s.logs)
	}
}

// TestEventsAreRefused: without the permission there is one warning, and what is
// written later has counted all the same.
func TestEventsAreRefused(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.withdraw("troupe")
	pod := s.pod("troupe-0", "troupe")
	r, err := product.NewRecorder(product.RecorderConfig{Client: s.client(), Pod: pod})
	must(t, err)
	defer r.Close()
	for range 3 {
		r.Record(product.SessionLimitReached, "all sessions are in use")
		r.Record(product.RunnerLost, "the runner is gone")
		eventually(t, "the refusal", func(context.Context) error {
			if s.logs.count("the API server refuses them") == 0 {
				return errors.New("not a word")
			}
			return nil
		})
	}
	r.Close()
	if s.failures() != 1 || s.logs.count("level=WARN") != 1 {
		t.Errorf("%d failures were counted; the log:\n%s", s.failures(), &s.logs)
	}
}

// TestForeignPod: a pod that is not there, because --pod was wrong, is refused like a
// missing permission and not asked for again and again.
func TestForeignPod(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a, err := product.NewAnnotator(product.AnnotatorConfig{
		Client: s.client(), Pod: product.Pod{Namespace: s.name, Name: "nobody"}, Sessions: func() int { return 0 },
	})
	must(t, err)
	defer a.Close()
	eventually(t, "the refusal", func(context.Context) error {
		if s.logs.count("the API server refuses them") == 0 || s.logs.count("not found") == 0 {
			return errors.New(s.logs.String())
		}
		return nil
	})
}

func podOf(namespace, name, uid string) product.Pod {
	return product.Pod{Namespace: namespace, Name: name, UID: uid}
}
