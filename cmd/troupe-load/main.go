// Command troupe-load is troupe's benchmark. It is not part of the product: no image and no release
// contains it. It prints the figures that troupe promises, each measured in the same run as its
// baseline: os/exec, a pipe copied into WebSocket frames, a hello-world program, or websocketd. It
// starts trouped itself, on loopback, and stops it.
//
//	make build && go run ./cmd/troupe-load [-only regexp]
//
// A figure that misses its target is marked, but the exit code is still 0, because a busy machine
// is not a defect. The exit code is 1 only if a measurement fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/cmd/troupe-load/attack"
)

// measurement is one block of the report.
type measurement struct {
	name string
	run  func(context.Context, *env) error
}

var measurements = []measurement{
	{"true", measureTrue},
	{"throughput", measureThroughput},
	{"pipe", measurePipe},
	{"files", measureCopies},
	{"files-tree", measureTree},
	{"files-cuts", measureCutTransfers},
	{"terminal", measureTerminal},
	{"open", measureOpen},
	{"cancel", measureCancel},
	{"mcp", measureMCP},
	{"yes", measureYes},
	{"idle", measureIdle},
	{"isolation", measureIsolation},
	{"bounds", measureBounds},
	{"peers", measurePeers},
	{"start", measureStart},
	{"websocketd", measureWebsocketd},
	{"hostile", measureHostile},
}

// env holds what the measurements share.
type env struct {
	trouped string // path of the binary
	runner  string
	troupe  string
	self    string // this program
	quick   bool

	// Only for hostile.
	attack   string // regular expression; empty: all attacks
	profiles string // directory; empty: none are saved
}

// newEnv finds the binaries in a directory.
func newEnv(bin string, quick bool) (*env, error) {
	dir, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	e := &env{trouped: in("trouped"), runner: in("troupe-runner"), troupe: in("troupe"), self: self, quick: quick}
	for _, path := range []string{e.trouped, e.runner, e.troupe} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w (run make build first, or give --bin)", err)
		}
	}
	return e, nil
}

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "troupe-load:", err)
		os.Exit(1)
	}
}

// command runs a command line: either the measurements or a helper process for one of them.
func command(args []string) error {
	switch {
	case len(args) > 1 && args[0] == rawServerArg:
		return rawServer(args[1])
	case len(args) > 0 && args[0] == bareServerArg:
		return bareServer()
	case len(args) > 1 && args[0] == delayedLinkArg:
		return delayedLink(args[1:])
	case len(args) > 2 && args[0] == openFilesArg:
		return openFiles(args[1], args[2])
	case len(args) > 0 && args[0] == turnAwayArg:
		return turnAway()
	case len(args) > 0 && args[0] == attack.Arg:
		return attack.Main(args[1:])
	}
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	bin := flag.String("bin", "bin", "directory with trouped, troupe and troupe-runner")
	only := flag.String("only", "", "regular expression: run only measurements that match ("+strings.Join(names, ", ")+")")
	quick := flag.Bool("quick", false, "run fewer rounds, to check that everything works; do not quote the figures")
	names = nil
	for _, a := range attack.Attacks {
		names = append(names, a.Name)
	}
	attacks := flag.String("attack", "", "regular expression: of hostile, run only attacks that match as a whole ("+strings.Join(names, ", ")+")")
	profiles := flag.String("profiles", "", "directory for profiles of the server that hostile attacks, saved every 5 s")
	flag.Parse()
	e, err := newEnv(*bin, *quick)
	if err != nil {
		return err
	}
	e.attack, e.profiles = *attacks, *profiles
	return run(e, *only)
}

func run(e *env, only string) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	attack.RaiseFileLimit() // ten thousand sockets here, and more in the troupeds and attackers it starts
	var failed []error
	for _, m := range measurements {
		if !match.MatchString(m.name) {
			continue
		}
		fmt.Printf("\n%s\n", m.name)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		if err := m.run(ctx, e); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		cancel()
	}
	return errors.Join(failed...)
}

// report prints one figure beside its target. An empty target is a baseline.
func report(what, value, target string, met bool) {
	mark := ""
	switch {
	case target == "":
	case met:
		mark = "ok"
	default:
		mark = "MISSED"
	}
	fmt.Printf("  %-62s %14s   %-16s %s\n", what, value, target, mark)
}
