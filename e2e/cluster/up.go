package cluster

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed manifests
var manifestFiles embed.FS

// readyTimeout bounds the wait for nodes and system pods, once everything is
// started.
const readyTimeout = 3 * time.Minute

// Up builds missing programs, starts what is not running and waits until all
// of it is ready: Config.Nodes nodes, the ingress at IngressAddress, and the
// metrics API. On a cluster that is up already it adds nodes, or does nothing.
// The cluster outlives the calling process; Down ends it. When Up fails, what
// it started is left for a look at it.
func (c *Cluster) Up(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	if err := c.checkPackages(); err != nil {
		return err
	}
	if err := c.Build(ctx); err != nil {
		return err
	}
	if err := c.Images(ctx); err != nil {
		return err
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()

	if _, err := c.recorded(networkName); err != nil {
		if err := c.step("network", func() error { return c.startNetwork(ctx) }); err != nil {
			return err
		}
	}
	if err := c.startNodes(ctx); err != nil {
		return err
	}
	if err := c.step("system applied", func() error { return c.applySystem(ctx) }); err != nil {
		return err
	}
	return c.awaitReady(ctx)
}

// startNodes starts all nodes at the same time. What needs the API server
// waits for it.
func (c *Cluster) startNodes(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for m := 1; m <= c.nodes; m++ {
		n := &Node{c, m}
		if _, err := c.recorded(n.Name()); err == nil {
			continue
		}
		all.Go(func() {
			if err := c.step(n.Name()+" started", func() error { return n.powerOn(ctx) }); err != nil {
				cancel(err) // the others stop, and report the first failure
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// startNetwork makes a new cluster: what an earlier one left is removed.
func (c *Cluster) startNetwork(ctx context.Context) error {
	if err := c.down(ctx); err != nil {
		return err
	}
	if err := writePKI(c.run("shared")); err != nil {
		return err
	}
	admin, err := os.ReadFile(c.run("shared", "admin.conf"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.Kubeconfig(), admin, 0o600); err != nil {
		return err
	}
	o := order{Name: networkName, Dir: c.dir}
	return c.start(ctx, o, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET|syscall.CLONE_NEWUTS, func(int) error { return nil })
}

// applySystem creates what kubeadm and an administrator would: the missing
// role bindings, DNS, the ingress controller, the metrics API.
func (c *Cluster) applySystem(ctx context.Context) error {
	files, err := manifestFiles.ReadDir("manifests")
	if err != nil {
		return err
	}
	var all strings.Builder
	for _, f := range files {
		text, err := manifestFiles.ReadFile(filepath.Join("manifests", f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&all, "---\n%s\n", text)
	}
	cmd, err := c.Command(ctx, "kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(all.String())
	if _, err := output(cmd); err != nil {
		return err
	}
	// There is no cloud that would give the load balancer its address.
	return c.request(ctx, http.MethodPatch, "/api/v1/namespaces/traefik/services/traefik/status",
		fmt.Sprintf(`{"status": {"loadBalancer": {"ingress": [{"ip": %q}]}}}`, IngressAddress), nil)
}

// awaitReady waits for the nodes, then for the pods of the system.
func (c *Cluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s", readyTimeout))
	defer cancel()
	for m := 1; m <= c.nodes; m++ {
		name := nodeName(m)
		err := c.step(name+" Ready", func() error { return c.awaitCondition(ctx, "/api/v1/nodes/"+name, "Ready") })
		if err != nil {
			return err
		}
	}
	for _, system := range []struct{ what, path, condition string }{
		{"ingress controller Available", "/apis/apps/v1/namespaces/traefik/deployments/traefik", "Available"},
		{"metrics API Available", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io", "Available"},
	} {
		err := c.step(system.what, func() error { return c.awaitCondition(ctx, system.path, system.condition) })
		if err != nil {
			return err
		}
	}
	return nil
}

// Down cuts the power of every node, removes the network and deletes all state
// but the logs. What it finds from an Up that crashed, it removes as well. It
// is not an error when nothing is there.
func (c *Cluster) Down(ctx context.Context) error {
	if _, err := os.Stat(c.run()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return c.down(ctx)
}

func (c *Cluster) down(ctx context.Context) error {
	names := c.recordedNames()
	// The network last: a node that finds it gone would only write errors.
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(fmt.Sprint(a == networkName, a), fmt.Sprint(b == networkName, b))
	})
	for _, name := range names {
		id, err := c.recorded(name)
		if err != nil {
			continue
		}
		if err := id.kill(ctx); err != nil {
			return err
		}
	}
	if err := removeCgroups(ctx, c.cgroup()); err != nil {
		return err
	}
	return c.removeState()
}

// removeState deletes everything below run/ but the logs, and of these all but
// the last.
func (c *Cluster) removeState() error {
	kept, err := filepath.Glob(c.run("*", "log"))
	if err != nil {
		return err
	}
	old := filepath.Join(c.dir, "logs")
	if len(kept) > 0 {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
		if err := os.Mkdir(old, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range kept {
		if err := os.Rename(dir, filepath.Join(old, filepath.Base(filepath.Dir(dir)))); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.run())
}
