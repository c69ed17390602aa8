//go:build linux

package proc

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Socket mode: the runner is the first process of another container, and dials trouped. The socket
// file exists only while there is neither a runner nor a command of an earlier one, so no command
// can dial it and pose as a runner.
//
//   - While trouped lives, it learns of the runner's end from a pidfd that the runner handed over.
//     The connection closes earlier: a dying process first closes its files and then, if it was the
//     first of its PID namespace, kills the others in it (do_exit calls exit_files before
//     exit_notify). The pidfd becomes readable after both.
//   - A restarted trouped knows nothing of an earlier runner. It waits for the lock that a
//     connected runner holds.
//
// Commands must not be able to write to the directory. In the runner's container it is mounted
// read-only.
//
// https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c

// openSocket listens, so that Open fails if the path is unusable. While an earlier runner is still
// there, it listens later.
func (r *Runner) openSocket() error {
	// Trees are normally in another container. This protects trouped from commands that share its
	// PID namespace.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("proc: %w", os.NewSyscallError("prctl", err))
	}
	free, err := lockIsFree(r.cfg.Socket)
	var ln *listener
	if free {
		ln, err = listen(r.cfg.Socket)
	}
	if err != nil {
		return fmt.Errorf("proc: listening for a runner on %s: %w", r.cfg.Socket, err)
	}
	r.wg.Go(func() { r.superviseSocket(ln) })
	return nil
}

// superviseSocket serves one runner after the other until Close. ln is nil if it cannot listen yet.
func (r *Runner) superviseSocket(ln *listener) {
	for {
		if ln == nil {
			if ln = r.listenAgain(); ln == nil {
				return // closing
			}
		}
		fd, err := ln.accept(r.stop)
		ln.close()
		ln = nil
		if err == nil {
			r.serveSocket(fd)
		} else if !r.closing() {
			r.log.Error("cannot accept a runner", "err", err)
		}
	}
}

// lockPollInterval is how often trouped tries the lock of an earlier runner.
const lockPollInterval = 50 * time.Millisecond

// listenAgain listens as soon as no runner is left. It returns nil once Close was called.
func (r *Runner) listenAgain() *listener {
	waited := false
	for !r.closing() {
		retry := lockPollInterval
		free, err := lockIsFree(r.cfg.Socket)
		switch {
		case err != nil:
		case !free:
			if !waited {
				r.log.Warn("waiting for an earlier runner to end", "socket", r.cfg.Socket)
			}
			waited = true
		case waited:
			// A dying process releases its locks before the kernel kills the rest of its container,
			// microseconds later.
			waited = false
		default:
			var ln *listener
			if ln, err = listen(r.cfg.Socket); err == nil {
				return ln
			}
		}
		if err != nil {
			retry = maxBackoff
			r.log.Error("cannot listen for a runner", "err", err, "retry_in", retry)
		}
		select {
		case <-r.stop:
		case <-time.After(retry):
		}
	}
	return nil
}

// lockIsFree creates the lock file beside the socket if it is missing, and reports whether no
// runner has locked it. A runner locks it after it has connected and before it starts anything.
func lockIsFree(socket string) (bool, error) {
	path := frame.LockPath(socket)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	// Regardless of the umask: the runner may be another user.
	if err := unix.Fchmod(fd, 0o644); err != nil {
		return false, &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return true, nil
	case unix.EWOULDBLOCK:
		return false, nil
	default:
		return false, &os.PathError{Op: "flock", Path: path, Err: err}
	}
}

// serveSocket serves one runner until it is dead.
func (r *Runner) serveSocket(fd int) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		cred = &unix.Ucred{}
	}
	rc, err := readHello(fd)
	if err != nil {
		r.log.Error("a runner connected but did not say hello",
			"peer_pid", cred.Pid, "peer_uid", cred.Uid, "err", err)
		return
	}
	h := &rc.hello
	if h.pidfd >= 0 {
		defer unix.Close(h.pidfd)
	}
	r.log.Info("runner connected", "peer_pid", cred.Pid, "peer_uid", cred.Uid, "peer_gid", cred.Gid)
	if h.PID != 1 {
		r.log.Warn("the runner is not the first process of a container: commands may outlive it when it is killed",
			"pid", h.PID)
	}
	rc.uid = int(cred.Uid)
	r.adopt(rc)
	if r.closing() {
		rc.conn.close()
	}
	err = r.serveRunner(rc)
	r.disconnect(rc)
	dead := r.awaitEnd(h, time.Now().Add(endTimeout))
	if !r.closing() {
		r.log.Error("runner lost", "pid", h.PID, "err", err)
		r.cfg.OnEvent(RunnerEvent{Kind: RunnerLost})
	}
	if !dead && !r.closing() {
		r.log.Error("the runner is alive although its connection is closed; no other is accepted until it ends",
			"pid", h.PID)
	}
	r.endTrees(rc)
	r.awaitEnd(h, time.Time{})
}

// endTimeout is how long trouped waits for a lost runner to die before it reports the runner's
// trees as dead. A runner that is not the first process of its container takes frame.ShutdownGrace
// at most. One that hangs must not keep clients waiting.
const endTimeout = 2 * frame.ShutdownGrace

// awaitEnd waits until the runner is dead, and with it its whole PID namespace if it was the first
// process there. It stops at the deadline, unless that is zero, and at Close. It reports whether
// the runner is dead.
func (r *Runner) awaitEnd(h *hello, deadline time.Time) bool {
	if h.pidfd < 0 {
		return true // unknown
	}
	for {
		// A short timeout, since Close has no descriptor to wake this with.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}, int(lockPollInterval.Milliseconds()))
		if n > 0 || err != nil && err != unix.EINTR {
			return true
		}
		if r.closing() || !deadline.IsZero() && time.Now().After(deadline) {
			return false
		}
	}
}

// listener accepts one connection on a unix socket.
type listener struct {
	path string
	file *os.File
}

func listen(path string) (*listener, error) {
	// Remove a socket that an earlier trouped left, and nothing else.
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		os.Remove(path)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	l := &listener{path: path, file: os.NewFile(uintptr(fd), path)}
	// The runner's container may run as any user. While this file exists there is no command that
	// could connect instead.
	if err := os.Chmod(path, 0o666); err != nil {
		l.close()
		return nil, err
	}
	if err := unix.Listen(fd, 1); err != nil {
		l.close()
		return nil, os.NewSyscallError("listen", err)
	}
	return l, nil
}

// accept waits for a connection, or until stop is closed.
func (l *listener) accept(stop <-chan struct{}) (int, error) {
	done := make(chan struct{})
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		select {
		case <-stop:
			_ = l.file.SetReadDeadline(time.Unix(1, 0))
		case <-done:
		}
	}()
	defer func() { close(done); <-watcher }()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var acceptErr error
	err = raw.Read(func(s uintptr) bool {
		fd, _, acceptErr = unix.Accept4(int(s), unix.SOCK_CLOEXEC)
		return acceptErr != unix.EAGAIN && acceptErr != unix.EINTR && acceptErr != unix.ECONNABORTED
	})
	return fd, errors.Join(err, acceptErr)
}

// close removes the file first, so that no process dials a socket from which trouped will not
// accept.
func (l *listener) close() {
	os.Remove(l.path)
	l.file.Close()
}
