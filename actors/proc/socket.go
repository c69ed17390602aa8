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

// Socket mode: the runner is the first process of another container, and dials
// in. There is a socket file only while there is no runner and no command of an
// earlier one, so a command finds nothing to dial and cannot pose as a runner.
//
//   - While trouped lives, it knows the end of a runner by a pidfd that the runner
//     handed over. The connection closes earlier: a process that dies closes its
//     files first, and then, if it was the first of its PID namespace, the kernel
//     kills the others in it. The pidfd reports the end after both.
//   - A trouped that was restarted knows nothing of an earlier runner. It waits for
//     the lock that a connected runner holds.
//
// The directory has to be one in which commands cannot write; in the runner's
// container it is mounted read-only.

// openSocket listens, so that an unusable path is Open's error. With an earlier
// runner still there it listens later.
func (r *Runner) openSocket() error {
	// Trees are in another container; this is against commands that share a
	// PID namespace with trouped.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("proc: %w", os.NewSyscallError("prctl", err))
	}
	free, err := vacant(r.cfg.Socket)
	var ln *listener
	if free {
		ln, err = listen(r.cfg.Socket)
	}
	if err != nil {
		return fmt.Errorf("proc: listening for a runner on %s: %w", r.cfg.Socket, err)
	}
	r.wg.Go(func() { r.keepSocket(ln) })
	return nil
}

// keepSocket serves one runner after the other until Close. ln is nil when it
// cannot listen yet.
func (r *Runner) keepSocket(ln *listener) {
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

// vacancyPoll is how often the lock of an earlier runner is looked at.
const vacancyPoll = 50 * time.Millisecond

// listenAgain listens as soon as no runner is left; nil when Close was called.
func (r *Runner) listenAgain() *listener {
	waited := false
	for !r.closing() {
		retry := vacancyPoll
		free, err := vacant(r.cfg.Socket)
		switch {
		case err != nil:
		case !free:
			if !waited {
				r.log.Warn("waiting for the end of an earlier runner", "socket", r.cfg.Socket)
			}
			waited = true
		case waited:
			// A process that dies lets go of its locks before the kernel kills
			// the rest of its container. That needs microseconds.
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

// vacant reports whether no runner has locked the file beside the socket, which
// it makes. A runner locks it once it is connected, before it starts anything.
func vacant(socket string) (bool, error) {
	path := frame.LockPath(socket)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	// Whatever the umask is: the runner may be another user.
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
	l, in, h, err := greet(fd)
	if err != nil {
		r.log.Error("a runner connected and did not say hello", "peer_pid", cred.Pid, "peer_uid", cred.Uid, "err", err)
		return
	}
	if h.pidfd >= 0 {
		defer unix.Close(h.pidfd)
	}
	r.log.Info("runner connected", "peer_pid", cred.Pid, "peer_uid", cred.Uid, "peer_gid", cred.Gid)
	if h.PID != 1 {
		r.log.Warn("the runner is not the first process of a container: commands may outlive it when it is killed", "pid", h.PID)
	}
	r.adopt(l, h)
	if r.closing() {
		l.conn.close()
	}
	err = r.serveLink(l, in)
	r.drop(l)
	dead := r.awaitEnd(h, time.Now().Add(endPatience))
	if !r.closing() {
		r.log.Error("runner lost", "pid", h.PID, "err", err)
		r.cfg.OnEvent(RunnerEvent{Kind: RunnerLost})
	}
	if !dead && !r.closing() {
		r.log.Error("the runner lives on although its connection is closed; no other is accepted before its end", "pid", h.PID)
	}
	r.release(l)
	r.awaitEnd(h, time.Time{})
}

// endPatience is how long the clients of a lost runner's commands wait to be
// told: until these are surely dead, but not for a runner that hangs. A runner
// that is not the first process of its container takes frame.ShutdownGrace at most.
const endPatience = 2 * frame.ShutdownGrace

// awaitEnd waits until the runner is dead, and all of its PID namespace with it
// if it was the first in there, or until the deadline, if that is not zero. It
// reports whether the runner is dead.
func (r *Runner) awaitEnd(h hello, deadline time.Time) bool {
	if h.pidfd < 0 {
		return true // not to be known
	}
	for {
		// Close does not wait long, and no descriptor wakes this.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}, int(vacancyPoll.Milliseconds()))
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
	// A file left by an earlier trouped; anything else is not ours to remove.
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
	// The runner's image may run as any user. While this file exists there is
	// no command that could connect instead.
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

// accept waits for a connection. It ends when stop is closed.
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

// close removes the file first, so that nobody can dial a socket that nobody
// will accept from.
func (l *listener) close() {
	os.Remove(l.path)
	l.file.Close()
}
