package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// lossBound is in how many seconds a client must know that its session's pod
// is gone, while the pod with its socket lives.
const lossBound = 5 * time.Second

// follower is a client whose session is on another pod, with a command that does not end by itself.
type follower struct {
	pod     *corev1.Pod // has the socket
	seen    *notices
	c       *troupe.Client
	e       *troupe.Execution
	session troupe.Session
}

// follow opens a session on owner for each of the pods and takes it up there.
func (r *release) follow(t *testing.T, owner *corev1.Pod, through []*corev1.Pod) []*follower {
	t.Helper()
	var all []*follower
	for _, pod := range through {
		c := r.dialWith(t, r.optionsTo(owner))
		if at := c.Connected().Pod; at != owner.Name {
			t.Fatalf("the session is in %s, not in %s", at, owner.Name)
		}
		e := start(t, c, wire.ExecuteParams{Command: "echo ready; cat", Stdin: true})
		f := &follower{pod: pod, seen: new(notices), session: c.Detach()}
		f.c = r.attach(t, f.session, pod, f.seen)
		if f.e = f.c.Executions()[e.ID()]; f.e == nil {
			t.Fatalf("through %s the execution is not there", pod.Name)
		}
		f.echoes(t)
		all = append(all, f)
	}
	return all
}

// echoes fails the test unless the command answers.
func (f *follower) echoes(t *testing.T) {
	t.Helper()
	if _, err := f.e.Input(t.Context(), []byte("still there?\n")); err != nil {
		t.Fatal(err)
	}
	if got := nextLine(t, f.e); got != "still there?\n" {
		t.Fatalf("through %s the command says %q", f.pod.Name, got)
	}
}

// isTold checks that the client learns of the loss in time, and that a client that
// resumes the session learns it at once.
func (f *follower) isTold(t *testing.T, r *release, gone time.Time) {
	t.Helper()
	ctx, cancel := context.WithDeadline(t.Context(), gone.Add(noticeBound))
	defer cancel()
	_, err := f.e.Wait(ctx)
	told := time.Since(gone)
	if !errors.Is(err, troupe.ErrSessionLost) || told > lossBound {
		t.Errorf("through %s: %v after %s, want %v within %s\n%s", f.pod.Name, err, told, troupe.ErrSessionLost, lossBound,
			f.seen.String())
		t.Logf("%s says\n%s", f.pod.Name, kubectl(t, "logs", "-n", r.namespace, f.pod.Name, "-c", "server", "--since=30s"))
	}
	began := time.Now()
	again, err := troupe.Attach(t.Context(), r.url(), f.session.ID, f.session.ResumeToken, nil, r.optionsTo(f.pod))
	if err == nil {
		_ = again.Close()
	}
	if wire.CodeOf(err) != wire.CodeSessionLost || time.Since(began) > lossBound/2 {
		t.Errorf("a resume through %s is answered with %v after %s, want %d at once", f.pod.Name, err, time.Since(began),
			wire.CodeSessionLost)
	}
	t.Logf("through %s: told after %s, at the return after %s", f.pod.Name, told.Round(time.Millisecond),
		time.Since(began).Round(time.Millisecond))
}

// slowPodIsNotDead stops the owner's server for 2 s. Protects from: sessions that
// are given up because their pod had no processor for a moment.
func slowPodIsNotDead(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	followers := r.follow(t, &pods[0], others(pods, pods[0].Name))
	server := containerProcess(t, &pods[0], "/trouped", "--config")
	server.signal(t, "STOP")
	pause := time.NewTimer(2 * time.Second) // what is tested, not what is waited for
	select {
	case <-pause.C:
	case <-t.Context().Done():
	}
	server.signal(t, "CONT")
	for _, f := range followers {
		f.echoes(t)
		if f.seen.count(troupe.NoticeLost) > 0 {
			t.Errorf("through %s the connection was lost:\n%s", f.pod.Name, f.seen.String())
		}
		if err := f.c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// killedServerIsToldOf kills the owner's server; its container comes back under
// the pod's name and address. Protects from: a client that waits for a session
// that its pod does not remember.
func killedServerIsToldOf(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	followers := r.follow(t, &pods[0], others(pods, pods[0].Name))
	bystander := r.follow(t, &pods[1], []*corev1.Pod{&pods[2]})[0]
	server := containerProcess(t, &pods[0], "/trouped", "--config")
	gone := time.Now()
	server.kill(t)
	for _, f := range followers {
		f.isTold(t, r, gone)
	}
	bystander.echoes(t)
	_ = bystander.c.Close() // done its part
	r.readyPods(t, replicas)
}

// deletedPodIsToldOf deletes the owner without grace: its name does not come
// back. Protects from: the same, where the pod is not in any EndpointSlice any more.
func deletedPodIsToldOf(t *testing.T, r *release) {
	pods := r.readyPods(t, replicas)
	followers := r.follow(t, &pods[0], others(pods, pods[0].Name))
	server := containerProcess(t, &pods[0], "/trouped", "--config")
	kubectl(t, "delete", "pod", pods[0].Name, "--namespace", pods[0].Namespace, "--grace-period=0", "--force",
		"--wait=false")
	gone := time.Now()
	server.kill(t) // the kubelet gives it a moment even so
	for _, f := range followers {
		f.isTold(t, r, gone)
	}
	r.readyPods(t, replicas)
}

// darkNodeIsToldOf cuts the power of a node: nothing says that its pods are
// gone, and Kubernetes does not know it for a long time. Protects from: a client
// that hangs while the pod that it talks to waits for one that cannot answer.
func darkNodeIsToldOf(t *testing.T, r *release) {
	if len(suite.nodes) < 2 {
		t.Skip("needs a second node to cut the power of")
	}
	dark := suite.nodes[1] // the first has the control plane and the ingress
	pods := r.readyPods(t, replicas)
	var owner *corev1.Pod
	var lit []*corev1.Pod
	for i := range pods {
		if pods[i].Spec.NodeName == dark.Name() {
			owner = &pods[i]
		} else {
			lit = append(lit, &pods[i])
		}
	}
	if owner == nil || len(lit) == 0 {
		t.Fatal("all pods are on one node, though they prefer different ones")
	}
	followers := r.follow(t, owner, lit)
	bystander := r.follow(t, lit[0], lit[:1])[0]
	light := sync.OnceFunc(func() { lightUp(t, dark) })
	t.Cleanup(light)
	if err := dark.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	for _, f := range followers {
		f.isTold(t, r, gone)
	}
	bystander.echoes(t)
	_ = bystander.c.Close() // done its part
	kubectl(t, "taint", "node", dark.Name(), "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", "--overwrite")
	eventually(t, 2*time.Minute, "the dead pods are gone", func(ctx context.Context) error {
		now, err := r.pods(ctx)
		for i := range now {
			if now[i].Name == owner.Name {
				err = fmt.Errorf("pod %s is still there", owner.Name)
			}
		}
		return err
	})
	light()
	r.readyPods(t, replicas)
}
