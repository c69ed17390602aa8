//go:build linux

package proc

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
	"github.com/troupe-dev/troupe/actors/proc/shim"
)

// helperMain is this test binary in another role: a trouped that can be killed, or a command that
// attacks.
func helperMain(role string) int {
	switch role {
	case "trouped":
		return roleTrouped()
	case "attack":
		return roleAttack()
	case "threads":
		for range 100 {
			go func() { runtime.LockOSThread(); select {} }()
		}
		time.Sleep(time.Minute)
		return 0
	case "runner":
		// Tests use the binary that TestMain builds. This links the runner into the test binary
		// too, so that go test does not take a result from its cache after the runner has changed.
		return shim.Main("test", os.Args)
	}
	return 2
}

// roleTrouped embeds a runner, or waits for one at PROC_TEST_SOCKET. It runs every script that is
// given as an argument, copies their output to stdout and waits until all are dead.
func roleTrouped() int {
	cfg := Config{
		Binary: os.Getenv("PROC_TEST_RUNNER"), Cgroup: "off", WarmInits: 3,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if socket := os.Getenv("PROC_TEST_SOCKET"); socket != "" {
		cfg.Binary, cfg.Socket = "", socket
	}
	r, err := Open(cfg)
	if err != nil {
		fmt.Println("open:", err)
		return 1
	}
	fmt.Println("runner", r.Status().PID)
	var trees []*Tree
	for _, script := range os.Args[1:] {
		tree := r.NewTree("o", "x")
		trees = append(trees, tree)
		spec := Spec{Argv: []string{"/bin/bash", "-c", script}, Env: os.Environ()}
		stdio, err := tree.Start(spec, func(e Event) { fmt.Fprintf(os.Stderr, "%T%+v\n", e, e) })
		if err != nil {
			fmt.Println("start:", err)
			return 1
		}
		go io.Copy(os.Stdout, stdio.Stdout)
		go io.Copy(os.Stderr, stdio.Stderr)
	}
	for _, tree := range trees {
		<-tree.Dead()
	}
	r.Close()
	return 0
}

// roleAttack tries everything that a process may do to another of the same user: on its init, the
// runner and trouped, and then on inits that are just starting.
func roleAttack() int {
	control := exec.Command("/bin/sleep", "100")
	if err := control.Start(); err != nil {
		fmt.Println("BREACH: no control:", err)
		return 1
	}
	defer control.Process.Kill()
	// Start returns once execve has closed the parent's pipe, a moment before it is complete.
	for end := time.Now().Add(testTimeout); ; time.Sleep(time.Millisecond) {
		got := attack(control.Process.Pid)
		if len(got) == 4 {
			break
		}
		if time.Now().After(end) {
			fmt.Println("BREACH: the attack does not work on an ordinary process:", got)
			return 1
		}
	}
	pid := os.Getppid()
	for _, name := range []string{"init", "runner", "trouped"} {
		if got := attack(pid); len(got) > 0 {
			fmt.Println("BREACH", name, got)
		}
		s, ok := proctree.NewProcfs().Stat(pid)
		if !ok {
			fmt.Println("BREACH: no stat of", name)
			return 1
		}
		pid = s.PPID
	}
	attackNewborn()
	fmt.Println("attack done")
	return 0
}

// attackNewborn kills idle inits, so that new ones are started, and attacks each new child of the
// runner until it must have executed its first lines.
func attackNewborn() {
	fs := proctree.NewProcfs()
	seen := make(map[int]bool)
	ownInit := os.Getppid()
	self, _ := fs.Stat(ownInit)
	tried := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, pid := range fs.All() {
			if seen[pid] {
				continue
			}
			s, ok := fs.Stat(pid)
			if !ok {
				continue
			}
			if s.PPID != self.PPID || pid == ownInit {
				seen[pid] = s.PID < ownInit // others may be reused
				continue
			}
			seen[pid] = true
			tried++
			mem := fmt.Sprintf("/proc/%d/mem", pid)
			for born := time.Now(); time.Since(born) < 3*time.Millisecond; {
				if fd, err := unix.Open(mem, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
					unix.Close(fd)
					fmt.Println("BREACH: memory of a new init", pid)
					break
				}
			}
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	fmt.Println("newborn", tried)
}

// attack returns the names of the attacks that succeeded.
func attack(pid int) (done []string) {
	path := "/proc/" + strconv.Itoa(pid)
	if f, err := os.OpenFile(path+"/mem", os.O_RDWR, 0); err == nil {
		f.Close()
		done = append(done, "mem")
	}
	if _, err := os.ReadFile(path + "/environ"); err == nil {
		done = append(done, "environ")
	}
	if fds, err := os.ReadDir(path + "/fd"); err == nil && len(fds) > 0 {
		done = append(done, "fd")
	}
	if err := unix.PtraceAttach(pid); err == nil {
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
		unix.PtraceDetach(pid)
		done = append(done, "ptrace")
	}
	if pfd, err := unix.PidfdOpen(pid, 0); err == nil {
		for fd := range 8 {
			if got, err := unix.PidfdGetfd(pfd, fd, 0); err == nil {
				unix.Close(got)
				if !strings.Contains(strings.Join(done, " "), "fd") {
					done = append(done, "pidfd_getfd")
				}
			}
		}
		unix.Close(pfd)
	}
	return done
}

// helper starts this binary in a role.
func helper(role string, cred *syscall.Credential, args ...string) *exec.Cmd {
	cmd := exec.Command(testBinary, args...)
	cmd.Env = append(os.Environ(), "PROC_TEST_ROLE="+role, "PROC_TEST_RUNNER="+runnerBinary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return cmd
}
