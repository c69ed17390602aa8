//go:build linux

package shim

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Main is the program troupe-runner. It returns the exit code. The caller must have locked the main
// goroutine to the main thread in an init function, since a parent-death signal is sent when the
// thread that forked exits (golang.org/issue/27505).
func Main(version string, args []string) int {
	if len(args) == 3 && args[1] == initArg {
		slack, _ := strconv.Atoi(args[2])
		return initMain(slack)
	}
	if len(args) == 2 && args[1] == probeArg {
		return probeMain()
	}
	// First of all, for the same reason as in initMain.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail(os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err))
	}
	flags := flag.NewFlagSet("troupe-runner", flag.ContinueOnError)
	installAt := flags.String("install", "", "copy this program to the absolute `path` and exit")
	connect := flags.String("connect", "", "unix `socket` of the trouped to serve; the runner waits until it exists")
	fd := flags.Int("fd", -1, "inherited `descriptor` of a connected socket (used by trouped)")
	cgroup := flags.String("cgroup", "auto", "auto, off, or a cgroup v2 `directory` to make cgroups in")
	isolation := isolationFlags(flags)
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
		return fail(errors.New("--install cannot be combined with other flags"))
	case *installAt != "":
		if err := install(*installAt); err != nil {
			return fail(err)
		}
		return 0
	case (*connect == "") == (*fd < 0):
		return fail(errors.New("--connect with the path of trouped's socket is required"))
	}
	err := isolation.check()
	switch {
	case err != nil:
	case *connect != "":
		isolation.socket = *connect
		err = serveAt(*connect, version, *cgroup, isolation)
	default:
		if err = harden(); err == nil {
			err = serve(*fd, -1, version, *cgroup, isolation)
		}
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

// harden keeps commands from inheriting this process's descriptors, and fails if a debugger
// attached before tracing was forbidden.
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
