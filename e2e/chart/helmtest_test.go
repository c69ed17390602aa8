package chart

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const helmTestToken = "of-the-helm-test-0123456789abcdef"

// helmTest runs the script of `helm test` on this machine, against a server with
// an embedded runner and the given flags.
func helmTest(t *testing.T, values string, flags ...string) (string, error) {
	t.Helper()
	r, err := render(loadChart(t), parse(t, values))
	if err != nil {
		t.Fatal(err)
	}
	binary, bin, dir := buildTrouped(t), t.TempDir(), t.TempDir()
	for _, name := range []string{"troupe", "troupe-runner"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, name), "./cmd/"+name)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	tokens := write(t, dir, "tokens", "alice "+helmTestToken+"\n")
	address := serve(t, binary, append([]string{
		"--auth", "token", "--token-file", tokens, "--data-dir", filepath.Join(dir, "data"),
		"--runner-binary", filepath.Join(bin, "troupe-runner"),
	}, flags...))
	script := decode[corev1.Pod](t, r, "Pod").Spec.Containers[0].Args[0]
	script = strings.NewReplacer("/troupe/bin/troupe-runner", filepath.Join(bin, "troupe-runner"), "/troupe/tokens", tokens).
		Replace(script)
	ctx, cancel := context.WithTimeout(t.Context(), 2*troupedBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-euc", script)
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "TROUPE_SERVER=ws://" + address + "/ws", "TROUPE_STATE_DIR=" + t.TempDir(),
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serve starts a server that ends with the test, and returns its address.
func serve(t *testing.T, binary string, flags []string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(binary, append(flags, "--listen", address, "--admin-listen", "127.0.0.1:0", "--log-format", "json")...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH")}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	var log string
	go func() {
		defer close(ended)
		_, log = waitReady(stderr, func() { close(ready) })
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Log(log)
		}
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("trouped ended:\n%s", log)
	}
	return address
}

// TestHelmTestFindsMissingWalls protects from: a `helm test` that passes
// whatever sessions can do to each other.
func TestHelmTestFindsMissingWalls(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		{"isolation: {mode: session}", "FAILED: sessions must be separated, and are not: isolation is none"},
		{"", "note: sessions are not separated on this node: isolation is none"},
	} {
		out, err := helmTest(t, c.values, "--isolation", "none")
		if !strings.Contains(out, c.says) || (err != nil) != strings.HasPrefix(c.says, "FAILED") {
			t.Errorf("values %q: %v\n%s\nwant: %s", c.values, err, out, c.says)
		}
	}
	// A server that says what is not so.
	out, err := helmTest(t, "isolation: {mode: session}", "--isolation", "none", "--env", "TROUPE_ISOLATION=session")
	if err == nil || !strings.Contains(out, "FAILED: a session reached another one: exit code 91: of-session-one") {
		t.Errorf("walls that are not there: %v\n%s", err, out)
	}
}

// TestHelmTestShowsTheWalls: with them, `helm test` passes, and says what it has seen.
func TestHelmTestShowsTheWalls(t *testing.T) {
	if abi := landlock(); abi < 6 {
		t.Skipf("Landlock of this kernel has ABI %d, sessions need 6 (Linux 6.12)", abi)
	}
	out, err := helmTest(t, "isolation: {mode: session}", "--isolation", "session", "--workspace", t.TempDir())
	if err != nil || !strings.Contains(out, "ok: a session reads, lists and signals nothing of another: ") {
		t.Errorf("%v\n%s", err, out)
	}
	// Each attempt was made, and refused by the kernel.
	for _, refused := range []string{"secret: Permission denied", "environ: Permission denied"} {
		if !strings.Contains(out, refused) {
			t.Errorf("%q is not in the output:\n%s", refused, out)
		}
	}
}

// landlock returns the kernel's ABI of Landlock; 0: it has none.
func landlock() int {
	const createRuleset, version = 444, 1
	abi, _, errno := syscall.Syscall(createRuleset, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(abi)
}
