package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

const (
	// noticeBound is in how many seconds a client must know that its pod is gone.
	// Measured: below one; the rest is for a loaded machine.
	noticeBound = 10 * time.Second
	// explainBound is until when it must know what became of its session. The
	// answer needs a pod to give it, so the replacement's start is in it.
	explainBound = 45 * time.Second
)

// victim is a client with a command that runs until something kills it.
type victim struct {
	c      *troupe.Client
	e      *troupe.Execution
	seen   *notices
	marker string
}

// victim starts a command that would run for a day.
func (r *release) victim(t *testing.T, marker string) *victim {
	t.Helper()
	v := &victim{seen: new(notices), marker: marker}
	opt := r.options()
	opt.OnNotice = v.seen.note
	v.c = r.dialWith(t, opt)
	v.e = start(t, v.c, wire.ExecuteParams{Command: "echo ready; setsid sleep " + marker + " & sleep " + marker})
	if len(suite.nodes) > 0 {
		eventually(t, 10*time.Second, "both processes run", func(context.Context) error {
			found, err := marked(marker)
			if err == nil && len(found) < 2 {
				err = fmt.Errorf("only %v", found)
			}
			return err
		})
	}
	return v
}

// isTold checks that the client learns of its loss in time, with an explained
// end, and that nothing of its command lives on. There are two explanations:
// the server's last words (the kubelet kills a pod's containers one by one, so
// the server may outlive the runner for a moment), or the answer to the attempt
// to resume.
func (v *victim) isTold(t *testing.T, killed time.Time) {
	t.Helper()
	ctx, cancel := context.WithDeadline(t.Context(), killed.Add(explainBound))
	defer cancel()
	done, err := v.e.Wait(ctx)
	explained := time.Since(killed)
	switch {
	case err == nil && (done.Reason == wire.ReasonRunnerLost || done.Reason == wire.ReasonDrain):
	case errors.Is(err, troupe.ErrNoSession) && wire.CodeOf(err) == wire.CodeNoSession:
	default:
		t.Errorf("the end of the execution is %s, %v: not explained\n%s", compact(done), err, v.seen.String())
	}
	select {
	case <-v.c.Done():
	case <-ctx.Done():
		t.Errorf("the client does not know of the end of its session\n%s", v.seen.String())
	}
	if len(suite.nodes) > 0 {
		defer eventually(t, 30*time.Second, "the command's processes are gone", noneMarked(v.marker))
	}
	noticed, how := explained, "by the server's last words"
	switch end := v.c.Err(); {
	case errors.Is(end, troupe.ErrSessionEnded): // it had the time to say everything
	case errors.Is(end, troupe.ErrNoSession):
		lost, told := v.seen.first(troupe.NoticeLost)
		if !told {
			t.Fatalf("the client never knew of the loss\n%s", v.seen.String())
		}
		noticed, how = lost.Sub(killed), "by the answer to resume"
	default:
		t.Errorf("the session's end is %v, want %v or %v", end, troupe.ErrNoSession, troupe.ErrSessionEnded)
	}
	if noticed > noticeBound {
		t.Errorf("the client knew of the loss after %s, want at most %s\n%s", noticed, noticeBound, v.seen.String())
	}
	t.Logf("loss noticed after %s, the command's end explained after %s (%s), the session's after %s, %s",
		noticed.Round(time.Millisecond),
		explained.Round(time.Millisecond), compact(done), time.Since(killed).Round(time.Millisecond), how)
}

// TestForceDeletedPodTellsItsClients protects from: a client that hangs when
// its pod vanishes without a word, and from processes that the pod leaves behind.
func TestForceDeletedPodTellsItsClients(t *testing.T) {
	t.Parallel()
	r := install(t, "deleted")
	v := r.victim(t, "86400.501")
	pod := r.pod(t)
	killed := time.Now()
	kubectl(t, "delete", "pod", pod.Name, "--namespace", pod.Namespace, "--grace-period=0", "--force", "--wait=false")
	v.isTold(t, killed)
	r.works(t)
}

