//go:build linux

package shim

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// The runner in a container of its own
//
// Normally it is the container's first process. SIGTERM does not end it while it is connected: the
// kubelet sends one to both containers of a pod at once, and commands may run for as long as
// trouped allows. When the connection closes, trouped is gone or has finished, and the runner
// exits. It does not dial again: when the first process exits, the kernel kills every other process
// in the container (pid_namespaces(7)), which none can outrun, and the next runner starts in an
// empty container. That includes processes that a user started with "kubectl exec".
//
// A child of the runner that is not an init is killed the next time an init is found dead. Such a
// child either escaped from an init that was killed, or is an orphan of a "kubectl exec"; the two
// cannot be told apart. A running "kubectl exec" has its parent outside the container and is left
// alone.
//
// https://man7.org/linux/man-pages/man7/pid_namespaces.7.html

// serveAt dials trouped, for as long as that takes, and serves it until the connection closes.
// SIGTERM ends the wait without an error.
func serveAt(path, version, cgroup string, isolation *isolation) error {
	// Never reset: without a handler, the Go runtime of a container's first process would treat a
	// SIGTERM as a crash.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	sock := dial(path, stop)
	if sock < 0 {
		fmt.Fprintln(os.Stderr, "troupe-runner: stopped while waiting for trouped")
		return nil
	}
	// Before trouped can start anything here, and until this process exits.
	if err := holdLock(path); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		pidfd = -1 // a kernel before 5.3 or a sandbox without pidfds: trouped relies on the lock alone
	}
	if err := serve(sock, pidfd, version, cgroup, isolation); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "troupe-runner: trouped closed the connection; exiting with everything that was started")
	return nil
}

// The runner dials often at first, since trouped starts at the same time and commands wait. A
// trouped that is not there after a minute will not start soon.
const (
	dialInterval     = 100 * time.Millisecond
	dialSlowInterval = time.Second
	dialSlowAfter    = time.Minute
)

// dial returns a socket that is connected to trouped, or -1 if a stop signal came first.
func dial(path string, stop <-chan os.Signal) int {
	began, wait := time.Now(), dialInterval
	for told := 0; ; {
		fd, err := dialOnce(path)
		if err == nil {
			return fd
		}
		if time.Since(began) > dialSlowAfter {
			wait = dialSlowInterval
		}
		if told == 0 || told == 1 && wait == dialSlowInterval {
			fmt.Fprintf(os.Stderr, "troupe-runner: waiting for trouped at %s: %v\n", path, err)
			told++
		}
		select {
		case <-stop:
			return -1
		case <-time.After(wait):
		}
	}
}

func dialOnce(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// holdLock takes the shared lock that tells trouped of a runner, for the rest of this process's
// life.
func holdLock(socket string) error {
	path := frame.LockPath(socket)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("%s, which trouped makes: %w", path, err)
	}
	for {
		if err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is locked by another process of this container or by another runner", path)
	}
	return os.NewSyscallError("flock", err)
}
