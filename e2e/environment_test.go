package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/e2e-framework/klient/wait"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// environment is what the tests know about the cluster that they run on.
type environment struct {
	// How the cluster came to be.
	wanted      bool             // without one the run fails; otherwise it is skipped
	cluster     *cluster.Cluster // nil on a cluster of the user's
	startedHere bool             // so it is stopped at the end
	nodes       []*cluster.Node  // empty on a cluster of the user's

	// How it is reached.
	kubeconfig string
	rest       *rest.Config
	kube       kubernetes.Interface

	ingress      string // host:port that every client dials
	ingressClass string // empty: the default class
	ingressPods  string // namespace/selector of the controller's pods; empty: not to be restarted
	domain       string // below which the releases have their hosts

	// What is installed, and with what.
	serverImage, runnerImage string // repository:tag
	chart                    string
	helm, kubectl, troupe    string // paths
	shared                   *release

	scratch   string // removed at the end
	artifacts string
	failed    atomic.Bool
}

// connect makes the Kubernetes clients.
func (e *environment) connect(context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", e.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", e.kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200                  // many tests poll with this one client
	config.WarningHandlerWithContext = rest.NoWarnings{} // one test lists every kind, deprecated ones too
	e.rest = config
	e.kube, err = kubernetes.NewForConfig(config)
	return err
}

// needNodes skips a test that has to look at the nodes themselves.
func needNodes(t *testing.T) {
	t.Helper()
	if len(suite.nodes) == 0 {
		t.Skip("needs the nodes themselves, which E2E_KUBECONFIG does not give")
	}
}

// command prepares a program with the cluster's kubeconfig.
func (e *environment) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.kubeconfig, "HELM_CACHE_HOME="+filepath.Join(e.scratch, "helm"))
	cmd.WaitDelay = 5 * time.Second // a child that keeps the pipe open must not hang the test
	return cmd
}

// output runs a program of the environment and returns its stdout. The error has its stderr.
func (e *environment) output(ctx context.Context, stdin, name string, args ...string) (string, error) {
	cmd := e.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// kubectl runs kubectl and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := suite.output(t.Context(), "", suite.kubectl, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually polls until check returns nil, and fails the test with its last
// error when that has not come within bound.
func eventually(t *testing.T, bound time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	if err := poll(t.Context(), bound, check); err != nil {
		t.Fatalf("%s: not within %s: %v", what, bound, err)
	}
}

// pollEvery paces polling: waits take from tenths of a second to many seconds.
const pollEvery = 100 * time.Millisecond

// poll is eventually for those who have no test. A check that hangs is ended
// some time after bound; until bound it is not told of it, so that the last error
// is about what was waited for.
func poll(ctx context.Context, bound time.Duration, check func(context.Context) error) error {
	hang, cancel := context.WithTimeout(ctx, bound+10*time.Second)
	defer cancel()
	var last error
	err := wait.For(func(context.Context) (bool, error) {
		last = check(hang)
		return last == nil, nil
	}, wait.WithContext(ctx), wait.WithImmediate(), wait.WithInterval(pollEvery), wait.WithTimeout(bound))
	if err == nil {
		return nil
	}
	return cmp.Or(last, err)
}

// errorList is a check that names everything that is wrong.
func errorList(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems, "; "))
}
