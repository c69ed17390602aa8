//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// by is a system call with the victim's pid for its first argument.
func by(nr uintptr, args ...uintptr) func(*victim) error {
	return func(v *victim) error { return call(nr, append([]uintptr{uintptr(v.PID)}, args...)...) }
}

func withPidfd(f func(fd int) error) func(*victim) error {
	return func(v *victim) error {
		fd, err := unix.PidfdOpen(v.PID, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return f(fd)
	}
}

// processAttempts are on one process, whichever it is.
func processAttempts() []attempt {
	return slices.Concat(memoryAttempts(), tracingAttempts(), schedAttempts())
}

// processVM moves the secret between the two processes.
func processVM(nr uintptr, buf []byte) func(*victim) error {
	return func(v *victim) error {
		local := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
		remote := unix.RemoteIovec{Base: uintptr(v.Memory), Len: len(buf)}
		err := call(nr, uintptr(v.PID), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
		if err == nil && string(buf) != secret {
			return errNothing
		}
		return err
	}
}

func readMemory(path string) func(*victim) error {
	return func(v *victim) error {
		f, err := os.Open(v.of(path))
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, len(secret))
		if _, err := f.ReadAt(buf, int64(v.Memory)); err != nil {
			return err
		}
		if string(buf) != secret {
			return errNothing
		}
		return nil
	}
}

func memoryAttempts() []attempt {
	return []attempt{
		{"mem: read", readMemory("mem")},
		{"mem: read through a task", readMemory("task/PID/mem")},
		{"mem: open for writing", func(v *victim) error { return openOnly(v.of("mem"), unix.O_RDWR) }},
		{"mem: process_vm_readv", processVM(unix.SYS_PROCESS_VM_READV, make([]byte, len(secret)))},
		{"mem: process_vm_writev", processVM(unix.SYS_PROCESS_VM_WRITEV, []byte(secret))},
		{"mem: process_madvise", withPidfd(func(fd int) error {
			iov := unix.Iovec{}
			return call(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, unix.MADV_COLD, 0)
		})},
		{"mem: move_pages", by(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0)},
		{"mem: migrate_pages", func(v *victim) error {
			node := uint64(1)
			p := uintptr(unsafe.Pointer(&node))
			return call(unix.SYS_MIGRATE_PAGES, uintptr(v.PID), 64, p, p)
		}},
	}
}

func tracingAttempts() []attempt {
	return []attempt{
		{"ptrace: attach", func(v *victim) error { return trace(v, unix.PTRACE_ATTACH) }},
		{"ptrace: seize", func(v *victim) error { return trace(v, unix.PTRACE_SEIZE) }},
		{"pidfd_getfd", withPidfd(func(fd int) error {
			got, err := unix.PidfdGetfd(fd, 0, 0)
			if err == nil {
				unix.Close(got)
			}
			return err
		})},
		{"kcmp", func(v *victim) error { return call(unix.SYS_KCMP, uintptr(v.PID), uintptr(os.Getpid()), 1) }},
		{"get_robust_list", func(v *victim) error {
			var head, size uintptr
			return call(unix.SYS_GET_ROBUST_LIST, uintptr(v.PID), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size)))
		}},
		{"perf_event_open", func(v *victim) error {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Bits: unix.PerfBitExcludeKernel}
			attr.Size = uint32(unsafe.Sizeof(attr))
			fd, err := unix.PerfEventOpen(&attr, v.PID, -1, -1, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		{"setns of a pidfd", withPidfd(func(fd int) error {
			done := make(chan error)
			go func() {
				runtime.LockOSThread() // and never unlocked: the thread ends
				done <- unix.Setns(fd, unix.CLONE_NEWUTS)
			}()
			return <-done
		})},
	}
}

// trace attaches to the process, waits until it has stopped, and lets it go again.
func trace(v *victim, request int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := call(unix.SYS_PTRACE, uintptr(request), uintptr(v.PID), 0, 0); err != nil {
		return err
	}
	if request == unix.PTRACE_SEIZE {
		if err := unix.PtraceInterrupt(v.PID); err != nil {
			return err
		}
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(v.PID, &status, unix.WALL, nil)
	_ = unix.PtraceDetach(v.PID)
	_ = unix.Kill(v.PID, unix.SIGCONT)
	return err
}

func schedAttempts() []attempt {
	param := new(int32)
	p := uintptr(unsafe.Pointer(hold(param)))
	limit := func(resource int) func(*victim) error {
		return func(v *victim) error { // as it was
			var old unix.Rlimit
			if err := unix.Prlimit(v.PID, resource, nil, &old); err != nil {
				return err
			}
			return unix.Prlimit(v.PID, resource, &old, nil)
		}
	}
	// On process groups and users, for those whom a filter on processes does not stop.
	ioprio := func(who int, id func(*victim) int) func(*victim) error {
		return func(v *victim) error { return call(unix.SYS_IOPRIO_SET, uintptr(who), uintptr(id(v)), 2<<13|7) }
	}
	pid, group := func(v *victim) int { return v.PID }, func(v *victim) int { return v.Group }
	return []attempt{
		{"sched: setpriority", func(v *victim) error { return unix.Setpriority(unix.PRIO_PROCESS, v.PID, 5) }},
		{"sched: setpriority of the group", func(v *victim) error { return unix.Setpriority(unix.PRIO_PGRP, v.Group, 5) }},
		{"sched: setpriority of the user", func(*victim) error { return unix.Setpriority(unix.PRIO_USER, 0, 5) }},
		{"sched: SCHED_BATCH", by(unix.SYS_SCHED_SETSCHEDULER, unix.SCHED_BATCH, p)},
		{"sched: setparam", by(unix.SYS_SCHED_SETPARAM, p)},
		{"sched: setattr", func(v *victim) error {
			return unix.SchedSetAttr(v.PID, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
		}},
		{"sched: affinity", func(v *victim) error {
			var cpus unix.CPUSet
			if err := unix.SchedGetaffinity(v.PID, &cpus); err != nil {
				return err
			}
			return unix.SchedSetaffinity(v.PID, &cpus) // as it was
		}},
		{"sched: ioprio", ioprio(1, pid)},
		{"sched: ioprio of the group", ioprio(2, group)},
		{"sched: ioprio of the user", ioprio(3, func(*victim) int { return os.Getuid() })},
		{"sched: read the priority", func(v *victim) error { return call(unix.SYS_GETPRIORITY, 0, uintptr(v.PID)) }},
		{"sched: read the affinity", func(v *victim) error { var s unix.CPUSet; return unix.SchedGetaffinity(v.PID, &s) }},
		{"prlimit: read", func(v *victim) error { var l unix.Rlimit; return unix.Prlimit(v.PID, unix.RLIMIT_NOFILE, nil, &l) }},
		{"prlimit: NOFILE", limit(unix.RLIMIT_NOFILE)},
		{"prlimit: CPU", limit(unix.RLIMIT_CPU)},
	}
}

// onOther tries the attempts on another process than the victim.
func onOther(prefix string, pid func(*victim) int, attempts []attempt) (all []attempt) {
	for _, a := range attempts {
		all = append(all, attempt{prefix + ": " + a.name, func(v *victim) error {
			other := *v
			other.PID, other.Group = pid(v), pid(v)
			return a.try(&other)
		}})
	}
	return all
}

// runnerAttempts are on the runner and on the victim's init. They are not dumpable, so that without
// isolation only calls that ask for no more than the same user come through.
func runnerAttempts() []attempt {
	harmless := slices.Concat(processAttempts(), []attempt{
		{"signal: 0", by(unix.SYS_KILL, 0)},
		{"signal: 0 through a pidfd", withPidfd(func(fd int) error { return unix.PidfdSendSignal(fd, 0, nil, 0) })},
		{"signal: 0 to the group through a pidfd", withPidfd(func(fd int) error { return signalGroup(fd, 0) })},
		{"signal: 0 to each thread", func(v *victim) error { return eachThread(v, 0) }},
	})
	for _, name := range []string{"environ", "maps", "auxv", "syscall", "io"} {
		harmless = append(harmless, attempt{"proc: read " + name, func(v *victim) error { return readFile(v.of(name)) }})
	}
	for _, name := range []string{"fd", "fdinfo", "cwd/", "root/", "task/PID/fd", "map_files"} {
		harmless = append(harmless, attempt{"proc: list " + name, func(v *victim) error { return list(v.of(name)) }})
	}
	for _, name := range []string{"oom_score_adj", "timerslack_ns"} {
		harmless = append(harmless, attempt{"proc: write " + name, func(v *victim) error { return write(v.of(name), 0, "500") }})
	}
	harmless = slices.DeleteFunc(harmless, func(a attempt) bool {
		return a.name == "sched: setpriority of the user" || a.name == "sched: ioprio of the user" // not on one process
	})
	return slices.Concat(
		onOther("runner", func(v *victim) int { return v.Runner }, harmless),
		onOther("init", func(v *victim) int { return v.Init }, harmless))
}

// eachThread tries kill(2) and tgkill(2) on the threads, which the kernel checks one by one: a
// thread in the attacker's own domain would let a fatal signal to the whole process through.
func eachThread(v *victim, sig unix.Signal) error {
	entries, err := os.ReadDir(v.of("task"))
	if err != nil {
		return err
	}
	last := errNothing
	for _, e := range entries {
		var tid int
		_, _ = fmt.Sscan(e.Name(), &tid)
		if last = unix.Tgkill(v.PID, tid, sig); last == nil {
			return nil
		}
		if last = unix.Kill(tid, sig); last == nil {
			return nil
		}
	}
	return last
}
