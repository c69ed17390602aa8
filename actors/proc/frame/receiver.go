//go:build linux

package frame

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Receiver splits a stream into frames and collects the descriptors that travel with them.
type Receiver struct {
	recv func(p, oob []byte) (n, oobn int, err error)
	buf  []byte
	r, w int // buf[r:w] is received and not returned
	fds  []int
	oob  []byte
}

// maxPassed is the largest number of descriptors that travel with one frame: three sockets, a
// directory and six files of a clone.
const maxPassed = 10

// NewReceiver returns a Receiver that reads with recv, see recvmsg(2).
func NewReceiver(recv func(p, oob []byte) (n, oobn int, err error)) *Receiver {
	return &Receiver{recv: recv, buf: make([]byte, 1024), oob: make([]byte, unix.CmsgSpace(maxPassed*4))}
}

// Next returns the next frame. The body is valid until the next call.
func (r *Receiver) Next() (Kind, []byte, error) {
	for {
		if have := r.buf[r.r:r.w]; len(have) >= headerSize {
			n := int(binary.LittleEndian.Uint32(have[1:])) + headerSize
			if n > MaxSize {
				return 0, nil, ErrMalformed
			}
			if len(have) >= n {
				r.r += n
				return Kind(have[0]), have[headerSize:n], nil
			}
			r.grow(n)
		} else {
			r.grow(headerSize)
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
func (r *Receiver) grow(n int) {
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

func (r *Receiver) keep(oob []byte) {
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

// Take returns the first n descriptors that have arrived. The caller owns them.
func (r *Receiver) Take(n int) ([]int, error) {
	if n > len(r.fds) {
		return nil, ErrMalformed
	}
	fds := append([]int(nil), r.fds[:n]...)
	r.fds = r.fds[:copy(r.fds, r.fds[n:])]
	return fds, nil
}

// Buffered reports whether Next has received bytes that it has not returned.
func (r *Receiver) Buffered() bool { return r.r != r.w }

// Discard closes the descriptors that were not taken.
func (r *Receiver) Discard() {
	CloseAll(r.fds)
	r.fds = nil
}
