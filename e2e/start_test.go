package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-dev/troupe/e2e/cluster"
	"github.com/troupe-dev/troupe/e2e/image"
)

const (
	// enteredEnv is set in the process that runs the tests inside of the
	// cluster's network, to when the one before it began, in Unix milliseconds.
	enteredEnv = "E2E_ENTERED"
	// startedEnv is set as well when that one has started the cluster.
	startedEnv = "E2E_STARTED"
	// e2eLabel marks the namespaces of these tests.
	e2eLabel = "troupe.dev/e2e"
	// namespacePrefix begins their names; the release's name follows.
	namespacePrefix = "troupe-e2e-"
)

// enter brings this process to where the tests can run: into the network of our
// cluster, which is started if it is wanted, or to one of the user's. The error
// says why there is no such place.
func (e *environment) enter() error {
	e.wanted = os.Getenv("E2E") != ""
	e.kubeconfig = os.Getenv("E2E_KUBECONFIG")
	e.domain = os.Getenv("E2E_DOMAIN")
	if e.domain == "" {
		e.domain = "e2e.troupe.test"
	}
	if e.kubeconfig != "" {
		return e.enterOwn()
	}
	var err error
	if e.cluster, err = cluster.Open(cluster.Config{Nodes: 2, Log: os.Stdout}); err != nil {
		return err
	}
	if os.Getenv(enteredEnv) != "" {
		return e.entered()
	}
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root; or set E2E_KUBECONFIG to use another one")
	}
	running := e.cluster.Running()
	if !running && !e.wanted {
		return errors.New("no cluster is running: make e2e starts one, make cluster-up keeps one, E2E_KUBECONFIG names another")
	}
	e.wanted = true // from here on nothing is missing but by a failure
	os.Setenv(enteredEnv, strconv.FormatInt(time.Now().UnixMilli(), 10))
	if err := e.prepare(context.Background(), running); err != nil {
		return err
	}
	return e.cluster.Enter(append([]string{"/proc/self/exe"}, os.Args[1:]...)...)
}

// prepare makes the images of the tree as it is, and starts the cluster with
// them or brings them to the one that runs.
func (e *environment) prepare(ctx context.Context, running bool) error {
	images, err := image.Build(ctx, image.Config{})
	if err != nil {
		return err
	}
	if !running {
		os.Setenv(startedEnv, "1")
		if err := e.cluster.Up(ctx); err != nil {
			return errors.Join(err, e.cluster.Down(context.WithoutCancel(ctx)))
		}
		return nil
	}
	return e.cluster.Load(ctx, images.Server.Archive, images.Runner.Archive)
}

// entered completes the environment in the process that runs the tests.
func (e *environment) entered() error {
	e.wanted = true
	e.startedHere = os.Getenv(startedEnv) != ""
	e.kubeconfig = e.cluster.Kubeconfig()
	e.ingress = cluster.IngressAddress + ":80"
	e.ingressPods = "traefik/app=traefik"
	e.serverImage, e.runnerImage = image.ServerName+":e2e", image.RunnerName+":e2e"
	e.nodes = e.cluster.Nodes()
	return e.findPrograms(filepath.Join(e.cluster.Dir(), "artifacts"), filepath.Join(e.cluster.Dir(), "bin"))
}

// enterOwn takes the settings of a cluster of the user's from the environment.
func (e *environment) enterOwn() error {
	e.wanted = true
	e.ingress = os.Getenv("E2E_INGRESS")
	e.ingressClass = os.Getenv("E2E_INGRESS_CLASS")
	e.ingressPods = os.Getenv("E2E_INGRESS_POD")
	e.serverImage, e.runnerImage = os.Getenv("E2E_SERVER_IMAGE"), os.Getenv("E2E_RUNNER_IMAGE")
	for name, value := range map[string]string{
		"E2E_INGRESS": e.ingress, "E2E_SERVER_IMAGE": e.serverImage, "E2E_RUNNER_IMAGE": e.runnerImage,
	} {
		if value == "" {
			return fmt.Errorf("E2E_KUBECONFIG needs %s too: see doc.go", name)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	return e.findPrograms(filepath.Join(cache, "troupe-e2e"), "")
}

// findPrograms builds troupe and looks for helm and kubectl, in dir before PATH.
func (e *environment) findPrograms(artifacts, dir string) error {
	e.artifacts = artifacts
	if path := os.Getenv("E2E_ARTIFACTS"); path != "" {
		e.artifacts = path
	}
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	e.chart = filepath.Join(root, "charts", "troupe")
	if e.scratch, err = os.MkdirTemp("", "troupe-e2e-"); err != nil {
		return err
	}
	e.troupe = filepath.Join(e.scratch, "troupe")
	build := exec.Command("go", "build", "-o", e.troupe, "./cmd/troupe")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building troupe: %w: %s", err, out)
	}
	for name, to := range map[string]*string{"helm": &e.helm, "kubectl": &e.kubectl} {
		if *to = filepath.Join(dir, name); dir != "" && executable(*to) {
			continue
		}
		if *to, err = exec.LookPath(name); err != nil {
			return fmt.Errorf("the tests need %s: %w", name, err)
		}
	}
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// began is when the run began, whichever process it began in.
func (e *environment) began(here time.Time) time.Time {
	if ms, err := strconv.ParseInt(os.Getenv(enteredEnv), 10, 64); err == nil {
		return time.UnixMilli(ms)
	}
	return here
}

// clear removes what a run that was killed has left, so that the next one can begin.
func (e *environment) clear(ctx context.Context) error {
	if err := os.RemoveAll(e.artifacts); err != nil {
		return err
	}
	if err := os.MkdirAll(e.artifacts, 0o755); err != nil {
		return err
	}
	return e.removeNamespaces(ctx)
}

// removeNamespaces uninstalls every release of these tests and waits until its namespace is gone.
func (e *environment) removeNamespaces(ctx context.Context) error {
	list := func(ctx context.Context) ([]string, error) {
		all, err := e.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: e2eLabel})
		if err != nil {
			return nil, err
		}
		var names []string
		for _, ns := range all.Items {
			names = append(names, ns.Name)
		}
		return names, nil
	}
	names, err := list(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, newRelease(strings.TrimPrefix(name, namespacePrefix)).remove(ctx))
	}
	gone := poll(ctx, finishBound, func(ctx context.Context) error {
		left, err := list(ctx)
		if err != nil {
			return err
		}
		return errorList(left)
	})
	if gone != nil {
		errs = append(errs, fmt.Errorf("namespaces are still there: %w", gone))
	}
	return errors.Join(errs...)
}

// installShared installs the release of the tests that need none of their own.
func (e *environment) installShared(ctx context.Context) error {
	e.shared = newRelease("troupe")
	return e.shared.create(ctx)
}

// finish keeps what tells of a failure, then stops or removes everything that
// the tests started.
func (e *environment) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), finishBound)
	defer cancel()
	defer os.RemoveAll(e.scratch)
	if e.failed.Load() && e.kube != nil {
		if e.shared != nil {
			e.shared.collect(ctx, filepath.Join(e.artifacts, "shared"))
		}
		e.collectCluster(ctx)
		fmt.Println("e2e: artifacts:", e.artifacts)
	}
	switch {
	case os.Getenv("E2E_KEEP") != "":
		fmt.Println("e2e: everything is left as it is")
		return nil
	case e.startedHere:
		return e.cluster.Down(ctx)
	case e.kube != nil:
		return e.removeNamespaces(ctx)
	}
	return nil
}
