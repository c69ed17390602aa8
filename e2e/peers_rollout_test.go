package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// roamers lose their connection again and again while their commands run, and
// come back through whichever pod the ingress chooses.
type roamers struct {
	*load
	resumed atomic.Int64
}

func startRoamers(t *testing.T, r *release, n int) *roamers {
	t.Helper()
	ro := &roamers{load: startLoad(t, r, 0, 0)}
	ctx := t.Context()
	for i := range n {
		ro.wg.Go(func() {
			for !ro.stopped() {
				if err := ro.session(ctx, 1000+i); err != nil {
					ro.problem("roamer %d: %v", i, err)
					return
				}
			}
		})
	}
	return ro
}

// session runs commands in one session until its pod drains.
func (ro *roamers) session(ctx context.Context, number int) error {
	var cut cutter
	var draining, running atomic.Bool
	opt := ro.r.options()
	opt.HTTPClient, opt.Backoff = httpClient(cut.dial), troupe.Backoff{
		Initial: 20 * time.Millisecond,
		Max:     200 * time.Millisecond,
	}
	opt.OnNotice = func(n troupe.Notice) {
		switch {
		case n.Kind == troupe.NoticeResumed:
			ro.resumed.Add(1)
		case n.Kind == troupe.NoticeDraining && draining.CompareAndSwap(false, true):
			ro.told(running.Load())
		}
	}
	c, err := troupe.Dial(ctx, ro.r.url(), opt)
	if err != nil {
		return fmt.Errorf("no session: %w", err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(300*time.Millisecond + rand.N(500*time.Millisecond)):
				cut.reset()
			}
		}
	}()
	for !ro.stopped() && !draining.Load() {
		running.Store(true)
		err := ro.execution(ctx, c, number, 4+rand.IntN(8))
		running.Store(false)
		switch {
		case err == nil:
		case wire.CodeOf(err) == wire.CodeDraining: // a cut may have swallowed the announcement
			return nil
		case draining.Load() && errors.Is(err, errNotStarted):
			return nil
		case errors.Is(err, troupe.ErrUnknownOutcome): // the cut came between request and answer
		default:
			return err
		}
	}
	return nil
}

// rolloutOfManyLosesNothing replaces three pods under load. Protects from: a
// command that is cut off because its owner or its client's pod was replaced, a
// client whose session is not found meanwhile, and new clients that no pod accepts.
func rolloutOfManyLosesNothing(t *testing.T, r *release) {
	before := r.readyPods(t, replicas)
	l, ro := startLoad(t, r, loadClients, loadOneShots), startRoamers(t, r, 4)
	for i := range before {
		eventually(t, time.Minute, "the load runs", l.finishedOn(before[i].Name, 3))
	}
	began := time.Now()
	if err := r.upgrade(t.Context(), fmt.Sprintf("replicaCount: %d\npodAnnotations: {e2e.troupe.dev/rollout: %q}",
		replicas, began.String())); err != nil {
		t.Error(err)
	}
	for i := range before {
		gone(t, &before[i])
	}
	t.Logf("the last old pod was gone %s after helm upgrade began", time.Since(began).Round(100*time.Millisecond))
	after := r.readyPods(t, replicas)
	for i := range after {
		eventually(t, time.Minute, "the clients use "+after[i].Name, l.finishedOn(after[i].Name, 3))
	}
	l.end(t)
	ro.end(t)
	t.Logf("%d resumes", ro.resumed.Load())
	if ro.resumed.Load() < 20 {
		t.Error("fewer than 20 resumes happened while the pods were replaced: too few to prove anything")
	}
}

// scaleInTakesTheIdlest: of two pods on one node and one alone on another the
// controller would take one of the two. The single one has the fewest sessions.
// Protects from: a deletion cost that the controller ignores, and from a scale-in that
// ends a running command or disturbs other pods' sessions.
func scaleInTakesTheIdlest(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	nodes := map[string]int{}
	for i := range pods {
		nodes[pods[i].Spec.NodeName]++
	}
	idlest := &pods[0]
	for i := range pods {
		if nodes[pods[i].Spec.NodeName] == 1 {
			idlest = &pods[i]
		}
	}
	stay := others(pods, idlest.Name)
	fetched := r.follow(t, idlest, stay[:1])[0] // its client is on another pod
	clients := map[string][]*troupe.Client{}
	for n, pod := range stay {
		for range n + 2 {
			clients[pod.Name] = append(clients[pod.Name], r.dialWith(t, r.optionsTo(pod)))
		}
		eventually(t, annotationBound, "the sessions are counted", sessionsAnnotated(pod, n+2))
	}
	eventually(t, annotationBound, "the sessions are counted", sessionsAnnotated(idlest, 1))

	scale, err := suite.kube.AppsV1().Deployments(r.namespace).GetScale(t.Context(),
		idlest.Labels["app.kubernetes.io/instance"]+"-troupe", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = replicas - 1
	if _, err := suite.kube.AppsV1().Deployments(r.namespace).UpdateScale(t.Context(), scale.Name, scale,
		metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a pod begins to go", func(ctx context.Context) error {
		return r.goes(ctx, idlest)
	})
	fetched.echoes(t) // the pod drains, and its command keeps running
	if err := fetched.e.CloseInput(t.Context()); err != nil {
		t.Error(err)
	}
	if done := completed(t, fetched.e, commandBound); done.Reason != wire.ReasonExited || done.ExitCode != 0 {
		t.Errorf("the end of the command on the pod that goes is %s", compact(done))
	}
	gone(t, idlest)
	for _, pod := range stay {
		for _, c := range clients[pod.Name] {
			if out := shell(t, c, "echo here"); out != "here\n" || c.Connected().Pod != pod.Name {
				t.Errorf("a session of %s says %q from %s", pod.Name, out, c.Connected().Pod)
			}
		}
	}
	r.readyPods(t, replicas-1)
}

// goes checks that the pod, and no other, is about to go or gone.
func (r *release) goes(ctx context.Context, expected *corev1.Pod) error {
	pods, err := r.pods(ctx)
	if err != nil {
		return err
	}
	found := true
	for i := range pods {
		leaving := pods[i].DeletionTimestamp != nil
		if leaving && pods[i].Name != expected.Name {
			return fmt.Errorf("pod %s goes, want %s", pods[i].Name, expected.Name)
		}
		if pods[i].Name == expected.Name && !leaving {
			found = false
		}
	}
	if !found {
		return errors.New("none goes")
	}
	return nil
}
