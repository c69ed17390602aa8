package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// process is one that runs on a node, in a container or not. It is seen from
// the node, whose process table has them all.
type process struct {
	cluster.Process
	node *cluster.Node
}

func (p process) String() string {
	return fmt.Sprintf("%s/%d %q", p.node.Name(), p.PID, strings.Join(p.Args, " "))
}

// processes lists those of all nodes that match.
func processes(match func(p process) bool) ([]process, error) {
	var found []process
	for _, n := range suite.nodes {
		all, err := n.Processes()
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if p := (process{one, n}); match(p) {
				found = append(found, p)
			}
		}
	}
	return found, nil
}

// marked lists the processes of all nodes that have marker among their arguments.
func marked(marker string) ([]process, error) {
	return processes(func(p process) bool { return strings.Contains(strings.Join(p.Args, " "), marker) })
}

// noneMarked is a check for eventually: no process with the marker is left on any node.
func noneMarked(marker string) func(context.Context) error {
	return func(context.Context) error {
		found, err := marked(marker)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%d live: %v", len(found), found)
		}
		return err
	}
}

// containerProcess finds the process of a pod that was started as args, the first of its container.
func containerProcess(t *testing.T, pod *corev1.Pod, args ...string) process {
	t.Helper()
	found, err := processes(func(p process) bool {
		return len(p.Args) >= len(args) && strings.Join(p.Args[:len(args)], " ") == strings.Join(args, " ") &&
			strings.Contains(p.Cgroup, string(pod.UID))
	})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d processes %v of pod %s, want 1 (%v): %v", len(found), args, pod.Name, err, found)
	}
	return found[0]
}

// kill sends SIGKILL from the node, as its kernel would.
func (p process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, "KILL")
}

// signal sends a signal from the node.
func (p process) signal(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd, err := p.node.Command(ctx, "kill", "-"+name, strconv.Itoa(p.PID))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("SIG%s to %s: %v: %s", name, p, err, out)
	}
}
