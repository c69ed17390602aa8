//go:build linux

package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func ipcAttempts() []attempt {
	return []attempt{
		{"posix shm: read", func(v *victim) error { return readSecret(v.SHM) }},
		{"posix shm: write", func(v *victim) error { return write(v.SHM, os.O_APPEND, "x") }},
		{"posix shm: replace", func(v *victim) error {
			if err := unix.Unlink(v.SHM); err != nil {
				return err
			}
			return write(v.SHM, os.O_CREATE|os.O_EXCL, secret)
		}},
		{"sysv shm: make", func(*victim) error {
			id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
			if err == nil {
				_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
			}
			return err
		}},
		{"sysv shm: attach", func(v *victim) error {
			b, err := unix.SysvShmAttach(v.SysV, 0, 0)
			if err != nil {
				return err
			}
			if string(b[:len(secret)]) != secret {
				return errNothing
			}
			return unix.SysvShmDetach(b)
		}},
		{"sysv sem: make", func(*victim) error { return made(unix.SYS_SEMGET, unix.SYS_SEMCTL, 1, 0o600) }},
		{"sysv msg: make", func(*victim) error { return made(unix.SYS_MSGGET, unix.SYS_MSGCTL, 0o600) }},
		{"sysv shm: list", func(*victim) error { return readFile("/proc/sysvipc/shm") }},
		{"posix mq: create", func(*victim) error {
			name := must(unix.BytePtrFromString("attack"))
			fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			unix.Close(int(fd))
			return call(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)))
		}},
		{"keys: user keyring", func(*victim) error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); return err }},
		{"keys: add_key", func(*victim) error {
			_, err := unix.AddKey("user", "attack", []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
			return err
		}},
		{"keys: request_key", func(*victim) error {
			_, err := unix.RequestKey("user", "attack", "", unix.KEY_SPEC_SESSION_KEYRING)
			return err
		}},
	}
}

// made makes a private System V object and removes it.
func made(get, ctl uintptr, args ...uintptr) error {
	var a [3]uintptr // the key is IPC_PRIVATE
	copy(a[1:], args)
	id, _, errno := unix.Syscall(get, a[0], a[1], a[2])
	if errno != 0 {
		return errno
	}
	if ctl == unix.SYS_SEMCTL {
		return call(ctl, id, 0, unix.IPC_RMID)
	}
	return call(ctl, id, unix.IPC_RMID)
}

// clone starts a program in a new namespace.
func clone(flags uintptr) func(*victim) error {
	return func(*victim) error {
		cmd := exec.Command("/proc/self/exe", "nothing")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if err := cmd.Start(); err != nil {
			return err
		}
		_ = cmd.Wait()
		return nil
	}
}

// descriptor is a system call that returns one.
func descriptor(nr uintptr, args ...uintptr) func(*victim) error {
	return func(*victim) error {
		var a [6]uintptr
		copy(a[:], args)
		n, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		unix.Close(int(n))
		return nil
	}
}

// onThread runs f on a thread of its own, which ends.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

func kernelAttempts() []attempt {
	params := hold(make([]byte, 256))
	bpf := hold(&struct{ kind, key, value, entries uint32 }{2, 4, 4, 1}) // BPF_MAP_TYPE_ARRAY
	return []attempt{
		{"kernel: unshare a user namespace", func(*victim) error { return clone(unix.CLONE_NEWUSER)(nil) }},
		{"kernel: clone into a PID namespace", clone(unix.CLONE_NEWPID)},
		{"kernel: clone into a mount namespace", clone(unix.CLONE_NEWNS)},
		{"kernel: clone into a network namespace", clone(unix.CLONE_NEWNET)},
		{"kernel: io_uring_setup", descriptor(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])))},
		{"kernel: userfaultfd", descriptor(unix.SYS_USERFAULTFD, unix.O_CLOEXEC)},
		{"kernel: bpf", descriptor(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(bpf)), unsafe.Sizeof(*bpf))},
		{"kernel: mount /proc", func(*victim) error {
			dir := mine("proc")
			check(os.Mkdir(dir, 0o700))
			defer os.Remove(dir)
			if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
				return err
			}
			return unix.Unmount(dir, 0)
		}},
		{"kernel: bind mount", func(v *victim) error {
			dir := mine("bind")
			check(os.Mkdir(dir, 0o700))
			defer os.Remove(dir)
			if err := unix.Mount(v.Dir, dir, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			defer unix.Unmount(dir, 0)
			return readSecret(dir + "/file")
		}},
		{"kernel: fsopen", func(*victim) error {
			fd, err := unix.Fsopen("tmpfs", 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		{"kernel: open_tree", func(v *victim) error {
			fd, err := unix.OpenTree(unix.AT_FDCWD, v.Dir, unix.OPEN_TREE_CLONE|unix.O_CLOEXEC)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}},
		{"kernel: chroot", func(v *victim) error {
			return onThread(func() error {
				if err := unix.Unshare(unix.CLONE_FS); err != nil {
					return err
				}
				return unix.Chroot(v.Dir)
			})
		}},
		{"kernel: device node", func(*victim) error {
			p := mine("null")
			defer os.Remove(p)
			return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
		}},
		{"kernel: syslog", func(*victim) error { _, err := unix.Klogctl(3, make([]byte, 64)); return err }},
		{"kernel: /dev/kmsg", func(*victim) error { return openOnly("/dev/kmsg", unix.O_RDONLY) }},
		{"kernel: /proc/sys/kernel/core_pattern", func(*victim) error {
			return openOnly("/proc/sys/kernel/core_pattern", unix.O_WRONLY)
		}},
		{"kernel: sethostname", func(*victim) error { return unix.Sethostname([]byte("evil")) }},
		{"kernel: setuid", func(v *victim) error {
			return onThread(func() error { return call(unix.SYS_SETRESUID, 65532, 65532, 65532) })
		}},
		{"kernel: no_new_privs is not set", func(*victim) error {
			if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || set == 1 {
				return errNothing
			}
			return nil
		}},
	}
}
