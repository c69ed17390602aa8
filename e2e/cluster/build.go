package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// program is a binary of the cluster.
type program struct {
	name  string
	pkg   string
	links []string // further names of it
}

// programs are the cluster's binaries, those that a node needs first in front.
// Their versions are in e2e/programs/go.mod.
var programs = []program{
	{name: "pause", pkg: "./pause"},
	{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd"},
	{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	{name: "ctr", pkg: "github.com/containerd/containerd/v2/cmd/ctr"},
	{name: "hyper", pkg: "./hyper", links: []string{
		"coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
	}},
	{name: "helm", pkg: "helm.sh/helm/v3/cmd/helm"},
	{name: "metrics-server", pkg: "sigs.k8s.io/metrics-server/cmd/metrics-server"},
	{name: "traefik", pkg: "github.com/traefik/traefik/v3/cmd/traefik"},
}

// lego is a module that Traefik needs, of which a part is left out: see noProviders.
const (
	legoModule  = "github.com/go-acme/lego/v5"
	legoVersion = "v5.4.1"
	// legoCopy is where the rest is put, from e2e/programs. Neither Go's patterns, nor git, nor an
	// editor's search look into .cache.
	legoCopy = "../../.cache/lego-" + legoVersion
)

// Build makes the programs that are missing or older than their sources. A
// first build compiles Kubernetes: 15 to 25 minutes on two cores, 6 GB of Go's
// build cache. After that it takes milliseconds.
func (c *Cluster) Build(ctx context.Context) error {
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	source, err := c.sources()
	if err != nil {
		if !slices.ContainsFunc(programs, func(p program) bool { return c.checkProgram(p) != nil }) {
			return nil // without the sources, the existing programs are good enough
		}
		return err
	}
	goVersion, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("go env GOVERSION: %w (is Go in PATH?)", err)
	}
	key, err := sourceKey(source, string(goVersion), linkFlags())
	if err != nil {
		return err
	}
	var missing []program
	for _, p := range programs {
		if stamp, _ := os.ReadFile(c.Program("." + p.name + ".key")); string(stamp) != key || c.checkProgram(p) != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := os.MkdirAll(c.Program(""), 0o755); err != nil {
		return err
	}
	if err := reduceLego(ctx, source); err != nil {
		return err
	}
	c.say("building %d of %d programs in %s", len(missing), len(programs), c.Program(""))
	for _, p := range missing {
		if err := c.step("built "+p.name, func() error { return c.buildProgram(ctx, source, p) }); err != nil {
			return err
		}
		if err := os.WriteFile(c.Program("."+p.name+".key"), []byte(key), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) checkProgram(p program) error {
	for _, name := range append([]string{p.name}, p.links...) {
		if _, err := os.Stat(c.Program(name)); err != nil {
			return err
		}
	}
	return nil
}

// sources finds e2e/programs.
func (c *Cluster) sources() (string, error) {
	if c.programs != "" {
		return filepath.Abs(c.programs)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for from := dir; ; dir = filepath.Dir(dir) {
		for _, place := range []string{"e2e/programs", "programs"} {
			found := filepath.Join(dir, place)
			if _, err := os.Stat(filepath.Join(found, "hyper", "main.go")); err == nil {
				return found, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no e2e/programs at or above %s: run this in troupe's working tree", from)
		}
	}
}

// sourceKey changes with everything that a build depends on.
func sourceKey(source string, also ...string) (string, error) {
	sum := sha256.New()
	for _, s := range also {
		fmt.Fprintf(sum, "%q\n", s)
	}
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		name, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%q %d %x\n", name, len(data), sha256.Sum256(data))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

// linkFlags give the programs the versions that they report; clients and
// charts look at them.
func linkFlags() string {
	parts := strings.Split(strings.TrimPrefix(kubernetesVersion, "v"), ".")
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, kv := range []string{
			"gitVersion=" + kubernetesVersion, "gitMajor=" + parts[0], "gitMinor=" + parts[1], "gitTreeState=clean",
			"gitCommit=0000000000000000000000000000000000000000", "buildDate=2026-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X", pkg+"."+kv)
		}
	}
	return strings.Join(append(flags,
		// What helm takes for the cluster's version when it renders without one.
		"-X", "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor="+parts[0],
		"-X", "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor="+parts[1],
		"-X", "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor="+parts[0],
		"-X", "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor="+parts[1],
		"-X", "github.com/containerd/containerd/v2/version.Version="+containerdVersion,
		"-X", "github.com/traefik/traefik/v3/pkg/version.Version="+traefikVersion), " ")
}

func (c *Cluster) buildProgram(ctx context.Context, source string, p program) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", linkFlags(), "-o", c.Program(p.name), p.pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if os.Getenv("GOGC") == "" && availableMemory() > 12<<30 {
		// Compilers are short-lived: with memory to spare, collecting it costs more
		// than it gives. .ci/run lints at the same time, which takes up to 4 GiB.
		cmd.Env = append(cmd.Env, "GOGC=off")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", p.pkg, err, out)
	}
	for _, link := range p.links {
		if err := os.Remove(c.Program(link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(p.name, c.Program(link)); err != nil {
			return err
		}
	}
	return nil
}

// availableMemory is what the kernel would give without swapping, in bytes.
func availableMemory() int64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemAvailable:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// noProviders replaces the file of lego that imports every DNS provider there
// is, hundreds of modules. Traefik calls this function only for certificates
// that a test cluster does not ask for.
const noProviders = `package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName knows no provider in this build.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("DNS provider %s: this build of lego has none", name)
}
`

// reduceLego makes the directory to which go.mod points: the module without its
// DNS providers. `go build -overlay` would be shorter, but does not reach into the
// module cache (https://go.dev/issue/71075).
func reduceLego(ctx context.Context, source string) error {
	target := filepath.Join(source, legoCopy)
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	// In another directory, since here go.mod points to what does not exist yet.
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", legoModule+"@"+legoVersion)
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := output(cmd)
	if err != nil {
		return err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return err
	}
	part := target + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return err
	}
	const generated = "providers/dns/zz_gen_dns_providers.go"
	err = filepath.WalkDir(module.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(module.Dir, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && filepath.Dir(name) == "providers/dns":
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(part, name), 0o755)
		case strings.HasSuffix(name, "_test.go") || !strings.HasSuffix(name, ".go") && name != "go.mod":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if name == generated {
			data = []byte(noProviders)
		}
		return os.WriteFile(filepath.Join(part, name), data, 0o644)
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(part, generated)); err != nil {
		return fmt.Errorf("lego has changed: %w", err)
	}
	return os.Rename(part, target)
}
