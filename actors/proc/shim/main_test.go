//go:build linux

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// runnerBinary is the real program, built once for the whole run.
var runnerBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "shimtest")
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
