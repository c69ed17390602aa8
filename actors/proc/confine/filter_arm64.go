//go:build linux

package confine

import "golang.org/x/sys/unix"

// tables holds arm64 and 32-bit ARM. The numbers of the latter are those of
// https://github.com/torvalds/linux/blob/v6.12/arch/arm/tools/syscall.tbl.
var tables = []table{
	{arch: unix.AUDIT_ARCH_AARCH64, calls: nativeCalls, sysVIPC: nativeSysVIPC},
	{
		arch: unix.AUDIT_ARCH_ARM,
		calls: append([]call{
			{369, itself},   // prlimit64
			{156, itself},   // sched_setscheduler
			{154, itself},   // sched_setparam
			{380, itself},   // sched_setattr
			{241, itself},   // sched_setaffinity
			{97, itselfNow}, // setpriority
			{314, itselfIO}, // ioprio_set
		}, always(311, 309, 310)...), // keyctl, add_key, request_key
		sysVIPC: always(307, 305, 308, // shmget, shmat, shmctl
			299, 298, 300, 312, 420, // semget, semop, semctl, semtimedop, semtimedop_time64
			303, 301, 302, 304), // msgget, msgsnd, msgrcv, msgctl
	},
}
