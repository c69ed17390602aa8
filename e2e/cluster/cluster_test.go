package cluster

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	helperMain()
	goleak.VerifyTestMain(m)
}

func open(t *testing.T) *Cluster {
	t.Helper()
	c, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A node has directories of its own in these places, which would hide the state there.
func TestOpenRefusesDirectoriesThatNodesHide(t *testing.T) {
	for _, dir := range []string{"/run/x", "/var/lib/cluster", "/etc", "/var/log/a"} {
		if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "TROUPE_CLUSTER") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, nodes := range []int{-1, 10} {
		if _, err := Open(Config{Dir: t.TempDir(), Nodes: nodes}); err == nil {
			t.Errorf("%d nodes were accepted", nodes)
		}
	}
}

func TestDirectoryComesFromTheEnvironment(t *testing.T) {
	t.Setenv("TROUPE_CLUSTER", "/srv/cluster")
	c, err := Open(Config{})
	if err != nil || c.Dir() != "/srv/cluster" {
		t.Errorf("%v, %v", c, err)
	}
	t.Setenv("TROUPE_CLUSTER", "")
	t.Setenv("HOME", "/home/someone")
	if c, err = Open(Config{}); err != nil || c.Dir() != "/home/someone/.cache/troupe-cluster" {
		t.Errorf("%v, %v", c, err)
	}
}

// TestControlPlaneHasBothPrograms: with one of the two an API server does not start.
func TestControlPlaneHasBothPrograms(t *testing.T) {
	assets, dir := t.TempDir(), t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	t.Setenv("TROUPE_CLUSTER", dir)
	touch := func(path string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	touch(filepath.Join(assets, "etcd"))
	if got := ControlPlane(); got != "" {
		t.Errorf("without an API server it is %q", got)
	}
	touch(filepath.Join(dir, "bin", "etcd"))
	touch(filepath.Join(dir, "bin", "kube-apiserver"))
	if got := ControlPlane(); got != filepath.Join(dir, "bin") {
		t.Errorf("with a cluster's programs it is %q", got)
	}
	touch(filepath.Join(assets, "kube-apiserver"))
	if got := ControlPlane(); got != assets {
		t.Errorf("with both in KUBEBUILDER_ASSETS it is %q", got)
	}
}

// The name in a stat file is whatever the program likes.
func TestParseStatOfHostileName(t *testing.T) {
	fields := "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, name := range []string{"sh", "a) S 1 (b", "(x))", "new\nline"} {
		state, start, err := parseStat("17 (" + name + ") " + fields)
		if err != nil || state != "S" || start != 4242 {
			t.Errorf("%q: %q %d %v", name, state, start, err)
		}
	}
	for _, bad := range []string{"", "17 (sh", "17 (sh) S 1"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// Down after a crash reads ids from disk. A process that was given one of them
// since must not be killed.
func TestReusedPIDIsNotKilled(t *testing.T) {
	c := open(t)
	stranger := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := identify(stranger.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stranger.Wait() }()

	before := map[string]identity{
		"an earlier process": {PID: id.PID, Start: id.Start - 1, Boot: id.Boot},
		"an earlier boot":    {PID: id.PID, Start: id.Start, Boot: "00000000-0000-0000-0000-000000000000"},
	}
	for what, old := range before {
		if err := os.MkdirAll(c.run("node1"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := c.record("node1", old); err != nil {
			t.Fatal(err)
		}
		if _, err := c.recorded("node1"); !errors.Is(err, ErrOff) {
			t.Errorf("%s counts as running: %v", what, err)
		}
		if err := c.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !id.alive() {
			t.Fatalf("killed in place of %s", what)
		}
		if exists(c.run()) {
			t.Errorf("state is left after Down")
		}
	}

	// The same with the right identity, so that the test would notice.
	if err := id.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id.alive() {
		t.Error("the right process lives")
	}
	<-ended
	if err := id.kill(t.Context()); err != nil {
		t.Errorf("killing what is dead: %v", err)
	}
}

func TestNodeNames(t *testing.T) {
	for name, want := range map[string]int{
		"node1": 1, "node9": 9, "node0": 0, "node10": 0, "node01": 0, "node1x": 0, "net": 0, "": 0, "node-1": 0,
		"../node1": 0,
	} {
		if got := nodeNumber(name); got != want {
			t.Errorf("%q is node %d, want %d", name, got, want)
		}
	}
}

// Only one may change the cluster at a time, and a context ends the wait.
func TestLockWaits(t *testing.T) {
	c := open(t)
	release, err := c.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log, said := io.Pipe()
	second := &Cluster{dir: c.dir, log: said}
	go func() {
		_, _ = log.Read(make([]byte, 1)) // it has tried, and says that it waits
		cancel()
		_, _ = io.Copy(io.Discard, log)
	}()
	if _, err := second.lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held was given: %v", err)
	}
	said.Close()
	release()
	release, err = c.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestEveryImageInTheDirectoryIsImported(t *testing.T) {
	c := open(t)
	if err := os.MkdirAll(filepath.Dir(c.image("x")), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"base.tar", "base.part.tar", "trouped.tar", "trouped.tar.key", "runner.tar.part"} {
		if err := os.WriteFile(filepath.Join(c.dir, "images", name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		c.image("pause"), c.image("debian"), c.image("traefik"), c.image("metrics-server"),
		c.image("trouped"),
	}
	if got := c.imageTarballs(); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestCommandsOfAClusterThatIsOffSaySo(t *testing.T) {
	c := open(t)
	n, err := c.Node("node1")
	if err != nil {
		t.Fatal(err)
	}
	_, command := c.Command(t.Context(), "kubectl")
	_, on := n.Command(t.Context(), "ps")
	_, pid := n.PID()
	_, dial := c.DialContext(t.Context(), "tcp", APIServer)
	for what, err := range map[string]error{
		"Command": command, "Node.Command": on, "PID": pid, "DialContext": dial,
		"Enter": c.Enter("true"), "PowerOn": n.PowerOn(t.Context()),
	} {
		if !errors.Is(err, ErrOff) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if c.Running() || len(c.Nodes()) != 0 {
		t.Error("it runs")
	}
	for what, err := range map[string]error{"PowerOff": n.PowerOff(t.Context()), "Down": c.Down(t.Context())} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Names would be looked up on this machine, with results that a test does not expect.
func TestDialContextRefusesNames(t *testing.T) {
	_, err := open(t).DialContext(t.Context(), "tcp", "troupe.default.svc:80")
	if err == nil || errors.Is(err, ErrOff) {
		t.Errorf("got %v", err)
	}
}

func TestMissingPackagesAreNamed(t *testing.T) {
	c := open(t)
	saved := requirements
	defer func() { requirements = saved }()
	requirements = append(slices.Clone(saved), requirement{"no-such-program", "no-such-package"},
		requirement{"/no/such/file", "no-such-package"})
	missing := c.MissingPackages()
	if n := len(missing); n == 0 || missing[n-1] != "no-such-package" || slices.Index(missing, "no-such-package") != n-1 {
		t.Errorf("missing: %v", missing)
	}
	if err := c.checkPackages(); err == nil || !strings.Contains(err.Error(), "apt-get install") ||
		!strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("got %v", err)
	}
}

// The test makes a cgroup in each real hierarchy, with a process that keeps it busy.
func TestCgroupsAreRemovedWhenTheirProcessesAre(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	all, err := hierarchies()
	if err != nil {
		t.Skip(err)
	}
	name := "troupe-cluster-test-" + strconv.Itoa(os.Getpid())
	for _, h := range all {
		if err := makeCgroup(h, filepath.Join(name, "a"), fsType(h) == unix.CGROUP2_SUPER_MAGIC); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = removeCgroups(context.Background(), name) })
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := identify(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		leaf := filepath.Join(h, name, "a")
		if fsType(h) == unix.CGROUP2_SUPER_MAGIC { // where a cgroup with children has no processes
			leaf = filepath.Join(leaf, "pod")
			if err := os.Mkdir(leaf, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(id.PID)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := removeCgroups(ctx, name); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a busy cgroup: %v", err)
	}
	if err := id.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := removeCgroups(t.Context(), name); err != nil {
		t.Error(err)
	}
	for _, h := range all {
		if _, err := os.Stat(filepath.Join(h, name)); err == nil {
			t.Errorf("%s has it still", h)
		}
	}
	_ = sleeper.Wait()
}
