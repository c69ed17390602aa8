// Command trouped is troupe's server: it runs clients' commands and streams
// their output over WebSocket. `trouped --help` lists every setting.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	cmap "github.com/orcaman/concurrent-map"
	"golang.org/x/sys/unix"
)

// version is set with -ldflags "-X main.version=…".
var version = "dev"

// Exit codes.
const (
	exitFailure = 1 // it could not start, or was stopped before the drain was complete
	exitUsage   = 2 // the command line, the environment or the configuration file is wrong
)

func main() {
	os.Exit(run(os.Args[1:], serve))
}

// tuneMemory is the one place that tunes memory. It returns a ballast for the caller
// to keep alive.
//
// The ballast is never touched, so it takes no memory, but it counts as live heap. A server with
// few sessions has a live heap of some megabytes, and Go would collect after every 4 MB allocated:
// without the ballast the 99th percentile of BenchmarkOpenHundredSessions (./actors) is 2.9 ms
// instead of 1.2 ms. A higher GOGC would have the same effect, but would also let the heap of ten
// thousand sessions grow.
//
// protoactor finds actors by name in 1,024 maps (actor/process_registry.go in
// v0.0.0-20240822202345-3c0e61ca19c9), each split into shards that have their own lock. With the
// default of 32 shards the maps take 4 MiB of live heap, and so 8 MiB of memory, before the first
// actor starts. One shard per map is enough.
func tuneMemory() (ballast []byte) {
	cmap.SHARD_COUNT = 1
	return make([]byte, 16<<20)
}

const (
	// memoryBase and memoryPerSession bound what trouped's memory, without the pages of its program,
	// grows to before Go collects at once instead of when the heap has doubled: docs/budgets.md has what
	// may be live. Without it, garbage would double that.
	memoryBase       = 48 << 20
	memoryPerSession = 1280 << 10
)

// limitMemory sets Go's soft memory limit, unless GOMEMLIMIT is lower.
func limitMemory(sessions int) {
	if goal := int64(memoryBase + memoryPerSession*sessions); goal < debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(goal)
	}
}

// run executes a command line and returns the exit code. It reports an error as one line on stderr.
func run(args []string, serve func(*config) error) int {
	// This comes before reading any secret: commands may run as the same user, and could otherwise
	// read this process's memory and environment under /proc, or trace it.
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

// failure is an error of the running server, as opposed to a usage error.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }
