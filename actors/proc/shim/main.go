//go:build linux

package shim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Main is the whole of the program troupe-runner; it returns the exit code.
// The caller has locked the main goroutine to the main thread in an init
// function, since parent-death signals are bound to the thread that forks.
func Main(version string, args []string) int {
	if len(args) == 3 && args[1] == initArg {
		slack, _ := strconv.Atoi(args[2])
		return initMain(slack)
	}
	// First of all, for the same reason as in an init.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail(os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err))
	}
	flags := flag.NewFlagSet("troupe-runner", flag.ContinueOnError)
	installAt := flags.String("install", "", "copy this program to `path`, an absolute one, and exit")
	connect := flags.String("connect", "", "unix `socket` of a trouped to serve; waits until it exists")
	fd := flags.Int("fd", -1, "inherited `descriptor` of a connected socket (used by trouped)")
	cgroup := flags.String("cgroup", "auto", "auto, off, or a cgroup v2 `directory` to make cgroups in")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *showVersion:
		fmt.Println("troupe-runner", version)
		return 0
	case flags.NArg() > 0:
		return fail(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	case *installAt != "" && (*connect != "" || *fd >= 0):
		return fail(errors.New("--install does nothing else: give it alone"))
	case *installAt != "":
		if err := install(*installAt); err != nil {
			return fail(err)
		}
		return 0
	case (*connect == "") == (*fd < 0):
		return fail(errors.New("give --connect with the path of trouped's socket"))
	}
	var err error
	if *connect != "" {
		err = serveAt(*connect, version, *cgroup)
	} else if err = harden(); err == nil {
		err = serve(*fd, -1, version, *cgroup)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

// harden closes what this process inherited to its commands, and makes sure
// that nobody was faster than the ban on tracing.
func harden() error {
	closeOnExec()
	if traced() {
		return errors.New("a debugger is attached")
	}
	return nil
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "troupe-runner:", err)
	return 1
}

// initExecutable is the file that is executed as an init.
//
// Between execve and the first line of main a process can be traced and its
// memory opened by others of its user, unless its binary is one that this user
// may not read: then the kernel makes it non-dumpable from the start. So when
// this binary is readable, inits are executed from a copy in memory that is
// not. For root there is no such file, and no protection from root either.
func initExecutable() (string, error) {
	const self = "/proc/self/exe"
	if unix.Geteuid() == 0 || unix.Faccessat(unix.AT_FDCWD, self, unix.R_OK, unix.AT_EACCESS) != nil {
		return self, nil
	}
	const mfdExec = 0x10 // MFD_EXEC, since Linux 6.3; unknown before
	fd, err := unix.MemfdCreate("troupe-init", unix.MFD_CLOEXEC|mfdExec)
	if err != nil {
		fd, err = unix.MemfdCreate("troupe-init", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return self, nil // as safe as the kernel allows
	}
	src, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer src.Close()
	dst := os.NewFile(uintptr(fd), "troupe-init")
	if _, err := io.Copy(dst, src); err != nil {
		return "", fmt.Errorf("copying the init: %w", err)
	}
	// A file that is open for writing cannot be executed (ETXTBSY), so it is
	// opened again for reading, before it forbids that.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	if err := dst.Chmod(0o111); err != nil {
		return "", err
	}
	dst.Close()
	keep, err := unix.FcntlInt(again.Fd(), unix.F_DUPFD_CLOEXEC, 10)
	again.Close()
	if err != nil {
		return "", os.NewSyscallError("fcntl", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", keep), nil
}
