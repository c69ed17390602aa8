//go:build linux

package shim

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A runner that ends signals its own children only. The pid of an init that is reaped may be anybody's.
func TestShutdownKillsNoStranger(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := strconv.Atoi(strings.TrimSpace(string(out))) // an orphan by now, of another process
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(stranger, unix.SIGKILL)
	s := &supervisor{inits: map[int]*child{stranger: {control: -1}}}
	done := make(chan struct{})
	go func() {
		s.awaitInits(time.Now().Add(-time.Second))
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the runner waits for a process that is not its child")
	}
	if err := unix.Kill(stranger, 0); err != nil {
		t.Errorf("the stranger is gone: %v", err)
	}
}
