// Command troupe-load prints the figures that troupe promises, measured in one
// run beside their baselines: os/exec, and a pipe copied into WebSocket frames.
// It starts trouped itself, on loopback, and stops it.
//
//	go build -o bin/ ./cmd/... && go run ./cmd/troupe-load
//
// A figure that misses its target is marked; the exit code is 0 all the same,
// because a busy machine is not a defect. Only a measurement that fails exits 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// measurement is one block of the report.
type measurement struct {
	name string
	run  func(context.Context, *env) error
}

var measurements = []measurement{
	{"true", measureTrue},
	{"throughput", measureThroughput},
	{"open", measureOpen},
	{"cancel", measureCancel},
	{"yes", measureYes},
	{"idle", measureIdle},
	{"peers", measurePeers},
}

// env is what the measurements share.
type env struct {
	trouped string // path of the binary
	runner  string
	quick   bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == rawServerArg {
		if err := rawServer(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "troupe-load: raw server:", err)
			os.Exit(1)
		}
		return
	}
	bin := flag.String("bin", "bin", "directory with trouped and troupe-runner")
	only := flag.String("only", "", "regular expression: measure only what matches (true, throughput, open, cancel, yes, idle, peers)")
	quick := flag.Bool("quick", false, "fewer rounds: a check that everything works, not figures to quote")
	flag.Parse()
	if err := run(*bin, *only, *quick); err != nil {
		fmt.Fprintln(os.Stderr, "troupe-load:", err)
		os.Exit(1)
	}
}

func run(bin, only string, quick bool) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	dir, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	e := &env{trouped: filepath.Join(dir, "trouped"), runner: filepath.Join(dir, "troupe-runner"), quick: quick}
	for _, path := range []string{e.trouped, e.runner} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w (run make build first, or give --bin)", err)
		}
	}
	raiseFileLimit()
	var failed []error
	for _, m := range measurements {
		if !match.MatchString(m.name) {
			continue
		}
		fmt.Printf("\n%s\n", m.name)
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		if err := m.run(ctx, e); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		cancel()
	}
	return errors.Join(failed...)
}

// raiseFileLimit lets this process and the trouped it starts hold ten thousand sockets.
func raiseFileLimit() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil && l.Cur < l.Max {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
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
