//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mine is a path of the attacker's own home.
func mine(name string) string {
	return filepath.Join(must(os.Getwd()), fmt.Sprintf("attack-%d-%s", os.Getpid(), name))
}

// opened does something with a descriptor of a path.
func opened(path string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// within runs f in a directory of the victim's.
func within(dir string, f func() error) error {
	home := must(os.Getwd())
	if err := os.Chdir(dir); err != nil {
		return err
	}
	defer func() { check(os.Chdir(home)) }()
	return f()
}

func fileAttempts() []attempt {
	return slices.Concat(readAttempts(), metadataAttempts(), writeAttempts(), linkAttempts(), watchAttempts())
}

func readAttempts() []attempt {
	return []attempt{
		{"file: read", func(v *victim) error { return readSecret(v.File) }},
		{"file: read in TMPDIR", func(v *victim) error { return readSecret(v.Temp) }},
		{"file: open O_PATH", func(v *victim) error { return openOnly(v.File, unix.O_PATH) }},
		{"file: reopen an O_PATH descriptor", func(v *victim) error {
			return opened(v.File, unix.O_PATH, func(fd int) error { return readSecret(fmt.Sprintf("/proc/self/fd/%d", fd)) })
		}},
		{"file: open relative to an O_PATH directory", func(v *victim) error {
			return opened(v.Dir, unix.O_PATH|unix.O_DIRECTORY, func(dir int) error {
				fd, err := unix.Openat(dir, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err == nil {
					unix.Close(fd)
				}
				return err
			})
		}},
		{"file: chdir, read relative", func(v *victim) error {
			return within(v.Dir, func() error { return readSecret("file") })
		}},
		{"file: chdir", func(v *victim) error { return within(v.Dir, func() error { return nil }) }},
		{"file: through .. of one's own home", func(v *victim) error {
			return readSecret(must(filepath.Rel(must(os.Getwd()), v.File)))
		}},
		{"file: follow one's own symlink", func(v *victim) error {
			link := mine("link")
			defer os.Remove(link)
			return errors.Join(os.Symlink(v.File, link), readSecret(link))
		}},
		{"file: execve", func(v *victim) error {
			pid, err := syscall.ForkExec(v.Program, []string{"program"}, nil)
			if err == nil {
				var status syscall.WaitStatus
				_, err = syscall.Wait4(pid, &status, 0, nil)
			}
			return err
		}},
		{"file: open_by_handle_at", func(v *victim) error {
			h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, v.File, 0)
			if err != nil {
				return err
			}
			return opened(".", unix.O_RDONLY, func(at int) error { // the same file system
				fd, err := unix.OpenByHandleAt(at, h, unix.O_RDONLY)
				if err == nil {
					unix.Close(fd)
				}
				return err
			})
		}},
		{"file: list the directory", func(v *victim) error { return list(v.Dir) }},
		{"file: list the home", func(v *victim) error { return list(v.Home) }},
		{"file: list TMPDIR", func(v *victim) error { return list(v.Tmp) }},
		{"file: list the parent of the home", func(v *victim) error { return list(filepath.Dir(v.Home)) }},
		{"file: list the parent of all homes", func(v *victim) error { return list(filepath.Dir(filepath.Dir(v.Home))) }},
		{"file: list the workspace", func(v *victim) error { return list(v.Root) }},
		{"file: list /", func(*victim) error { return list("/") }},
		{"file: list /tmp", func(*victim) error { return list("/tmp") }},
		{"file: list /dev/shm", func(*victim) error { return list("/dev/shm") }},
	}
}

func metadataAttempts() []attempt {
	return []attempt{
		{"metadata: stat", func(v *victim) error { _, err := os.Stat(v.File); return err }},
		{"metadata: access", func(v *victim) error { return unix.Access(v.File, unix.R_OK) }},
		{"metadata: statfs", func(v *victim) error { var s unix.Statfs_t; return unix.Statfs(v.File, &s) }},
		{"metadata: readlink", func(v *victim) error { _, err := unix.Readlink(v.File, make([]byte, 9)); return notLink(err) }},
		{"metadata: chmod", func(v *victim) error { return os.Chmod(v.File, 0o600) }},
		{"metadata: chmod of the parent of all homes", func(v *victim) error {
			dir := filepath.Dir(filepath.Dir(v.Home))
			st, err := os.Stat(dir)
			if err != nil {
				return err
			}
			return os.Chmod(dir, st.Mode()) // as it was
		}},
		{"metadata: chown", func(v *victim) error { return os.Chown(v.File, os.Getuid(), os.Getgid()) }},
		{"metadata: utimes", func(v *victim) error { return unix.UtimesNano(v.File, make([]unix.Timespec, 2)) }},
		{"metadata: setxattr", func(v *victim) error { return unix.Setxattr(v.File, "user.evil", []byte("x"), 0) }},
		{"metadata: getxattr", func(v *victim) error { _, err := unix.Getxattr(v.File, "user.evil", make([]byte, 9)); return err }},
		{"metadata: name_to_handle_at", func(v *victim) error {
			_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, v.File, 0)
			return err
		}},
		{"metadata: FS_IOC_GETFLAGS", func(v *victim) error {
			return opened(v.Dir, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error {
				_, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
				return err
			})
		}},
	}
}

