// Cluster runs a Kubernetes cluster for tests on this machine, and commands in
// it. Package e2e/cluster says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

func main() {
	cluster.Main()
	// A second signal ends the command at once, as by default.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes of the command itself. A program that runs in the cluster has its
// own, which are passed on.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

func usage(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// exitError is the exit code of a program that has reported its error itself.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	var wrong usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "cluster: %v\nTry cluster help.\n", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "cluster: interrupted; the same command continues, `cluster down` stops what was started")
	case errors.Is(err, cluster.ErrOff):
		fmt.Fprintf(stderr, "cluster: %v; cluster up starts it\n", err)
	default:
		fmt.Fprintf(stderr, "cluster: %v\n", err)
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		printUsage(stderr)
		return usage("a command is missing")
	}
	if slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		printUsage(stdout)
		return nil
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return usage("%q is no command", args[0])
	}
	cmd, rest := commands[i], args[1:]
	cfg := cluster.Config{Log: stderr}
	if !cmd.verbatim {
		flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		if cmd.name == "up" {
			flags.IntVar(&cfg.Nodes, "nodes", 1, "")
		}
		err := flags.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			printUsage(stdout)
			return nil
		}
		if err != nil {
			return usage("%s: %v", cmd.name, err)
		}
		rest = flags.Args()
	}
	if len(rest) < cmd.least || cmd.most >= 0 && len(rest) > cmd.most {
		return usage("usage: cluster %s %s", cmd.name, cmd.args)
	}
	c, err := cluster.Open(cfg)
	if err != nil {
		return err
	}
	return cmd.run(ctx, c, rest, stdout)
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "A Kubernetes cluster on this machine, for tests. It has no route to the outside.\n\n")
	for _, cmd := range commands {
		fmt.Fprintf(w, "  cluster %-26s %s\n", cmd.name+" "+cmd.args, cmd.help)
	}
	fmt.Fprint(w, "\nBinaries, images and state are in $TROUPE_CLUSTER, by default ~/.cache/troupe-cluster.\n")
}
