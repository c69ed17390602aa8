//go:build linux

package proctree

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The values of si_code that this program distinguishes, see sigaction(2).
const (
	CLDExited  = 1 // CLD_EXITED
	CLDKilled  = 2 // CLD_KILLED
	CLDDumped  = 3 // CLD_DUMPED
	CLDStopped = 5 // CLD_STOPPED
)

// Siginfo is the part of the kernel's siginfo_t that waitid(2) fills in.
type Siginfo struct {
	Code   int32 // CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_STOPPED
	PID    int32
	Status int32 // exit code or signal number
}

// Waitid is waitid(2) with __WALL, which includes children that were cloned with an exit signal
// other than SIGCHLD. ECHILD means that no child is left.
func Waitid(idType, id int, info *Siginfo, options int, usage *unix.Rusage) error {
	var raw unix.Siginfo
	err := unix.Waitid(idType, id, &raw, options|unix.WALL, usage)
	if err == nil && info != nil {
		// After signo, errno and code, aligned to a pointer: pid, uid, status.
		p := unsafe.Pointer(&raw)
		info.Code = raw.Code
		fields := unsafe.Add(p, siginfoFields)
		info.PID = *(*int32)(fields)
		info.Status = *(*int32)(unsafe.Add(fields, 8))
	}
	return err
}

// siginfoFields is the offset of the union in siginfo_t: 16 with pointers of eight bytes, 12 with
// pointers of four.
const siginfoFields = 12 + (unsafe.Sizeof(uintptr(0))-4)&4

// WaitAny returns the pid of a child that can be waited for. With WNOHANG it may return 0.
func WaitAny(options int) (int, error) {
	var info Siginfo
	err := Waitid(unix.P_ALL, 0, &info, options, nil)
	return int(info.PID), err
}
