//go:build linux

package shim

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rlimits are this process's resource limits as it was started with them. Any process of the same
// user may lower them with prlimit(2), which asks for no more than that, also those of the first
// process of a container. With no descriptors left a runner starts nothing and finds nothing in
// /proc, and what it still starts inherits the limits.
type rlimits [rlimitCount]unix.Rlimit

// rlimitCount is RLIM_NLIMITS of include/uapi/asm-generic/resource.h.
const rlimitCount = 16

func ownLimits() *rlimits {
	l := new(rlimits)
	for i := range l {
		// It fails for no resource that exists. Zero values are never above what a process has.
		_ = unix.Prlimit(0, i, nil, &l[i])
	}
	return l
}

// restore raises the limits that are lower than they were. It fails if one cannot be raised: only
// CAP_SYS_RESOURCE raises a hard limit.
func (l *rlimits) restore() error {
	for i := range l {
		var now unix.Rlimit
		if unix.Prlimit(0, i, nil, &now) != nil || now.Cur >= l[i].Cur && now.Max >= l[i].Max {
			continue
		}
		// Not unix.Prlimit, after which package syscall forgets which number of descriptors it has to
		// give to the inits.
		_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(i), uintptr(unsafe.Pointer(&l[i])), 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("resource limit %d of this process was lowered from %d to %d by another: %w",
				i, l[i].Cur, now.Cur, errno)
		}
	}
	return nil
}

// holdLimits ends the runner when its limits were lowered for good. At that the inits kill their
// trees, and trouped or the kubelet starts the next runner. An orderly end would need descriptors.
func (s *supervisor) holdLimits() {
	if err := s.limits.restore(); err != nil {
		fmt.Fprintln(os.Stderr, "troupe-runner: exiting, since it is beyond repair:", err)
		os.Exit(1)
	}
}
