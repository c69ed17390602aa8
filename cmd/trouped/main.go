// Command trouped is troupe's server: it runs clients' commands and streams
// their output over WebSocket. `trouped --help` lists every setting.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// version is set with -ldflags "-X main.version=…".
var version = "dev"

// Exit codes.
const (
	exitFailure = 1 // it could not start, or was stopped before its work was done
	exitUsage   = 2 // the command line, the environment or the configuration file is wrong
)

func main() {
	os.Exit(run(os.Args[1:], serve))
}

// tuneMemory is the one place that says when to collect garbage. It returns a
// ballast to be kept alive: it is never touched, so that it takes no memory, but
// counts as live heap. A server with few sessions has a live heap of some megabytes, and Go would collect whenever
// another four are allocated: a hundred clients that come at once would wait for
// that. A higher GOGC would be paid by large heaps, of ten thousand sessions; the
// ballast moves small ones only.
func tuneMemory() (ballast []byte) { return make([]byte, 16<<20) }

// run executes a command line and returns the exit code. What went wrong is one line on stderr.
func run(args []string, serve func(*config) error) int {
	// Before anything secret is read: commands may run as the same user, and could
	// otherwise read this process's memory and environment under /proc, or trace it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fmt.Fprintf(os.Stderr, "trouped: cannot shield its memory from commands: %v\n", err)
		return exitFailure
	}
	defer runtime.KeepAlive(tuneMemory())
	cmd := newCommand(serve)
	cmd.SetArgs(args)
	err := cmd.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "trouped: %v\n", err)
	if errors.As(err, new(failure)) {
		return exitFailure
	}
	return exitUsage
}

// failure is an error of the running server, not of the way it was called.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }
