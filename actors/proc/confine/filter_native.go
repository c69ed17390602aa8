//go:build linux && (amd64 || arm64)

package confine

import "golang.org/x/sys/unix"

// The calls by the numbers that the kernel has for this program's own architecture.
var (
	nativeCalls = append([]call{
		{unix.SYS_PRLIMIT64, itself},
		{unix.SYS_SCHED_SETSCHEDULER, itself},
		{unix.SYS_SCHED_SETPARAM, itself},
		{unix.SYS_SCHED_SETATTR, itself},
		{unix.SYS_SCHED_SETAFFINITY, itself},
		{unix.SYS_SETPRIORITY, itselfNow},
		{unix.SYS_IOPRIO_SET, itselfIO},
	}, always(unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY)...)

	nativeSysVIPC = always(unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMOP,
		unix.SYS_SEMCTL, unix.SYS_SEMTIMEDOP, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL)
)
