//go:build linux

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// runnerBinary is a copy of the test binary that any user may execute. With SHIM_TEST_RUNNER in its
// environment, which it inherits from the tests, it is troupe-runner.
var runnerBinary string

const runnerVariable = "SHIM_TEST_RUNNER"

// testTimeout bounds every wait for something that must happen. Where a test is to fail,
// PROC_TEST_TIMEOUT makes it fail sooner.
var testTimeout = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("PROC_TEST_TIMEOUT")); err == nil {
		return d
	}
	return time.Minute
}()

func TestMain(m *testing.M) {
	if os.Getenv(runnerVariable) != "" {
		os.Exit(Main("test", os.Args))
	}
	os.Setenv(runnerVariable, "1")
	dir, err := os.MkdirTemp("", "shimtest")
	if err != nil {
		panic(err)
	}
	_ = os.Chmod(dir, 0o755) // other users run it too
	runnerBinary = filepath.Join(dir, "troupe-runner")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(runnerBinary, self, 0o755)
	}
	if err != nil {
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

// openDir is a directory that any user may enter.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shimtest-dir") //nolint:usetesting // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	return dir
}

func TestVersion(t *testing.T) {
	out, err := exec.Command(runnerBinary, "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "troupe-runner ") {
		t.Errorf("%v %q", err, out)
	}
	if err := exec.Command(runnerBinary).Run(); err == nil {
		t.Error("runs without --connect")
	}
}
