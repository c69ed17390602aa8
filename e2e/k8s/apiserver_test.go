package k8s

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What tests do to the API server. They are not parallel: the others need it.

// apiServer finds its process.
func apiServer(t *testing.T) (pid int) {
	t.Helper()
	children, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	for _, dir := range children {
		command, _ := os.ReadFile(dir + "/cmdline")
		stat, _ := os.ReadFile(dir + "/stat")
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest))
		if bytes.Contains(command, []byte("kube-apiserver\x00")) && len(fields) > 1 &&
			fields[1] == strconv.Itoa(os.Getpid()) {
			pid, _ = strconv.Atoi(filepath.Base(dir))
		}
	}
	if pid == 0 {
		t.Fatal("the API server is not a child of this process")
	}
	return pid
}

// freeze stops the API server's process until the returned function is called, at
// the latest at the test's end.
func freeze(t *testing.T) (thaw func()) {
	t.Helper()
	pid := apiServer(t)
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	thaw = sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(thaw)
	return thaw
}

// kill ends the API server at once. start begins another with the same store, keys and
// address, and waits until it is ready; the test must call it.
func kill(t *testing.T) (start func()) {
	t.Helper()
	pid := apiServer(t)
	proc := fmt.Sprintf("/proc/%d", pid)
	command, err := os.ReadFile(proc + "/cmdline")
	must(t, err)
	args := strings.Split(strings.TrimSuffix(string(command), "\x00"), "\x00")
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	for deadline := time.Now().Add(bound); ; time.Sleep(time.Millisecond) { // envtest reaps it
		if _, err := os.Stat(proc); errors.Is(err, os.ErrNotExist) {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the API server does not die")
		}
	}
	restarted() // the one that a test before this has started, and that is dead now
	return sync.OnceFunc(func() {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		must(t, cmd.Start())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		restarted = func() { _ = cmd.Process.Kill(); <-ended }
		for deadline := time.Now().Add(bound); ; time.Sleep(50 * time.Millisecond) {
			_, err := kube.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the API server is not ready: %v", err)
			}
		}
	})
}
