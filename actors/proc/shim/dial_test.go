//go:build linux

package shim

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// A runner that cannot hold the lock would not be known to a trouped that is restarted: it exits
// before it sends anything, and says why.
func TestRunnerNeedsTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runner.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	refused := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, runnerBinary, "--connect", path, "--cgroup", "off").CombinedOutput()
		if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), want) {
			t.Errorf("%v: %q, want %q", err, out, want)
		}
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("%s: it said something before it ended", want)
		}
		conn.Close()
	}
	refused(frame.LockPath(path) + ", which trouped makes: no such file")
	lock, err := os.Create(frame.LockPath(path))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	refused(frame.LockPath(path) + " is locked by another process")
}
