//go:build linux

package shim

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// The init takes a SIGKILL for the kernel's only if it has not sent one itself.
func TestOwnKillIsNotOutOfMemory(t *testing.T) {
	child := exec.Command("/bin/sh", "-c", `trap "" TERM; echo ready; sleep 1000`)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Kill(-child.Process.Pid, unix.SIGKILL); child.Wait() }()
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	p := &initProcess{walk: proctree.NewWalker(os.Getpid(), nil)}
	x := &execution{pid: child.Process.Pid, dead: make(chan struct{})}
	killed := &proctree.Siginfo{Code: proctree.CLDKilled, Status: int32(unix.SIGKILL)}
	for _, info := range []proctree.Siginfo{
		{Code: proctree.CLDKilled, Status: int32(unix.SIGTERM)},
		{Code: proctree.CLDExited, Status: int32(unix.SIGKILL)},
	} {
		if x.mayBeOutOfMemory(&info) {
			t.Errorf("%+v", info)
		}
	}
	if p.signal(x, unix.SIGTERM); !x.mayBeOutOfMemory(killed) {
		t.Error("after a SIGTERM of ours")
	}
	p.signal(x, unix.SIGKILL)
	p.signal(x, unix.SIGTERM)
	if x.mayBeOutOfMemory(killed) {
		t.Error("after a SIGKILL of ours")
	}
}
