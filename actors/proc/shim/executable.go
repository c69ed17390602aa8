//go:build linux

package shim

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// initExecutable returns the file to execute as an init.
//
// Between execve and the first line of main, other processes of the same user can trace a process
// and open its memory, unless that user may not read its binary: then the kernel makes the process
// non-dumpable from the start (would_dump in fs/exec.c). If this binary is readable, inits are
// therefore executed from a copy in memory that is not. Root can read every file, and nothing
// protects an init from root.
//
// https://github.com/torvalds/linux/blob/v6.12/fs/exec.c
func initExecutable() (string, error) {
	const self = "/proc/self/exe"
	if unix.Geteuid() == 0 || unix.Faccessat(unix.AT_FDCWD, self, unix.R_OK, unix.AT_EACCESS) != nil {
		return self, nil
	}
	const mfdExec = 0x10 // MFD_EXEC; kernels before 6.3 refuse it
	fd, err := unix.MemfdCreate("troupe-init", unix.MFD_CLOEXEC|mfdExec)
	if err != nil {
		fd, err = unix.MemfdCreate("troupe-init", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return self, nil // as safe as this kernel allows
	}
	src, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer src.Close()
	dst := os.NewFile(uintptr(fd), "troupe-init")
	if _, err := io.Copy(dst, src); err != nil {
		return "", fmt.Errorf("copying the init: %w", err)
	}
	// A file that is open for writing cannot be executed (ETXTBSY, execve(2)), so it is opened
	// again for reading, before its mode forbids that.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	if err := dst.Chmod(0o111); err != nil {
		return "", err
	}
	dst.Close()
	keep, err := unix.FcntlInt(again.Fd(), unix.F_DUPFD_CLOEXEC, 10)
	again.Close()
	if err != nil {
		return "", os.NewSyscallError("fcntl", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", keep), nil
}
