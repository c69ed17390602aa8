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

// The runner of a container of its own
//
// It is the container's first process, as a rule. SIGTERM does not end it while
// it is connected: the kubelet sends one to both containers of a pod at once,
// and commands may run for as long as trouped lets them. When the connection
// closes, trouped is gone, or done, and so is the runner. It does not dial
// again: with the first process the kernel ends every other in the container,
// which nothing can outrun, and what comes next starts in an empty one. That
// goes for processes that somebody brought in with "kubectl exec", too.
//
// A child of the runner that is no init is killed when an init is next found
// dead. Such a child escaped from an init that was killed, or it is an orphan of
// a "kubectl exec"; nothing tells the two apart. What runs below a living
// "kubectl exec" has a parent outside the container and is left alone.

// serveAt dials trouped, however long that takes, and serves it until the
// connection closes. SIGTERM ends the wait, with no error.
func serveAt(path, version, cgroup string) error {
	// For good: as the first process of a container, the runtime would take a
	// SIGTERM that nobody asked for as a crash.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	sock := dial(path, stop)
	if sock < 0 {
		fmt.Fprintln(os.Stderr, "troupe-runner: told to end while waiting for trouped")
		return nil
	}
	// Before trouped can start anything here, and for as long as this lives.
	if err := occupy(path); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		pidfd = -1 // a kernel or a sandbox without them: the lock has to do
	}
	if err := serve(sock, pidfd, version, cgroup); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "troupe-runner: trouped has closed the connection; ending with everything that was started")
	return nil
}

// Dialling: often at first, since trouped starts at the same time as the
// runner and commands wait; then slower, since a trouped that is not there
// after a minute is not about to come.
const (
	dialOften   = 100 * time.Millisecond
	dialSeldom  = time.Second
	dialPatient = time.Minute
)

// dial returns a socket that is connected to trouped, or -1 if stop came first.
func dial(path string, stop <-chan os.Signal) int {
	began, wait := time.Now(), dialOften
	for told := 0; ; {
		fd, err := dialOnce(path)
		if err == nil {
			return fd
		}
		if time.Since(began) > dialPatient {
			wait = dialSeldom
		}
		if told == 0 || told == 1 && wait == dialSeldom {
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

// occupy locks that file, shared, for the rest of this process's life.
func occupy(socket string) error {
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
		return fmt.Errorf("%s is locked by another process of this container, or by another runner", path)
	}
	return os.NewSyscallError("flock", err)
}
