//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inherited are about what the attacker was given.
func inherited() []attempt {
	return []attempt{
		{"own: an inherited descriptor", func(*victim) error {
			for fd := 3; fd < 100; fd++ {
				target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
				// Those of Go's runtime, for its poller and the CPU quota, are the attacker's own.
				if err == nil && !strings.HasPrefix(target, "anon_inode:[event") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
					return nil
				}
			}
			return errNothing
		}},
		{"own: a secret in the environment", func(*victim) error {
			if strings.Contains(strings.Join(os.Environ(), "\n"), secret) {
				return nil
			}
			return errNothing
		}},
	}
}

// of names a file of the victim's process, in which PID is the number.
func (v *victim) of(path string) string {
	return fmt.Sprintf("/proc/%d/%s", v.PID, strings.ReplaceAll(path, "PID", strconv.Itoa(v.PID)))
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 64))
	return err
}

// readSecret reads a file of the victim's.
func readSecret(path string) error {
	text, err := os.ReadFile(path)
	if err == nil && !strings.HasPrefix(string(text), secret) {
		return errNothing
	}
	return err
}

func list(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	return err
}

func write(path string, flags int, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func openOnly(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

const readable = `cmdline stat status statm comm wchan cgroup limits io environ maps numa_maps auxv syscall stack smaps
	smaps_rollup pagemap personality mountinfo mounts mountstats net/tcp net/unix net/udp schedstat oom_score
	oom_score_adj loginuid sessionid coredump_filter timerslack_ns cpuset uid_map setgroups fdinfo/0 task/PID/stat
	task/PID/comm task/PID/environ task/PID/maps task/PID/io task/PID/syscall task/PID/auxv`

const writable = `oom_score_adj=1000 oom_adj=15 clear_refs=1 coredump_filter=0 timerslack_ns=1000000000`

func procAttempts() (all []attempt) {
	all = append(all, attempt{"proc: list pids", func(v *victim) error {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name() == strconv.Itoa(v.PID) {
				return nil
			}
		}
		return errNothing
	}})
	for _, name := range strings.Fields(readable) {
		all = append(all, attempt{"proc: read " + name, func(v *victim) error { return readFile(v.of(name)) }})
	}
	for _, name := range strings.Fields("cwd exe root fd/0 fd/1 ns/pid ns/net") {
		all = append(all, attempt{"proc: readlink " + name, func(v *victim) error {
			_, err := os.Readlink(v.of(name))
			return err
		}})
	}
	for _, name := range strings.Fields("task fd fdinfo map_files ns cwd/ root/") {
		all = append(all, attempt{"proc: list " + name, func(v *victim) error { return list(v.of(name)) }})
	}
	for _, pair := range strings.Fields(writable) {
		name, text, _ := strings.Cut(pair, "=")
		all = append(all, attempt{"proc: write " + name, func(v *victim) error { return write(v.of(name), 0, text) }})
	}
	return append(all,
		attempt{"proc: read a file through root", func(v *victim) error { return readSecret(v.of("root" + v.File)) }},
		attempt{"proc: read a file through a task's root", func(v *victim) error {
			return readSecret(v.of("task/PID/root" + v.File))
		}},
		attempt{"proc: read a file through cwd", func(v *victim) error {
			return readSecret(v.of("cwd" + strings.TrimPrefix(v.File, v.Home)))
		}},
		attempt{"proc: read a file through one's own root", func(v *victim) error { return readSecret("/proc/self/root" + v.File) }},
		attempt{"proc: read a file through the runner's root", func(v *victim) error {
			return readSecret(fmt.Sprintf("/proc/%d/root%s", v.Runner, v.File))
		}},
		attempt{"proc: open a file through fd", func(v *victim) error {
			return openOnly(v.of("fd/"+strconv.Itoa(v.Open)), unix.O_RDWR)
		}},
		attempt{"proc: open a file through a task's fd", func(v *victim) error {
			return openOnly(v.of("task/PID/fd/"+strconv.Itoa(v.Open)), unix.O_RDWR)
		}},
		attempt{"proc: open a file in memory through fd", func(v *victim) error {
			return readSecret(v.of("fd/" + strconv.Itoa(v.MemFD)))
		}},
		attempt{"proc: steal stdin through fd/0", func(v *victim) error { return openOnly(v.of("fd/0"), unix.O_RDONLY) }},
		attempt{"proc: inject output through fd/1", func(v *victim) error { return openOnly(v.of("fd/1"), unix.O_WRONLY) }},
		attempt{"proc: open ns/mnt", func(v *victim) error { return openOnly(v.of("ns/mnt"), unix.O_RDONLY) }},
	)
}
