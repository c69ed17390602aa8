//go:build linux

package shim

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// command is a start request with the descriptors that came with it.
type command struct {
	*frame.Start
	files string // path of the program troupe-files; "": there is none
	fds   []int  // a terminal, or stdin if asked for, stdout and stderr
}

// exec starts the command as the leader of a new session with nothing open but its standard
// streams. A terminal becomes its controlling one. pidfd is -1 if the kernel cannot make one.
func (r *command) exec(g *cgroup) (pid, pidfd int, failed *frame.StartFailed) {
	path, failed := r.lookPath()
	if failed != nil {
		return 0, -1, failed
	}
	attr := &syscall.ProcAttr{
		Dir: r.Dir,
		Env: r.Env,
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			// This is the fast half of the promise that a tree does not outlive its init: it kills
			// the command. The runner's sweep kills the rest.
			Pdeathsig: syscall.SIGKILL,
			PidFD:     &pidfd,
		},
	}
	files, done := r.streams()
	defer done()
	attr.Files = files
	attr.Sys.Setctty = r.Terminal // of descriptor 0
	if g != nil && g.leaf != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, g.leaf.dir
	}
	pid, err := syscall.ForkExec(path, r.Argv, attr)
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.EINVAL // a NUL byte in an argument
		}
		return 0, -1, r.explain(path, errno)
	}
	return pid, pidfd, nil
}

// streams returns the command's standard streams, and a function to call once it has them.
func (r *command) streams() (files []uintptr, done func()) {
	done = func() {}
	if r.Terminal {
		t := uintptr(r.fds[0])
		return []uintptr{t, t, t}, done
	}
	stdin := uintptr(0) // the init's own /dev/null, if opening another fails
	out := r.fds
	if r.Stdin {
		stdin, out = uintptr(r.fds[0]), r.fds[1:]
	} else if null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		// Not shared: flags and locks belong to the open file description, and those of another
		// command must not show here.
		stdin = uintptr(null)
		done = func() { unix.Close(null) }
	}
	return []uintptr{stdin, uintptr(out[0]), uintptr(out[1])}, done
}

// exec starts the command, without the right to write to files if its workspace is full.
func (p *initProcess) exec(req *command) (pid, pidfd int, failed *frame.StartFailed) {
	if !req.Full {
		return req.exec(p.cgroup)
	}
	err := withoutFiles(func() { pid, pidfd, failed = req.exec(p.cgroup) })
	if err != nil && pid == 0 && failed == nil {
		failed = &frame.StartFailed{Message: "limiting the size of files: " + err.Error(), Errno: unix.EPERM}
	}
	return pid, pidfd, failed
}

// defaultPath is searched when the command's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds the program as execvp(3) does, with the command's own PATH and working directory.
func (r *command) lookPath() (string, *frame.StartFailed) {
	name := r.Argv[0]
	switch {
	case strings.Contains(name, "/"):
		return name, nil
	case name == filesProgram && r.files != "":
		return r.files, nil // it is installed beside the runner, not in the PATH
	}
	path := defaultPath
	for _, kv := range r.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	notFound := &frame.StartFailed{Message: name + ": command not found", Errno: syscall.ENOENT}
	if name == "" {
		return "", notFound
	}
	failed := notFound
	for _, dir := range strings.Split(path, ":") {
		file := dir + "/" + name
		if dir == "" {
			file = "./" + name // an empty element is the working directory
		}
		switch r.executable(file) {
		case nil:
			return file, nil
		case syscall.EACCES:
			failed = &frame.StartFailed{Message: file + ": Permission denied", Errno: syscall.EACCES}
		}
	}
	return "", failed
}

// executable returns nil if file, relative to the command's working directory, is a program that
// may be executed.
func (r *command) executable(file string) error {
	if file[0] != '/' && r.Dir != "" {
		file = r.Dir + "/" + file
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return syscall.ENOENT
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// explain finds out which of fork, chdir and execve failed. syscall.ForkExec reports a single errno
// for all three, so the directory is examined afterwards, which costs a command that starts
// nothing.
func (r *command) explain(path string, errno syscall.Errno) *frame.StartFailed {
	fail := func(what, why string) *frame.StartFailed {
		return &frame.StartFailed{Message: what + ": " + why, Errno: errno}
	}
	if r.Dir != "" && errno != syscall.EAGAIN {
		st, err := os.Stat(r.Dir)
		switch {
		case err == nil && !st.IsDir():
			return fail(r.Dir, "Not a directory")
		case os.IsNotExist(err):
			// Not ENOENT, for which a shell would exit with 127: the command itself was found.
			return &frame.StartFailed{Message: r.Dir + ": No such directory", Errno: syscall.ENOTDIR}
		case err != nil || unix.Faccessat(unix.AT_FDCWD, r.Dir, unix.X_OK, unix.AT_EACCESS) != nil:
			return fail(r.Dir, "Permission denied")
		}
	}
	file := path
	if path[0] != '/' && r.Dir != "" {
		file = r.Dir + "/" + path
	}
	switch errno {
	case syscall.ENOENT:
		if _, err := os.Stat(file); err == nil {
			return fail(path, "cannot execute: required file not found") // the interpreter
		}
		return fail(path, "No such file or directory")
	case syscall.EACCES:
		if st, err := os.Stat(file); err == nil && st.IsDir() {
			return fail(path, "Is a directory")
		}
		return fail(path, "Permission denied")
	case syscall.ENOTDIR:
		return fail(path, "Not a directory")
	case syscall.E2BIG:
		return fail(r.Argv[0], "Argument list too long")
	case syscall.ENOEXEC:
		return fail(path, "cannot execute: not a program (a script needs a first line such as #!/bin/sh)")
	case syscall.EAGAIN, syscall.ENOMEM:
		return fail("fork", "Resource temporarily unavailable")
	case syscall.EINVAL:
		return fail(strings.ReplaceAll(r.Argv[0], "\x00", "?"), "Invalid argument")
	}
	return fail(path, errno.Error())
}
