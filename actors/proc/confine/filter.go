//go:build linux

package confine

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter
//
// It answers EPERM to the system calls with which a process changes another one of the same user
// and that ask no security module: limits, scheduling and priorities. Applied to oneself, with pid
// 0, they stay allowed. With prlimit alone, any command could close the runner's descriptors or have
// the kernel kill it. Keyrings belong to the user, and System V IPC to all sessions of a container.
//
// It also denies TIOCSTI, with which a process types into its terminal: what it types is run by
// whoever reads there next, such as the shell behind sudo
// (https://man7.org/linux/man-pages/man2/TIOCSTI.2const.html).
//
// The filter cannot tell a thread of one's own process from another process, so that it also denies
// pthread_setaffinity_np and pthread_setschedparam, which name the thread.

// want is a value that an argument of a system call must have. The kernel takes the arguments in
// question as 32-bit integers.
type want struct {
	arg   uint8
	value uint32
}

// call is a system call that is denied unless its arguments are as wanted. Without any it is always
// denied. With never, it is denied if that argument has that value, and wants is nil.
type call struct {
	nr    uint32
	wants []want
	never *want
}

// table holds the calls of one architecture.
type table struct {
	arch    uint32 // AUDIT_ARCH_...
	maxNr   uint32 // numbers from here on belong to another ABI, and get ENOSYS; 0: none do
	calls   []call
	sysVIPC []call
}

var (
	itself    = []want{{0, 0}}         // f(pid = 0, ...)
	itselfNow = []want{{0, 0}, {1, 0}} // setpriority(PRIO_PROCESS, 0, ...)
	itselfIO  = []want{{0, 1}, {1, 0}} // ioprio_set(IOPRIO_WHO_PROCESS, 0, ...)
)

// typing is ioctl with TIOCSTI.
func typing(nr uint32) call { return call{nr: nr, never: &want{1, unix.TIOCSTI}} }

func always(numbers ...uint32) (calls []call) {
	for _, nr := range numbers {
		calls = append(calls, call{nr: nr})
	}
	return calls
}

// Filter sets the filter on the calling thread, which must be locked to its goroutine for good. It
// needs no_new_privs or CAP_SYS_ADMIN, and does not set the former.
func Filter(sysVIPC bool) error {
	if len(tables) == 0 {
		return errors.New("there is no seccomp filter for this processor architecture")
	}
	return install(program(sysVIPC))
}

// CanFilter reports whether Filter would succeed without no_new_privs, which would keep commands
// from sudo.
func CanFilter() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && set == 1 {
		return len(tables) > 0
	}
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&header, &caps[0])
	return err == nil && caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 && len(tables) > 0
}

func install(code []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

// Instructions and results of https://docs.kernel.org/userspace-api/seccomp_filter.html, and the
// offsets in struct seccomp_data. Both architectures are little-endian, so that the low half of an
// argument comes first.
const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	ifEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	ifAbove = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	jump    = unix.BPF_JMP | unix.BPF_JA
	ret     = unix.BPF_RET | unix.BPF_K

	allow   = unix.SECCOMP_RET_ALLOW
	deny    = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)

	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// program assembles the filter: one section for each architecture that this kernel runs, and ENOSYS
// for every other.
func program(sysVIPC bool) []unix.SockFilter {
	code := []unix.SockFilter{{Code: load, K: offsetArch}}
	for i := range tables {
		section := tables[i].section(sysVIPC)
		code = append(code,
			unix.SockFilter{Code: ifEqual, K: tables[i].arch, Jt: 1},
			unix.SockFilter{Code: jump, K: uint32(len(section))})
		code = append(code, section...)
	}
	return append(code, unix.SockFilter{Code: ret, K: unknown})
}

func (t *table) section(sysVIPC bool) []unix.SockFilter {
	code := []unix.SockFilter{{Code: load, K: offsetNr}}
	if t.maxNr > 0 {
		code = append(code, unix.SockFilter{Code: ifAbove, K: t.maxNr, Jf: 1}, unix.SockFilter{Code: ret, K: unknown})
	}
	for _, c := range t.calls {
		code = append(code, c.check()...)
	}
	if !sysVIPC {
		for _, c := range t.sysVIPC {
			code = append(code, c.check()...)
		}
	}
	return append(code, unix.SockFilter{Code: ret, K: allow})
}

// check decides about one system call. The register holds the number of the call when the next
// check begins, since only a check that decides loads something else.
func (c *call) check() []unix.SockFilter {
	if c.never != nil {
		return []unix.SockFilter{
			{Code: ifEqual, K: c.nr, Jf: 4},
			{Code: load, K: offsetArgs + 8*uint32(c.never.arg)},
			{Code: ifEqual, K: c.never.value, Jf: 1},
			{Code: ret, K: deny},
			{Code: ret, K: allow},
		}
	}
	if len(c.wants) == 0 {
		return []unix.SockFilter{{Code: ifEqual, K: c.nr, Jf: 1}, {Code: ret, K: deny}}
	}
	body := make([]unix.SockFilter, 0, 2*len(c.wants)+2)
	for i, w := range c.wants {
		toDeny := uint8(2*(len(c.wants)-i) - 1)
		body = append(body,
			unix.SockFilter{Code: load, K: offsetArgs + 8*uint32(w.arg)},
			unix.SockFilter{Code: ifEqual, K: w.value, Jf: toDeny})
	}
	body = append(body, unix.SockFilter{Code: ret, K: allow}, unix.SockFilter{Code: ret, K: deny})
	return append([]unix.SockFilter{{Code: ifEqual, K: c.nr, Jf: uint8(len(body))}}, body...)
}
