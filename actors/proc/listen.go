//go:build linux

package proc

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Socket mode: the runner is the first process of another container, and dials
// in. There is a socket file only while there is no runner, which is when
// there are no commands either: when that container's first process dies, the
// kernel kills all of it before trouped sees the connection close. So a
// command finds nothing to dial, and cannot pose as a runner.

// openSocket listens, so that an unusable path is Open's error.
func (r *Runner) openSocket() error {
	// Trees are in another container; this is against commands that share a
	// PID namespace with trouped.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("proc: %w", os.NewSyscallError("prctl", err))
	}
	ln, err := listen(r.cfg.Socket)
	if err != nil {
		return fmt.Errorf("proc: listening for a runner on %s: %w", r.cfg.Socket, err)
	}
	r.wg.Go(func() { r.keepSocket(ln) })
	return nil
}

// keepSocket serves one runner after the other until Close.
func (r *Runner) keepSocket(ln *listener) {
	for {
		fd, err := ln.accept(r.stop)
		ln.close()
		if err == nil {
			r.serveSocket(fd)
		} else if !r.closing() {
			r.log.Error("cannot accept a runner", "err", err)
		}
		for ln = nil; ln == nil; {
			if r.closing() {
				return
			}
			if ln, err = listen(r.cfg.Socket); err != nil {
				r.log.Error("cannot listen for a runner", "err", err, "retry_in", maxBackoff)
				select {
				case <-r.stop:
				case <-time.After(maxBackoff):
				}
			}
		}
	}
}

// serveSocket serves one runner until its connection closes.
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
	r.log.Info("runner connected", "peer_pid", cred.Pid, "peer_uid", cred.Uid, "peer_gid", cred.Gid)
	r.adopt(l, h)
	if r.closing() {
		l.conn.close()
	}
	err = r.serveLink(l, in)
	r.drop(l)
	if !r.closing() {
		r.log.Error("runner lost", "pid", h.pid, "err", err)
		r.cfg.OnEvent(RunnerEvent{Kind: RunnerLost})
	}
	r.release(l)
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
