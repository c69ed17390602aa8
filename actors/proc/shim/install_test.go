//go:build linux

package shim

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// installer runs the program as an init container does: an ordinary user, with the program in a
// place where it cannot write.
func installer(t *testing.T, uid uint32, args ...string) (stderr string, code int) {
	t.Helper()
	cmd := exec.Command(runnerBinary, args...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// The copy is whole, may be run by everybody, and takes the place of an older one that runs at this
// moment.
func TestInstall(t *testing.T) {
	dir := openDir(t)
	os.Chmod(dir, 0o777)
	path := filepath.Join(dir, "troupe-runner")
	for range 2 {
		if stderr, code := installer(t, 65532, "--install", path); code != 0 || stderr != "" {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o555 {
			t.Fatalf("%v, %v", info.Mode(), err)
		}
		want, _ := os.ReadFile(runnerBinary)
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes instead of %d, %v", len(got), len(want), err)
		}
		busy := exec.Command(path, "--connect", filepath.Join(dir, "none.sock"))
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { busy.Process.Kill(); busy.Wait() }()
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%d files in the directory", len(list))
	}
}

// Each thing that can be wrong is told by its name, and nothing is left.
func TestInstallNamesTheProblem(t *testing.T) {
	dir := openDir(t)
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	for path, want := range map[string]string{
		"relative":                     "must be the absolute path",
		dir + "/../x":                  "must be the absolute path",
		dir + "/missing/troupe-runner": "there is no directory " + dir + "/missing",
		dir + "/file/troupe-runner":    "file is not a directory",
		dir:                            "this is a directory",
		dir + "/troupe-runner":         "permission denied",
	} {
		if strings.Contains(want, "denied") && os.Geteuid() != 0 {
			continue // the owner of the directory is not denied
		}
		stderr, code := installer(t, 65532, "--install", path)
		if code != 1 || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d: %q", path, code, stderr)
		}
	}
	stderr, code := installer(t, 65532, "--install", dir+"/x", "--connect", dir+"/y")
	if code != 1 || !strings.Contains(stderr, "--install") {
		t.Errorf("exit code %d: %q", code, stderr)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%d files in the directory", len(list))
	}
}
