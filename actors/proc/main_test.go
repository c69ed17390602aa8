//go:build linux

package proc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// runnerBinary is the real program, built once for the whole run.
var runnerBinary string

// testBinary is a copy of this one that any user may execute. With PROC_TEST_ROLE in its
// environment it is one of the helpers in role_test.go.
var testBinary string

func TestMain(m *testing.M) {
	if role := os.Getenv("PROC_TEST_ROLE"); role != "" {
		os.Exit(helperMain(role))
	}
	dir, err := os.MkdirTemp("", "proctest")
	if err != nil {
		panic(err)
	}
	_ = os.Chmod(dir, 0o755) // other users run it too
	runnerBinary = filepath.Join(dir, "troupe-runner")
	build := exec.Command("go", "build", "-o", runnerBinary, "github.com/troupe-dev/troupe/cmd/troupe-runner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building troupe-runner: %v\n%s", err, out)
		os.Exit(1)
	}
	testBinary = filepath.Join(dir, "proc.test")
	if err := copyFile(testBinary, "/proc/self/exe"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// soak is how often a test repeats what may fail only now and then.
func soak(normal, long int) int {
	if os.Getenv("TROUPE_SOAK") != "" {
		return long
	}
	return normal
}

// open starts a Runner that the test's end closes.
func open(t testing.TB, change ...func(*Config)) *Runner {
	t.Helper()
	cfg := Config{Binary: runnerBinary, Cgroup: "off", WarmInits: 2, Logger: slog.New(slog.DiscardHandler)}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(logWriter{t}, nil))
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeRunner(t, r) })
	return r
}

// backstops counts how often a Runner's backstop killed an init, see forceKillInit.
type backstops struct {
	slog.Handler
	n *atomic.Int32
}

func (b backstops) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Message == msgForceKill {
		b.n.Add(1)
	}
	return b.Handler.Handle(ctx, rec)
}

func (backstops) Enabled(context.Context, slog.Level) bool { return true }

// withoutBackstop fails the test if an init had to be killed because it did not kill its tree. It
// returns the change to the Config, and a function that reports whether it has happened.
func withoutBackstop(t testing.TB) (change func(*Config), happened func() bool) {
	n := new(atomic.Int32)
	t.Cleanup(func() {
		if n.Load() > 0 {
			t.Errorf("%d inits did not kill their trees; the runner killed them after %v", n.Load(), forceKillAfter)
		}
	})
	return func(c *Config) { c.Logger = slog.New(backstops{c.Logger.Handler(), n}) }, func() bool { return n.Load() > 0 }
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// testTimeout bounds every wait for something that must happen, on a busy machine and beside
// hundreds of processes that fork in loops. Where a test is to fail, PROC_TEST_TIMEOUT makes it
// fail sooner.
var testTimeout = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PROC_TEST_TIMEOUT")); err == nil {
		return d
	}
	return time.Minute
}()

func closeRunner(t testing.TB, r *Runner) {
	t.Helper()
	done := make(chan struct{})
	go func() { r.Close(); close(done) }()
	await(t, done, "Close")
}

func await(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(testTimeout):
		t.Fatalf("%s: not within %v", what, testTimeout)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testTimeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, testTimeout)
		}
	}
}

// command is a started tree whose output is collected.
type command struct {
	t      testing.TB
	tree   *Tree
	marker string // in the argv of every process that it starts on purpose
	stdio  *Stdio

	mu     sync.Mutex
	events []Event
	more   chan struct{}
	out    bytes.Buffer
	errOut bytes.Buffer
	read   sync.WaitGroup
}

var (
	markerMu sync.Mutex
	markerNo int
)

func newMarker() string {
	markerMu.Lock()
	defer markerMu.Unlock()
	markerNo++
	return fmt.Sprintf("proctest-%d-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6, markerNo)
}

func environ() []string { return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} }

