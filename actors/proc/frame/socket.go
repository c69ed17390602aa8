//go:build linux

package frame

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// RecvBlocking returns a function for a Receiver that receives from a blocking socket. It returns
// io.EOF when the other side has closed the socket.
func RecvBlocking(fd int) func(p, oob []byte) (int, int, error) {
	return func(p, oob []byte) (int, int, error) {
		for {
			n, oobn, _, _, err := unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC)
			if err == unix.EINTR {
				continue
			}
			if err == nil && n == 0 {
				err = io.EOF
			}
			return n, oobn, err
		}
	}
}

// SendBlocking sends a whole frame, with descriptors, on a blocking socket.
func SendBlocking(fd int, b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		b, oob = b[n:], nil
	}
	return nil
}

// Socketpair makes a connected pair of blocking sockets.
func Socketpair() (ours, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	return p[0], p[1], nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
