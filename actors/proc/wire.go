//go:build linux

package proc

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A frame is one byte of kind, four bytes of length (little endian) and a
// body. Binary and not JSON because the body of a start frame is an argv and
// an environment, which need not be UTF-8, and because it is on the path of
// every command.
const (
	frameHeader = 5
	maxFrame    = 8 << 20 // Linux refuses an argv and environment of over 6 MiB in any case
)

// kind says what a frame is. Each is documented "sender → receiver".
type kind byte

const (
	kindStart     kind = iota + 1 // trouped → init: run this; carries the stdio descriptors
	kindSignal                    // trouped → init: signal the command's process group
	kindTerminate                 // trouped → init: SIGTERM to the tree
	kindPause                     // trouped → init
	kindResume                    // trouped → init
	kindSweep                     // trouped → init: kill what outlived the command
	kindKill                      // trouped → init: kill everything

	kindReady       // init → trouped: untraced and waiting for a command
	kindStarted     // init → trouped
	kindStartFailed // init → trouped; the init is idle again
	kindPaused      // init → trouped
	kindResumed     // init → trouped
	kindExited      // init → trouped
	kindDead        // init → trouped; the init is idle again

	kindHello      // runner → trouped: first frame of a runner; carries a pidfd of it if it says so
	kindInit       // runner → trouped: a new init; carries trouped's ends of its sockets, events first
	kindInitFailed // runner → trouped: an init could not be started
	kindSwept      // runner → trouped: this init is gone and nothing that was below it lives
	kindKills      // runner → trouped: so many processes were killed for memory until a second ago
	kindWant       // trouped → runner: start so many inits
	kindForce      // trouped → runner: this init does not answer; kill it and all below it
)

// encoder builds one frame. Its zero value is not usable; see frame.
type encoder []byte

func frame(k kind) encoder { return append(make(encoder, 0, 64), byte(k), 0, 0, 0, 0) }

func (e encoder) uint(v uint64) encoder { return binary.AppendUvarint(e, v) }
func (e encoder) int(v int64) encoder   { return binary.AppendVarint(e, v) }

func (e encoder) string(s string) encoder {
	return append(binary.AppendUvarint(e, uint64(len(s))), s...)
}

func (e encoder) strings(list []string) encoder {
	e = e.uint(uint64(len(list)))
	for _, s := range list {
		e = e.string(s)
	}
	return e
}

func (e encoder) bool(b bool) encoder {
	if b {
		return append(e, 1)
	}
	return append(e, 0)
}

// done fills in the length.
func (e encoder) done() []byte {
	binary.LittleEndian.PutUint32(e[1:], uint32(len(e)-frameHeader))
	return e
}

var errFrame = errors.New("malformed frame")

// decoder reads a body. The first error sticks, and every later read is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return advance(d, v, n)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	return advance(d, v, n)
}

func advance[T uint64 | int64](d *decoder, v T, n int) T {
	if n <= 0 || d.err != nil {
		d.err = errFrame
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uint()
	if d.err != nil || n > uint64(len(d.b)) {
		d.err = errFrame
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) strings() []string {
	n := d.uint()
	if d.err != nil || n > uint64(len(d.b)) { // each takes a byte at least
		d.err = errFrame
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder) bool() bool { return d.uint() != 0 }

// receiver splits a stream into frames and collects the descriptors that
// travel with it.
type receiver struct {
	recv func(p, oob []byte) (n, oobn int, err error)
	buf  []byte
	r, w int
	fds  []int
	oob  []byte
}

// maxPassed is the most descriptors that travel with one frame: stdin, stdout
// and stderr of a start.
const maxPassed = 3

func newReceiver(recv func(p, oob []byte) (n, oobn int, err error)) *receiver {
	return &receiver{recv: recv, buf: make([]byte, 1024), oob: make([]byte, unix.CmsgSpace(maxPassed*4))}
}

// next returns the next frame. The body is valid until the next call.
func (r *receiver) next() (kind, []byte, error) {
	for {
		if have := r.buf[r.r:r.w]; len(have) >= frameHeader {
			n := int(binary.LittleEndian.Uint32(have[1:])) + frameHeader
			if n > maxFrame {
				return 0, nil, errFrame
			}
			if len(have) >= n {
				r.r += n
				return kind(have[0]), have[frameHeader:n], nil
			}
			r.grow(n)
		} else {
			r.grow(frameHeader)
		}
		n, oobn, err := r.recv(r.buf[r.w:], r.oob)
		if err != nil {
			return 0, nil, err
		}
		r.w += n
		if oobn > 0 {
			r.keep(r.oob[:oobn])
		}
	}
}

// grow makes room for a frame of n bytes at r.r.
func (r *receiver) grow(n int) {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.r+n <= len(r.buf) && r.w < len(r.buf) {
		return
	}
	buf := r.buf
	if n > len(buf) {
		buf = make([]byte, n+1024)
	}
	r.w = copy(buf, r.buf[r.r:r.w])
	r.r, r.buf = 0, buf
}

func (r *receiver) keep(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			r.fds = append(r.fds, fds...)
		}
	}
}

// take hands over the first n descriptors that have come.
func (r *receiver) take(n int) ([]int, error) {
	if n > len(r.fds) {
		return nil, errFrame
	}
	fds := append([]int(nil), r.fds[:n]...)
	r.fds = r.fds[:copy(r.fds, r.fds[n:])]
	return fds, nil
}

// recvBlocking receives from a blocking socket; errHangup when the other side
// closed it.
func recvBlocking(fd int) func(p, oob []byte) (int, int, error) {
	return func(p, oob []byte) (int, int, error) {
		for {
			n, oobn, _, _, err := unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC)
			if err == unix.EINTR {
				continue
			}
			if err == nil && n == 0 {
				err = errHangup
			}
			return n, oobn, err
		}
	}
}

// errHangup: the other side closed the socket.
var errHangup = errors.New("connection closed")

// sendBlocking writes a whole frame to a blocking socket.
func sendBlocking(fd int, b []byte, fds ...int) error {
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
