//go:build linux

package confine

import "golang.org/x/sys/unix"

// tables holds x86-64 and i386. The numbers of i386 are those of
// https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_32.tbl. x32, whose
// numbers have bit 30 set, is refused: hardly any kernel is built with it.
var tables = []table{
	{arch: unix.AUDIT_ARCH_X86_64, maxNr: 1 << 30, calls: nativeCalls, sysVIPC: nativeSysVIPC},
	{
		arch: unix.AUDIT_ARCH_I386,
		calls: append([]call{
			{nr: 340, wants: itself},   // prlimit64
			{nr: 156, wants: itself},   // sched_setscheduler
			{nr: 154, wants: itself},   // sched_setparam
			{nr: 351, wants: itself},   // sched_setattr
			{nr: 241, wants: itself},   // sched_setaffinity
			{nr: 97, wants: itselfNow}, // setpriority
			{nr: 289, wants: itselfIO}, // ioprio_set
			typing(54),
		}, always(288, 286, 287)...), // keyctl, add_key, request_key
		sysVIPC: always(117, // ipc, which all of the following were once called through
			395, 397, 396, // shmget, shmat, shmctl
			393, 394, 420, // semget, semctl, semtimedop_time64
			399, 400, 401, 402), // msgget, msgsnd, msgrcv, msgctl
	},
}
