package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// attack is what a hostile command does, when the test binary is run as one: to its
// init, the runner and trouped it does all that a process may do to another of its
// user. It prints a line for each victim, with what succeeded.
func attack() int {
	// First of all on a process that is not protected: an attack that never works proves nothing.
	victim := exec.Command("/bin/sleep", "100")
	if err := victim.Start(); err != nil {
		fmt.Println("no victim:", err)
		return 1
	}
	// Until execve the child is a copy of this process, and execve gives it the name before the
	// environment (begin_new_exec in fs/exec.c, create_elf_tables in fs/binfmt_elf.c, Linux 6.12).
	for ready := false; !ready; {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", victim.Process.Pid))
		ready = err != nil || strings.HasPrefix(string(status), "Name:\tsleep\n") &&
			strings.Contains(string(status), "\nState:\tS (sleeping)\n")
	}
	fmt.Println("victim:", strings.Join(assault(victim.Process.Pid), " "))
	_ = victim.Process.Kill() // it is a child of this process, so it is there
	_ = victim.Wait()         // a signal ended it

	pid := os.Getppid()
	for _, name := range []string{"init", "runner", "trouped"} {
		parent, comm := parentOf(pid)
		fmt.Printf("%s: %s\n", name, strings.Join(assault(pid), " "))
		if comm == "" || parent <= 1 && name != "trouped" {
			fmt.Printf("%s: no such process %d\n", name, pid)
			return 1
		}
		pid = parent
	}
	return 0
}

// parentOf returns the parent and the name of a process. Everyone may read those.
func parentOf(pid int) (int, string) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	head, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	_, comm, _ := strings.Cut(head, "(")
	if len(fields) < 2 {
		return 0, comm
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent, comm
}

// assault returns what worked on the process.
func assault(pid int) (done []string) {
	for _, file := range []string{"environ", "maps", "mem", "auxv", "io"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			continue
		}
		// Opening maps and environ checks the right, reading does so again.
		if _, err := f.Read(make([]byte, 16)); err == nil || file == "mem" {
			done = append(done, file)
		}
		f.Close()
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil && len(fds) > 0 {
		done = append(done, "fd")
	}
	if unix.PtraceAttach(pid) == nil {
		var status unix.WaitStatus
		_, _ = unix.Wait4(pid, &status, 0, nil)
		_ = unix.PtraceDetach(pid)
		done = append(done, "ptrace")
	}
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		if fd, err := unix.PidfdGetfd(pidfd, 0, 0); err == nil {
			unix.Close(fd)
			done = append(done, "pidfd_getfd")
		}
		unix.Close(pidfd)
	}
	return done
}
