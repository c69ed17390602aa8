//go:build linux

package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Size is the size of a terminal, in characters.
type Size struct{ Cols, Rows int }

func (s Size) kernel() *unix.Winsize {
	return &unix.Winsize{Col: uint16(s.Cols), Row: uint16(s.Rows)}
}

// openTerminal makes the terminal of one command. remote is the command's end.
//
// trouped opens it, not the runner. Where the runner has a container of its own, the terminal is
// thereby in trouped's devpts: no command can open it by its name in /dev/pts, and only those that
// inherit it have it. For the same reason ttyname(3) does not find its name there.
func openTerminal(size Size) (local *Stdio, remote []int, err error) {
	local = &Stdio{}
	defer func() {
		if err != nil {
			local.close()
			err = fmt.Errorf("making a terminal: %w", err)
		}
	}()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return local, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	if local.Stdout, err = newPipe(master); err != nil {
		return local, nil, err
	}
	// A descriptor of its own, so that closing it ends a write that the terminal has no room for, and
	// reading goes on.
	input, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return local, nil, os.NewSyscallError("fcntl", err)
	}
	local.Stdin = os.NewFile(uintptr(input), "terminal")
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return local, nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, size.kernel()); err != nil {
		return local, nil, os.NewSyscallError("TIOCSWINSZ", err)
	}
	slave, err := openSlave(master)
	if err != nil {
		return local, nil, err
	}
	return local, []int{slave}, nil
}

// openSlave opens the command's end, which must not become trouped's controlling terminal.
func openSlave(master int) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		return -1, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	slave := int(fd)
	mode, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	if err == nil {
		mode.Iflag |= unix.IUTF8 // so that the erase character erases whole characters
		err = unix.IoctlSetTermios(slave, unix.TCSETS, mode)
	}
	if err != nil {
		unix.Close(slave)
		return -1, os.NewSyscallError("TCSETS", err)
	}
	return slave, nil
}

// Resize gives a terminal another size. Its foreground process group gets SIGWINCH if that is news.
// It fails for a pipe, and once the terminal is closed.
func (p *Pipe) Resize(size Size) error {
	var ioErr error
	err := p.raw.Control(func(fd uintptr) {
		ioErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size.kernel())
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("TIOCSWINSZ", ioErr)
}
