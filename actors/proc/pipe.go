//go:build linux

package proc

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/turn"
)

// Pipe is trouped's end of a command's stdout or stderr, or of its terminal.
//
// It is not os/exec's: with StdoutPipe, Wait closes the read end as soon as the command exits, and
// unread output is lost (https://pkg.go.dev/os/exec#Cmd.StdoutPipe).
type Pipe struct {
	f    *os.File
	raw  syscall.RawConn
	read func(fd uintptr) bool // tryRead, made once
	look func(fd uintptr) bool // tryRead, but done even if there is nothing to read

	// Of the Read in progress.
	buf []byte
	n   int
	err error

	// A pipe from which much is read is read in turns, or requests wait behind a hundred commands
	// that print all they can.
	turn   turn.Turn
	little turn.Allowance
	loud   bool // it has exceeded little
}

func newPipe(fd int) (*Pipe, error) {
	p := &Pipe{f: os.NewFile(uintptr(fd), "output")}
	p.read = p.tryRead
	p.look = func(fd uintptr) bool {
		p.tryRead(fd)
		return true
	}
	var err error
	p.raw, err = p.f.SyscallConn()
	return p, err
}

// ErrPipeEmpty is returned by ReadNow when there is nothing to read yet.
var ErrPipeEmpty = errors.New("the pipe is empty")

// Read reads the command's output. It returns io.EOF when every write end is closed, that is when
// the last process that inherited one is gone, not when the command exits. It is for one goroutine
// at a time.
func (p *Pipe) Read(b []byte) (int, error) { return p.readWith(p.read, b) }

// ReadNow is Read for a pipe that has output. If it has none, ReadNow returns ErrPipeEmpty instead
// of waiting.
func (p *Pipe) ReadNow(b []byte) (int, error) { return p.readWith(p.look, b) }

func (p *Pipe) readWith(try func(fd uintptr) bool, b []byte) (int, error) {
	p.buf, p.n, p.err = b, 0, nil
	err := p.raw.Read(try)
	p.buf = nil
	switch {
	case err != nil:
		return 0, err
	case p.err == unix.EAGAIN:
		return 0, ErrPipeEmpty
	case p.err == unix.EIO: // a terminal that no process has open any more
		return 0, io.EOF
	case p.err != nil:
		return 0, os.NewSyscallError("read", p.err)
	case p.n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return p.n, nil
}

// tryRead reports false if there is nothing to read yet.
func (p *Pipe) tryRead(fd uintptr) bool {
	if p.loud {
		p.turn.Take(turn.Output)
		defer p.turn.GiveBack()
	}
	for {
		p.n, p.err = unix.Read(int(fd), p.buf)
		if p.err != unix.EINTR {
			p.loud = p.little.Exceeds(max(p.n, 0))
			return p.err != unix.EAGAIN
		}
	}
}

// SetReadDeadline works as for a net.Conn.
func (p *Pipe) SetReadDeadline(t time.Time) error { return p.f.SetReadDeadline(t) }

// Close closes this end. A process that writes afterwards gets SIGPIPE.
func (p *Pipe) Close() error { return p.f.Close() }

// Grow makes room for size bytes in the pipe, so that the command can run ahead of its reader by that
// much. Where the kernel refuses, the pipe stays as it is: the pipes of a user without
// CAP_SYS_RESOURCE have a limit together (pipe(7), pipe-user-pages-soft).
func (p *Pipe) Grow(size int) {
	_ = p.raw.Control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil && n < size {
			_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size)
		}
	})
}

// Pending returns the number of bytes that can be read without waiting.
func (p *Pipe) Pending() (int, error) {
	var n int
	var ioErr error
	err := p.raw.Control(func(fd uintptr) { n, ioErr = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(err, ioErr)
}

// Stdio is trouped's end of a command's standard streams. The caller owns it once Start has
// returned, and must close every member whether or not the command starts.
type Stdio struct {
	Stdin          *os.File // nil unless Spec.Stdin or Spec.Terminal
	Stdout, Stderr *Pipe    // of a terminal, Stdout has all output and Stderr is nil
}

// stdioPipes makes the pipes of one command. remote are the command's ends, in the order stdin (if
// asked for), stdout, stderr.
func stdioPipes(stdin bool) (local *Stdio, remote []int, err error) {
	local = &Stdio{}
	defer func() {
		if err == nil {
			return
		}
		frame.CloseAll(remote)
		local.close()
	}()
	if stdin {
		r, w, err := halfPipe(false)
		if err != nil {
			return local, remote, err
		}
		remote = append(remote, r)
		local.Stdin = os.NewFile(uintptr(w), "stdin")
	}
	for _, dst := range []**Pipe{&local.Stdout, &local.Stderr} {
		r, w, err := halfPipe(true)
		if err != nil {
			return local, remote, err
		}
		remote = append(remote, w)
		if *dst, err = newPipe(r); err != nil {
			return local, remote, err
		}
	}
	return local, remote, nil
}

// halfPipe makes a pipe of which only trouped's end is non-blocking. Each end is an open file
// description with its own O_NONBLOCK. A command whose stdout is non-blocking would lose output to
// EAGAIN.
func halfPipe(read bool) (r, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	ours, mode := p[1], uint32(0o644)
	if read {
		ours, mode = p[0], 0o622
	}
	// A runner in a container of its own is another user, whose commands open the pipe once more when
	// they open /dev/stdin, /dev/stdout or /dev/stderr. A new pipe is for its maker only.
	if err := unix.Fchmod(ours, mode); err != nil {
		frame.CloseAll(p[:])
		return -1, -1, os.NewSyscallError("fchmod", err)
	}
	if _, err := unix.FcntlInt(uintptr(ours), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		frame.CloseAll(p[:])
		return -1, -1, os.NewSyscallError("fcntl", err)
	}
	return p[0], p[1], nil
}

func (s *Stdio) close() {
	if s.Stdin != nil {
		s.Stdin.Close()
	}
	for _, p := range []*Pipe{s.Stdout, s.Stderr} {
		if p != nil {
			p.Close()
		}
	}
}
