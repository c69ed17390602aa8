//go:build linux

package proc

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitEnd waits until the runner is dead, until the deadline or until Close. Without a pidfd it
// does not wait, since the end cannot be known.
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
	h := &hello{pidfd: pidfd}
	r := &Runner{stop: make(chan struct{})}
	if r.awaitEnd(h, time.Now().Add(2*lockPollInterval)) {
		t.Error("dead while it lives")
	}
	if !r.awaitEnd(&hello{pidfd: -1}, time.Time{}) {
		t.Error("the end of an unknown runner is waited for")
	}
	cut := time.AfterFunc(lockPollInterval, func() { close(r.stop) })
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
