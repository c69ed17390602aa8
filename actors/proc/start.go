//go:build linux

package proc

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// startRequest is the body of a start frame.
type startRequest struct {
	argv, env []string
	dir       string
	stdin     bool
	maxMemory int64
	fds       []int // stdin if asked for, stdout, stderr
}

func (r *startRequest) passed() int {
	if r.stdin {
		return 3
	}
	return 2
}

func encodeStart(s *Spec) []byte {
	return frame(kindStart).bool(s.Stdin).int(s.MaxMemory).string(s.Dir).strings(s.Argv).strings(s.Env).done()
}

func decodeStart(body []byte) (*startRequest, error) {
	d := decoder{b: body}
	r := &startRequest{stdin: d.bool(), maxMemory: d.int(), dir: d.string(), argv: d.strings(), env: d.strings()}
	if d.err != nil || len(r.argv) == 0 {
		return nil, errFrame
	}
	return r, nil
}

// exec starts the command as the leader of a session of its own, with nothing
// open but its standard streams. pidfd is -1 where the kernel makes none.
func (r *startRequest) exec(l *leaf) (pid, pidfd int, failed *StartError) {
	path, failed := r.lookPath()
	if failed != nil {
		return 0, -1, failed
	}
	attr := &syscall.ProcAttr{
		Dir: r.dir,
		Env: r.env,
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			// The fast half of the promise that a tree does not outlive its
			// init. The whole of it is the runner's sweep.
			Pdeathsig: syscall.SIGKILL,
			PidFD:     &pidfd,
		},
	}
	stdin := uintptr(0) // the init's own /dev/null, if need be
	out := r.fds
	if r.stdin {
		stdin, out = uintptr(r.fds[0]), r.fds[1:]
	} else if null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		// Not shared: flags and locks belong to an open description, and
		// another command's must not show here.
		stdin = uintptr(null)
		defer unix.Close(null)
	}
	attr.Files = []uintptr{stdin, uintptr(out[0]), uintptr(out[1])}
	if l != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, l.dir
	}
	pid, err := syscall.ForkExec(path, r.argv, attr)
	if err != nil {
		errno, ok := err.(syscall.Errno)
		if !ok {
			errno = syscall.EINVAL // a NUL byte in an argument
		}
		return 0, -1, r.explain(path, errno)
	}
	return pid, pidfd, nil
}

// defaultPath is searched when the command's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds the program as execvp(3) would, with the command's own PATH
// and working directory.
func (r *startRequest) lookPath() (string, *StartError) {
	name := r.argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := defaultPath
	for _, kv := range r.env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	notFound := &StartError{Message: name + ": command not found", Errno: syscall.ENOENT}
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
			failed = &StartError{Message: file + ": Permission denied", Errno: syscall.EACCES}
		}
	}
	return "", failed
}

// executable says whether file, seen from the command's working directory, is
// a program that may be run.
func (r *startRequest) executable(file string) error {
	if file[0] != '/' && r.dir != "" {
		file = r.dir + "/" + file
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

// explain says which of fork, chdir and execve refused. They share one errno
// channel in forkExec, so the directory is looked at afterwards, off the path
// of commands that start.
func (r *startRequest) explain(path string, errno syscall.Errno) *StartError {
	fail := func(what, why string) *StartError {
		return &StartError{Message: what + ": " + why, Errno: errno}
	}
	if r.dir != "" && errno != syscall.EAGAIN {
		st, err := os.Stat(r.dir)
		switch {
		case err == nil && !st.IsDir():
			return fail(r.dir, "Not a directory")
		case os.IsNotExist(err):
			// Not ENOENT: the command was found well enough, so not 127.
			return &StartError{Message: r.dir + ": No such directory", Errno: syscall.ENOTDIR}
		case err != nil || unix.Faccessat(unix.AT_FDCWD, r.dir, unix.X_OK, unix.AT_EACCESS) != nil:
			return fail(r.dir, "Permission denied")
		}
	}
	file := path
	if path[0] != '/' && r.dir != "" {
		file = r.dir + "/" + path
	}
	switch errno {
	case syscall.ENOENT:
		if _, err := os.Stat(file); err == nil {
			return fail(path, "cannot execute: required file not found") // its interpreter
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
		return fail(r.argv[0], "Argument list too long")
	case syscall.ENOEXEC:
		return fail(path, "cannot execute: not a program (a script needs a first line such as #!/bin/sh)")
	case syscall.EAGAIN, syscall.ENOMEM:
		return fail("fork", "Resource temporarily unavailable")
	case syscall.EINVAL:
		return fail(strings.ReplaceAll(r.argv[0], "\x00", "?"), "Invalid argument")
	}
	return fail(path, errno.Error())
}
