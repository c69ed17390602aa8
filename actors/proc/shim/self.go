//go:build linux

package shim

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// traced reports whether a debugger attached to this process before it could forbid that.
func traced() bool {
	b, err := proctree.NewProcfs().Read("/proc/self/status")
	if err != nil {
		return false // no /proc: nothing to check
	}
	i := bytes.Index(b, []byte("TracerPid:"))
	return i >= 0 && !bytes.HasPrefix(bytes.TrimLeft(b[i+10:], "\t "), []byte("0"))
}

// closeOnExec keeps commands from inheriting the descriptors that this process inherited: the
// program that started trouped may have left some open.
func closeOnExec() {
	if unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	fds := proctree.NewProcfs().Numbers("/proc/self/fd", nil) // before Linux 5.11, which added CLOSE_RANGE_CLOEXEC
	for _, fd := range fds {
		if fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// setName sets the name that ps and top show instead of that of the executed file.
func setName(s string) {
	b := append([]byte(s), 0)
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0)
}

// timerSlack returns how late the kernel may wake this thread, in nanoseconds, or 0 if that is
// unknown. Processes that the thread starts inherit it.
func timerSlack() int {
	n, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func setTimerSlack(ns int) {
	if ns > 0 { // the kernel takes 0 as the inherited value
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(ns), 0, 0, 0) // fails only if the call is missing
	}
}

// sigaction is the kernel's struct. Only the handler matters here.
type sigaction struct {
	handler uintptr
	flags   uint64
	restore uintptr
	mask    uint64
}

// defaultIgnored gives every ignored signal its default action again. An ignored signal stays
// ignored across execve (signal(7)), so a trouped that was started with nohup would make every
// command immune to SIGHUP.
func defaultIgnored() {
	const ignored = 1 // SIG_IGN
	for sig := uintptr(1); sig <= 64; sig++ {
		var old sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
		if errno == 0 && old.handler == ignored {
			setDefault(unix.Signal(sig))
		}
	}
}

func setDefault(sig unix.Signal) {
	var dfl sigaction
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
}
