package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/e2e/filelock"
)

// Where things answer inside the cluster's network.
const (
	// APIServer is the address of the API server.
	APIServer = "10.99.0.1:6443"
	// IngressAddress is the load balancer's address of the ingress; port 80.
	IngressAddress = "10.99.0.100"
	// ClientAddress belongs to the network namespace in which Command, In and
	// DialContext put processes and sockets. Pods reach servers there.
	ClientAddress = "10.99.0.254"
	// DNSAddress is the cluster's DNS server, for clients outside of pods.
	DNSAddress = "10.99.0.1"
)

// maxNodes is what the addresses have room for.
const maxNodes = 9

// kubernetesVersion is that of e2e/programs/go.mod.
const kubernetesVersion = "v1.37.2"

// Config says which cluster is meant and what Up makes of it.
type Config struct {
	// Dir holds the binaries, the images and the state of a running cluster,
	// several GB in all. Empty means $TROUPE_CLUSTER, or else
	// ~/.cache/troupe-cluster. Clusters of different directories do not know of
	// each other and can run at the same time.
	Dir string
	// Nodes is how many nodes Up starts, 1 to 9. 0 means 1.
	Nodes int
	// Programs is the directory e2e/programs, from which Build makes binaries.
	// Empty means the one of the working tree around the current directory.
	Programs string
	// Log gets one line for each step. Nil discards them.
	Log io.Writer
}

// Cluster is one cluster, running or not. Its state is on disk, so every
// process that opens the same directory sees the same cluster; concurrent Up,
// Down and power commands wait for each other.
type Cluster struct {
	dir      string
	nodes    int
	programs string

	logging sync.Mutex
	log     io.Writer
}

// Open names a cluster. It changes nothing and needs no privileges.
func Open(cfg Config) (*Cluster, error) {
	dir := cfg.Dir
	if dir == "" {
		dir = os.Getenv("TROUPE_CLUSTER")
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("no directory for the cluster: set TROUPE_CLUSTER or HOME: %w", err)
		}
		dir = filepath.Join(home, ".cache", "troupe-cluster")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, own := range []string{"/etc", "/run", "/var/run", "/var/lib", "/var/log", "/proc", "/sys"} {
		if dir == own || strings.HasPrefix(dir, own+"/") {
			return nil, fmt.Errorf("the cluster's directory %s cannot be below %s, of which each node has its own: "+
				"set TROUPE_CLUSTER", dir, own)
		}
	}
	nodes := cfg.Nodes
	if nodes == 0 {
		nodes = 1
	}
	if nodes < 1 || nodes > maxNodes {
		return nil, fmt.Errorf("%d nodes: the network has room for 1 to %d", nodes, maxNodes)
	}
	log := cfg.Log
	if log == nil {
		log = io.Discard
	}
	return &Cluster{dir: dir, nodes: nodes, programs: cfg.Programs, log: log}, nil
}

// Dir is the directory of the cluster's binaries, images and state.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the path of a kubeconfig with all rights. The address in it is
// reachable only inside the cluster's network: see Command and DialContext.
func (c *Cluster) Kubeconfig() string { return c.run("kubeconfig") }

// AuditLog is the path of the API server's audit log: one JSON object a line
// for each request of a service account outside kube-system, written before
// the request is answered.
func (c *Cluster) AuditLog() string { return c.run(nodeName(1), "varlog", "audit.log") }

// Program is the path of one of the cluster's programs, kubectl for example.
func (c *Cluster) Program(name string) string { return filepath.Join(c.dir, "bin", name) }

// ControlPlane is the directory that has etcd and kube-apiserver, for tests that
// start an API server without nodes: $KUBEBUILDER_ASSETS, or else that of the
// programs of the default cluster. It is "" where neither has both.
func ControlPlane() string {
	dirs := []string{os.Getenv("KUBEBUILDER_ASSETS")}
	if c, err := Open(Config{}); err == nil {
		dirs = append(dirs, c.Program(""))
	}
	for _, dir := range dirs {
		_, noServer := os.Stat(filepath.Join(dir, "kube-apiserver"))
		_, noStore := os.Stat(filepath.Join(dir, "etcd"))
		if dir != "" && noServer == nil && noStore == nil {
			return dir
		}
	}
	return ""
}

func (c *Cluster) image(name string) string { return filepath.Join(c.dir, "images", name+".tar") }

func (c *Cluster) run(elem ...string) string {
	return filepath.Join(append([]string{c.dir, "run"}, elem...)...)
}

// cgroup is the path of the cluster's cgroup in every hierarchy, without a
// leading slash. It is derived from the directory so that two clusters have
// two.
func (c *Cluster) cgroup() string {
	sum := sha256.Sum256([]byte(c.dir))
	return "troupe-cluster-" + hex.EncodeToString(sum[:4])
}

func (c *Cluster) say(format string, args ...any) {
	c.logging.Lock()
	defer c.logging.Unlock()
	fmt.Fprintf(c.log, format+"\n", args...)
}

// step logs a step and how long it took.
func (c *Cluster) step(what string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c.say("%6.1f s  %s", time.Since(began).Seconds(), what)
	return nil
}

// lock keeps other processes from changing the cluster until it is released.
func (c *Cluster) lock(ctx context.Context) (release func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	return filelock.Lock(ctx, filepath.Join(c.dir, "lock"), func() {
		c.say("waiting for another command that changes this cluster")
	})
}

// pause waits between two looks at something that nothing announces.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// output runs a program and returns what it prints. Its error holds the last
// lines that it wrote to stderr.
func output(cmd *exec.Cmd) ([]byte, error) {
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		said := strings.TrimSpace(errs.String())
		if len(said) > 2000 {
			said = "…" + said[len(said)-2000:]
		}
		return out, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said)
	}
	return out, nil
}