// notLink is what readlink(2) returns for a file that it could look at.
func notLink(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func writeAttempts() []attempt {
	in := func(name string) func(*victim) string {
		return func(v *victim) string { return filepath.Join(v.Dir, name) }
	}
	return []attempt{
		{"file: append", func(v *victim) error { return write(v.File, os.O_APPEND, "x") }},
		{"file: truncate", func(v *victim) error { return unix.Truncate(v.File, int64(len(secret))) }},
		{"file: open O_TRUNC", func(v *victim) error { return openOnly(v.Program, unix.O_WRONLY|unix.O_TRUNC) }},
		{"file: fallocate", func(v *victim) error {
			return opened(v.File, unix.O_WRONLY, func(fd int) error { return unix.Fallocate(fd, 1, 0, 4096) })
		}},
		{"file: create", func(v *victim) error { return write(in("evil")(v), os.O_CREATE|os.O_EXCL, "x") }},
		{"file: create O_TMPFILE", func(v *victim) error { return openOnly(v.Dir, unix.O_TMPFILE|unix.O_RDWR) }},
		{"file: create a dotfile in the home", func(v *victim) error {
			return write(filepath.Join(v.Home, ".profile"), os.O_CREATE, "x")
		}},
		{"file: create in the workspace", func(v *victim) error { return write(filepath.Join(v.Root, "evil"), os.O_CREATE, "x") }},
		{"file: create in /tmp", func(*victim) error { return write("/tmp/evil", os.O_CREATE, "x") }},
		{"file: mkdir", func(v *victim) error { return os.Mkdir(in("evil.d")(v), 0o700) }},
		{"file: rmdir", func(v *victim) error { return unix.Rmdir(in("empty")(v)) }},
		{"file: mkfifo", func(v *victim) error { return unix.Mkfifo(in("evil.p")(v), 0o600) }},
		{"file: symlink", func(v *victim) error { return os.Symlink("/", in("evil.l")(v)) }},
		{"file: bind a socket", func(v *victim) error { return bindUnix(in("evil.s")(v)) }},
		{"fifo: open", func(v *victim) error { return openOnly(v.FIFO, unix.O_RDONLY) }},
		{"pty: write", func(v *victim) error { return write(v.Pty, unix.O_NOCTTY, "x") }},
		{"pty: open for reading", func(v *victim) error { return openOnly(v.Pty, unix.O_RDONLY|unix.O_NOCTTY) }},
		{"pty: change its mode", func(v *victim) error {
			return opened(v.Pty, unix.O_RDWR|unix.O_NOCTTY, func(fd int) error {
				mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
				if err != nil {
					return err
				}
				return unix.IoctlSetTermios(fd, unix.TCSETS, mode) // as it was
			})
		}},
		{"pty: TIOCSTI", func(v *victim) error {
			return opened(v.Pty, unix.O_RDWR|unix.O_NOCTTY, func(fd int) error {
				c := byte('x')
				return call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
			})
		}},
	}
}

func linkAttempts() []attempt {
	return []attempt{
		{"file: hard link", func(v *victim) error {
			to := mine("hard")
			defer os.Remove(to)
			return unix.Link(v.File, to)
		}},
		{"file: hard link of an O_PATH descriptor", func(v *victim) error {
			return opened(v.File, unix.O_PATH, func(fd int) error {
				to := mine("hard2")
				defer os.Remove(to)
				return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
			})
		}},
		{"file: rename into one's own home", func(v *victim) error {
			to := mine("moved")
			if err := unix.Rename(v.Temp, to); err != nil {
				return err
			}
			return unix.Rename(to, v.Temp)
		}},
		{"file: rename over it", func(v *victim) error {
			from := mine("over")
			check(os.WriteFile(from, []byte("x"), 0o600))
			defer os.Remove(from)
			return unix.Rename(from, v.Temp)
		}},
		{"file: exchange", func(v *victim) error {
			to := mine("swap")
			check(os.WriteFile(to, []byte("x"), 0o600))
			defer os.Remove(to)
			return unix.Renameat2(unix.AT_FDCWD, to, unix.AT_FDCWD, v.Temp, unix.RENAME_EXCHANGE)
		}},
		{"file: rename the home", func(v *victim) error {
			if err := unix.Rename(v.Dir, v.Dir+"-moved"); err != nil {
				return err
			}
			return unix.Rename(v.Dir+"-moved", v.Dir)
		}},
		{"file: unlink", func(v *victim) error { return unix.Unlink(v.Temp) }},
	}
}

func watchAttempts() []attempt {
	return []attempt{
		{"lock: flock", func(v *victim) error {
			return opened(v.File, unix.O_RDONLY, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		}},
		{"lock: fcntl", func(v *victim) error {
			return opened(v.File, unix.O_RDWR, func(fd int) error {
				return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
			})
		}},
		{"lock: list them", func(*victim) error { return openOnly("/proc/locks", unix.O_RDONLY) }},
		{"watch: inotify", func(v *victim) error {
			fd := must(unix.InotifyInit1(unix.IN_CLOEXEC))
			defer unix.Close(fd)
			_, err := unix.InotifyAddWatch(fd, v.Dir, unix.IN_ALL_EVENTS)
			return err
		}},
		{"watch: inotify on the parent of all homes", func(v *victim) error {
			fd := must(unix.InotifyInit1(unix.IN_CLOEXEC))
			defer unix.Close(fd)
			_, err := unix.InotifyAddWatch(fd, filepath.Dir(filepath.Dir(v.Home)), unix.IN_CREATE|unix.IN_MOVED_TO)
			return err
		}},
		{"watch: dnotify", func(v *victim) error {
			return opened(v.Dir, unix.O_RDONLY|unix.O_DIRECTORY, func(fd int) error {
				const notify, access = 1026, 1 // F_NOTIFY, DN_ACCESS
				return call(unix.SYS_FCNTL, uintptr(fd), notify, access)
			})
		}},
		{"watch: fanotify", func(v *victim) error {
			const reportFID = 0x200
			fd, err := unix.FanotifyInit(reportFID|unix.FAN_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_CREATE|unix.FAN_ONDIR, unix.AT_FDCWD, v.Dir)
		}},
	}
}
