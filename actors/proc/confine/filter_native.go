//go:build linux && (amd64 || arm64)

package confine

import "golang.org/x/sys/unix"

// The calls by the numbers that the kernel has for this program's own architecture.
var (
	nativeCalls = append([]call{
		{nr: unix.SYS_PRLIMIT64, wants: itself},
		{nr: unix.SYS_SCHED_SETSCHEDULER, wants: itself},
		{nr: unix.SYS_SCHED_SETPARAM, wants: itself},
		{nr: unix.SYS_SCHED_SETATTR, wants: itself},
		{nr: unix.SYS_SCHED_SETAFFINITY, wants: itself},
		{nr: unix.SYS_SETPRIORITY, wants: itselfNow},
		{nr: unix.SYS_IOPRIO_SET, wants: itselfIO},
		typing(unix.SYS_IOCTL),
	}, always(unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY)...)

	nativeSysVIPC = always(unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP,
		unix.SYS_SEMCTL, unix.SYS_SEMTIMEDOP, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL)
)
