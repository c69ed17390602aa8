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
			{nr: 369, wants: itself},   // prlimit64
			{nr: 156, wants: itself},   // sched_setscheduler
			{nr: 154, wants: itself},   // sched_setparam
			{nr: 380, wants: itself},   // sched_setattr
			{nr: 241, wants: itself},   // sched_setaffinity
			{nr: 97, wants: itselfNow}, // setpriority
			{nr: 314, wants: itselfIO}, // ioprio_set
			typing(54),
		}, always(311, 309, 310)...), // keyctl, add_key, request_key
		sysVIPC: always(307, 305, 308, // shmget, shmat, shmctl
			299, 298, 300, 312, 420, // semget, semop, semctl, semtimedop, semtimedop_time64
			303, 301, 302, 304), // msgget, msgsnd, msgrcv, msgctl
	},
}
