//go:build linux

package proc

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A runner that cannot hold the lock would not be known to a trouped that is
// restarted: it ends before trouped hears from it, and says why.
func TestRunnerNeedsTheLock(t *testing.T) {
	path := filepath.Join(socketDir(t), "runner.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	refused := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
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
	refused(lockPath(path) + ", which trouped makes: no such file")
	lock, err := os.Create(lockPath(path))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	refused(lockPath(path) + " is locked by another process")
}

// The end of a runner is waited for until it has come, until the deadline or
// until Close; of a runner without a pidfd nothing can be known.
func TestAwaitEnd(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Skip("no pidfds here: ", err)
	}
	defer unix.Close(pidfd)
	h := hello{pidfd: pidfd}
	r := &Runner{stop: make(chan struct{})}
	if r.awaitEnd(h, time.Now().Add(2*vacancyPoll)) {
		t.Error("dead while it lives")
	}
	if !r.awaitEnd(hello{pidfd: -1}, time.Time{}) {
		t.Error("the end of an unknown runner is waited for")
	}
	cut := time.AfterFunc(vacancyPoll, func() { close(r.stop) })
	defer cut.Stop()
	if r.awaitEnd(h, time.Time{}) {
		t.Error("dead while it lives, when Close came")
	}
	r.stop = make(chan struct{})
	cmd.Process.Kill()
	if !r.awaitEnd(h, time.Time{}) {
		t.Error("not dead after a SIGKILL")
	}
}
