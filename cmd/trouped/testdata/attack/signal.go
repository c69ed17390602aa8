//go:build linux

package main

import (
	"bytes"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is what sigqueue(3) passes: the signal, and SI_QUEUE.
func siginfo(sig unix.Signal) unsafe.Pointer {
	b := make([]int32, 32)
	b[0], b[2] = int32(sig), -1
	return unsafe.Pointer(&b[0])
}

func signalAttempts() []attempt {
	return []attempt{
		{"signal: 0", by(unix.SYS_KILL, 0)},
		{"signal: SIGUSR1", by(unix.SYS_KILL, uintptr(unix.SIGUSR1))},
		{"signal: tkill", by(unix.SYS_TKILL, uintptr(unix.SIGUSR1))},
		{"signal: tgkill", func(v *victim) error { return unix.Tgkill(v.PID, v.PID, unix.SIGUSR1) }},
		{"signal: each thread", func(v *victim) error { return eachThread(v, unix.SIGUSR1) }},
		{"signal: rt_sigqueueinfo", func(v *victim) error {
			return call(unix.SYS_RT_SIGQUEUEINFO, uintptr(v.PID), uintptr(unix.SIGUSR1), uintptr(siginfo(unix.SIGUSR1)))
		}},
		{"signal: rt_tgsigqueueinfo", func(v *victim) error {
			return call(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(v.PID), uintptr(v.PID), uintptr(unix.SIGUSR1),
				uintptr(siginfo(unix.SIGUSR1)))
		}},
		{"signal: through a pidfd", withPidfd(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGUSR1, nil, 0) })},
		{"signal: the group through a pidfd", withPidfd(func(fd int) error { return signalGroup(fd, unix.SIGUSR1) })},
		{"signal: the group", func(v *victim) error { return unix.Kill(-v.Group, unix.SIGUSR1) }},
		{"signal: STOP and CONT", func(v *victim) error {
			if err := unix.Kill(v.PID, unix.SIGSTOP); err != nil {
				return err
			}
			return unix.Kill(v.PID, unix.SIGCONT)
		}},
		{"signal: F_SETOWN and SIGIO", func(v *victim) error { return sigio(v, 1, v.PID) }}, // F_OWNER_PID
		{"signal: F_SETOWN of a thread", func(v *victim) error { return sigio(v, 0, v.PID) }},
		{"signal: F_SETOWN of the group", func(v *victim) error { return sigio(v, 2, v.Group) }},
		{"job: setpgid", func(v *victim) error { return call(unix.SYS_SETPGID, uintptr(os.Getpid()), uintptr(v.Group)) }},
		{"job: getsid", by(unix.SYS_GETSID)},
		{"job: getpgid", by(unix.SYS_GETPGID)},
	}
}

// signalGroup signals the process group of a pidfd (Linux 6.9).
func signalGroup(fd int, sig unix.Signal) error {
	const processGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP
	return call(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(fd), uintptr(sig), 0, processGroup)
}

// sigio makes the kernel send the victim SIGSTOP for the attacker's socket. The calls succeed in any
// case, so it looks whether the victim stops.
func sigio(v *victim, kind, id int) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fds[1])
	defer unix.Close(fds[0]) // first, or the end of the other one would be one more signal
	owner := [2]int32{int32(kind), int32(id)}
	const setOwnEx, setSig = 15, 10
	fd := uintptr(fds[0])
	if err := call(unix.SYS_FCNTL, fd, setOwnEx, uintptr(unsafe.Pointer(&owner))); err != nil {
		return err
	}
	if err := call(unix.SYS_FCNTL, fd, setSig, uintptr(unix.SIGSTOP)); err != nil {
		return err
	}
	if err := call(unix.SYS_FCNTL, fd, unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK); err != nil {
		return err
	}
	if _, err := unix.Write(fds[1], []byte("x")); err != nil {
		return err
	}
	for range 40 {
		stat, err := os.ReadFile(v.of("stat"))
		if err != nil {
			return err
		}
		if _, rest, ok := bytes.Cut(stat, []byte(") ")); ok && rest[0] == 'T' {
			unix.Kill(v.PID, unix.SIGCONT)
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errNothing
}

// kills end somebody else's work. Each is tried alone, on a victim of its own.
func kills() []attempt {
	limit := func(pid func(*victim) int, resource int) func(*victim) error {
		return func(v *victim) error { return unix.Prlimit(pid(v), resource, &unix.Rlimit{}, nil) }
	}
	own, runner := func(v *victim) int { return v.PID }, func(v *victim) int { return v.Runner }
	return []attempt{
		{"kill: SIGKILL", by(unix.SYS_KILL, uintptr(unix.SIGKILL))},
		{"kill: SIGKILL to the group", func(v *victim) error { return unix.Kill(-v.Group, unix.SIGKILL) }},
		{"kill: SIGKILL to the init", func(v *victim) error { return unix.Kill(v.Init, unix.SIGKILL) }},
		{"kill: SIGKILL to all", func(*victim) error { return unix.Kill(-1, unix.SIGKILL) }},
		{"kill: SIGKILL to each thread", func(v *victim) error { return eachThread(v, unix.SIGKILL) }},
		{"kill: SIGKILL to each thread of the init", func(v *victim) error {
			w := *v
			w.PID = v.Init
			return eachThread(&w, unix.SIGKILL)
		}},
		{"kill: through a pidfd", withPidfd(func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })},
		{"kill: PTRACE_O_EXITKILL", func(v *victim) error {
			runtime.LockOSThread() // the kernel kills the victim when this thread ends
			return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(v.PID), 0, unix.PTRACE_O_EXITKILL)
		}},
		{"kill: RLIMIT_CPU", limit(own, unix.RLIMIT_CPU)},
		{"kill: RLIMIT_NOFILE of the runner", limit(runner, unix.RLIMIT_NOFILE)},
		{"kill: RLIMIT_CPU of the runner", limit(runner, unix.RLIMIT_CPU)},
	}
}
