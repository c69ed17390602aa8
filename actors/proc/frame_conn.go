//go:build linux

package proc

import (
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// frameConn is trouped's end of a socket to the runner, or of the two sockets to an init. Sending
// never blocks the caller: what the socket does not take at once is queued, and one goroutine per
// frameConn, started on demand, waits for room.
//
// An init has one socket for each direction because Go's poller watches a socket for both. Each
// time the init read a request, the new room would wake a thread of trouped, on a CPU that the
// command could use.
type frameConn struct {
	file *os.File // receives, in the poller
	raw  syscall.RawConn
	out  int  // sends: file's own descriptor, or one that is not in the poller
	own  bool // out is not file's

	mu       sync.Mutex
	queue    []outgoing // not empty: a flusher runs, and every frame goes through the queue
	closed   bool
	flushers sync.WaitGroup
}

type outgoing struct {
	data []byte
	fds  []int // owned
}

// maxQueued bounds the frames that wait for a peer that does not read. The socket buffer holds
// hundreds before the first waits here, so a peer that reaches the bound is stopped or hangs, and
// its supervisor will kill it.
const maxQueued = 256

// newFrameConn takes over in, and out unless that is -1; then in is used for both directions.
func newFrameConn(in, out int, name string) (*frameConn, error) {
	c := &frameConn{out: out, own: out >= 0}
	if !c.own {
		c.out = in
	}
	err := os.NewSyscallError("fcntl", unix.SetNonblock(in, true))
	if err != nil {
		unix.Close(in)
	} else {
		c.file = os.NewFile(uintptr(in), name)
		if c.raw, err = c.file.SyscallConn(); err != nil {
			c.file.Close()
		}
	}
	if err != nil {
		c.closeOut()
		return nil, err
	}
	return c, nil
}

func (c *frameConn) closeOut() {
	if c.own {
		unix.Close(c.out)
	}
}

// send writes a frame, or queues what does not fit. Once it returns nil, the frameConn owns fds. On
// an error nothing was sent.
func (c *frameConn) send(data []byte, fds ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return os.ErrClosed
	}
	if len(c.queue) > 0 {
		if len(c.queue) >= maxQueued {
			return unix.EAGAIN
		}
		c.queue = append(c.queue, outgoing{data, fds})
		return nil
	}
	out := outgoing{data, fds}
	err := out.write(c.out)
	switch {
	case err == unix.EAGAIN:
		c.queue = append(c.queue, out)
		c.flushers.Go(c.flush)
		return nil
	case err != nil && len(out.data) < len(data):
		return nil // the peer died while it was reading, which the receiver notices
	}
	return err
}

// write sends as much as the socket takes at once.
func (o *outgoing) write(fd int) error {
	for len(o.data) > 0 {
		var oob []byte
		if len(o.fds) > 0 {
			oob = unix.UnixRights(o.fds...)
		}
		n, err := unix.SendmsgN(fd, o.data, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		o.data = o.data[n:]
		frame.CloseAll(o.fds)
		o.fds = nil
	}
	return nil
}

// flush sends the queue. close ends it.
func (c *frameConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		// A copy, since the queue may grow and move meanwhile. Its place stays taken, so that no
		// other frame overtakes it.
		out := c.queue[0]
		c.queue[0] = outgoing{}
		c.mu.Unlock()
		err := out.write(c.out)
		for err == unix.EAGAIN {
			// This blocks a thread, but only while the peer does not read.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.out), Events: unix.POLLOUT}}, -1)
			err = out.write(c.out)
		}
		c.mu.Lock()
		if err != nil {
			for _, o := range append(c.queue, out) {
				frame.CloseAll(o.fds)
			}
			c.queue = nil
			return
		}
		c.queue = c.queue[1:]
	}
}

// recv is the receive function for a frame.Receiver.
func (c *frameConn) recv(p, oob []byte) (n, oobn int, err error) {
	rawErr := c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), p, oob, unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case rawErr != nil:
		return 0, 0, rawErr
	case err != nil:
		return 0, 0, err
	case n == 0:
		return 0, 0, io.EOF
	}
	return n, oobn, nil
}

// close ends the flusher and closes the socket.
func (c *frameConn) close() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		return
	}
	_ = unix.Shutdown(c.out, unix.SHUT_RDWR) // wakes the flusher
	c.flushers.Wait()
	c.file.Close()
	c.closeOut()
}