// run starts a shell script. MARK in it stands for a marker, by which its processes are found
// anywhere.
func run(t testing.TB, r *Runner, script string) *command {
	t.Helper()
	marker := newMarker()
	return runSpec(t, r, marker, Spec{
		Argv: []string{"/bin/bash", "-c", strings.ReplaceAll(script, "MARK", marker), marker},
		Env:  environ(),
	})
}

func runSpec(t testing.TB, r *Runner, marker string, spec Spec) *command {
	t.Helper()
	return runOwned(t, r, "owner", marker, spec)
}

func runOwned(t testing.TB, r *Runner, owner, marker string, spec Spec) *command {
	t.Helper()
	c := &command{t: t, tree: r.NewTree(owner, marker), marker: marker, more: make(chan struct{}, 1)}
	stdio, err := c.tree.Start(spec, c.event)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	c.stdio = stdio
	for p, buf := range map[*Pipe]*bytes.Buffer{stdio.Stdout: &c.out, stdio.Stderr: &c.errOut} {
		if p == nil { // a terminal has one stream
			continue
		}
		c.read.Go(func() {
			io.Copy(writerFunc(func(b []byte) (int, error) {
				c.mu.Lock()
				defer c.mu.Unlock()
				return buf.Write(b)
			}), p)
			p.Close()
		})
	}
	t.Cleanup(func() {
		c.tree.Kill()
		await(t, c.tree.Dead(), "death at the end of the test")
		if t.Failed() {
			c.killLeftovers()
		}
		c.read.Wait()
		if stdio.Stdin != nil {
			stdio.Stdin.Close()
		}
	})
	return c
}

// killLeftovers kills the processes that a broken build leaves behind, so that they do not outlive
// the test nor hold its pipes open.
func (c *command) killLeftovers() {
	for _, p := range find(c.marker) {
		pid, _, _ := strings.Cut(p, " ")
		if n, err := strconv.Atoi(pid); err == nil {
			unix.Kill(n, unix.SIGKILL)
		}
	}
	c.stdio.close()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (c *command) event(e Event) {
	c.mu.Lock()
	c.events = append(c.events, e)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *command) stdout() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

// waitOutput waits until stdout holds s.
func (c *command) waitOutput(s string) {
	c.t.Helper()
	eventually(c.t, "output "+strconv.Quote(s), func() bool { return strings.Contains(c.stdout(), s) })
}

// waitEvent waits for the first event of type E.
func waitEvent[E Event](c *command) E {
	c.t.Helper()
	deadline := time.After(testTimeout)
	for {
		c.mu.Lock()
		for _, e := range c.events {
			if e, ok := e.(E); ok {
				c.mu.Unlock()
				return e
			}
		}
		c.mu.Unlock()
		select {
		case <-c.more:
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			var want E
			c.t.Fatalf("no %T; events: %+v; survivors: %v", want, c.events, find(c.marker))
		}
	}
}

// waitDead waits for the end and checks that it is true.
func (c *command) waitDead() Dead {
	c.t.Helper()
	d := waitEvent[Dead](c)
	if left := find(c.marker); len(left) > 0 {
		c.t.Errorf("dead, but there are %v", left)
	}
	await(c.t, c.tree.Dead(), "Dead channel")
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.events[len(c.events)-1].(Dead); !ok {
		c.t.Errorf("Dead is not the last event: %+v", c.events)
	}
	return d
}

// find lists the processes with s in their argv.
func find(s string) (found []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && bytes.Contains(argv, []byte(s)) && filepath.Base(dir) != strconv.Itoa(os.Getpid()) {
			found = append(found, filepath.Base(dir)+" "+strings.ReplaceAll(string(argv), "\x00", " "))
		}
	}
	return found
}

// waitFound waits until n processes carry the marker.
func (c *command) waitFound(n int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%d processes", n), func() bool { return len(find(c.marker)) >= n })
}

// below lists the living and dead processes below pid, by /proc.
func below(pid int) []proctree.Stat {
	return proctree.NewWalker(pid, nil).Snapshot(nil)
}