// TestKilledContainersComeBack kills the first process of each container from
// the node. Protects from: a server that does not survive its runner, a runner
// whose trees outlive the server, and containers that do not find each other again.
func TestKilledContainersComeBack(t *testing.T) {
	needNodes(t)
	t.Parallel()
	r := install(t, "restarted")
	pod := r.pod(t)

	v := r.victim(t, "86400.502")
	containerProcess(t, pod, "/troupe/bin/troupe-runner", "--connect").kill(t)
	if done := completed(t, v.e, noticeBound); done.Reason != wire.ReasonRunnerLost || done.Error == nil {
		t.Errorf("with the runner killed the end is %s, want runner_lost with an error", compact(done))
	}
	eventually(t, 10*time.Second, "the runner's processes are gone", noneMarked(v.marker))
	eventOn(t, pod, "RunnerLost")
	worksAgain(t, v.c)
	eventOn(t, pod, "RunnerConnected")
	if n, err := restarts(t.Context(), pod, "server"); err != nil || n != 0 {
		t.Errorf("the server was started again %d times (%v), want 0", n, err)
	}

	v = r.victim(t, "86400.503")
	killed := time.Now()
	containerProcess(t, pod, "/trouped", "--config").kill(t)
	v.isTold(t, killed)
	r.works(t)
	after := r.pod(t)
	if after.UID != pod.UID {
		t.Errorf("the pod was replaced: its containers should have been started again")
	}
}

// worksAgain waits until a session can run commands again.
func worksAgain(t *testing.T, c *troupe.Client) {
	t.Helper()
	eventually(t, time.Minute, "the session runs commands again", func(ctx context.Context) error {
		var out bytes.Buffer
		done, err := c.Run(ctx, wire.ExecuteParams{Command: "echo again"}, &out, nil)
		if err != nil {
			return err
		}
		if done.Reason != wire.ReasonExited || out.String() != "again\n" {
			return fmt.Errorf("it printed %q and ended with %s", out.String(), compact(done))
		}
		return nil
	})
}

// TestMemoryOfTheRunnerIsNotTheServers: a command takes more memory than its
// container has. Protects from: a greedy command that takes the server and
// everybody's sessions with it, and from an end that says no more than "killed".
func TestMemoryOfTheRunnerIsNotTheServers(t *testing.T) {
	t.Parallel()
	r := install(t, "greedy", "runner: {resources: {limits: {memory: 192Mi}, requests: {memory: 64Mi}}}")
	pod := r.pod(t)
	neighbour := r.dial(t)
	waiting, err := neighbour.Execute(t.Context(), wire.ExecuteParams{Command: "echo ready; cat", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	nextLine(t, waiting)

	greedy := r.dial(t)
	e := start(t, greedy, wire.ExecuteParams{Argv: []string{"python3", "-u", "-c", `
print("ready")
held = []
while True: held.append(bytearray(8 << 20))
`}})
	done := completed(t, e, time.Minute)
	if done.Reason != wire.ReasonOutOfMemory && done.Reason != wire.ReasonRunnerLost {
		t.Errorf("the greedy command's end is %s, want out_of_memory or runner_lost", compact(done))
	}
	t.Logf("the end: %s", compact(done))

	// Whether the kernel ends one process or the whole container is the node's
	// choice (memory.oom.group). The neighbour's command may be gone with the
	// container; its session may not.
	if _, err := waiting.Input(t.Context(), []byte("still here\n")); err == nil {
		if echo := nextLine(t, waiting); echo != "still here\n" {
			t.Errorf("the neighbour's command answers %q", echo)
		}
	} else if end := completed(t, waiting, noticeBound); end.Reason != wire.ReasonRunnerLost {
		t.Errorf("the neighbour's command ended with %s: %v", compact(end), err)
	}
	worksAgain(t, neighbour)
	worksAgain(t, greedy)
	if n, err := restarts(t.Context(), pod, "server"); err != nil || n != 0 {
		t.Errorf("the server was started again %d times (%v), want 0", n, err)
	}
	now, err := suite.kube.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil || now.UID != pod.UID {
		t.Errorf("the pod did not stay: %v", err)
	}
}
