//go:build linux

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// int80 makes a system call of i386, which has numbers of its own: a filter that knows only those of
// x86-64 does not stop it.
func int80(nr, a, b, c, d uintptr) int32

func i386(nr, a, b, c, d uintptr) (int32, error) {
	// Without the emulation the instruction ends the process.
	if _, err := os.Stat("/proc/sys/abi/vsyscall32"); err != nil {
		return 0, unix.ENOSYS
	}
	r := int80(nr, a, b, c, d)
	if r < 0 && r >= -4095 {
		return 0, syscall.Errno(-r)
	}
	return r, nil
}

// Calls of https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_32.tbl.
func i386Attempts() []attempt {
	return []attempt{
		{"i386: prlimit64", func(v *victim) error { _, err := i386(340, uintptr(v.PID), unix.RLIMIT_NOFILE, 0, 0); return err }},
		{"i386: prlimit64 of the runner", func(v *victim) error {
			_, err := i386(340, uintptr(v.Runner), unix.RLIMIT_NOFILE, 0, 0)
			return err
		}},
		{"i386: setpriority", func(v *victim) error { _, err := i386(97, unix.PRIO_PROCESS, uintptr(v.PID), 6, 0); return err }},
		{"i386: ioprio_set", func(v *victim) error { _, err := i386(289, 1, uintptr(v.PID), 2<<13|7, 0); return err }},
		{"i386: kill", func(v *victim) error { _, err := i386(37, uintptr(v.PID), 0, 0, 0); return err }},
		{"i386: keyctl", func(*victim) error {
			keyring := unix.KEY_SPEC_USER_KEYRING
			_, err := i386(288, unix.KEYCTL_GET_KEYRING_ID, uintptr(keyring), 1, 0)
			return err
		}},
		{"i386: shmget through ipc", func(*victim) error {
			id, err := i386(117, 23, unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
			if err == nil {
				_, err = i386(117, 24, uintptr(id), unix.IPC_RMID, 0)
			}
			return err
		}},
		{"i386: shmget", func(*victim) error {
			id, err := i386(395, unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600, 0)
			if err == nil {
				_, err = i386(396, uintptr(id), unix.IPC_RMID, 0, 0)
			}
			return err
		}},
	}
}
