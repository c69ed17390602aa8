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
	"os/exec"
	"os/signal"
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

// exit codes: what a command in the cluster ended with, or one of these.
const (
	exitFailed = 1
	exitUsage  = 2
)

// errUsage stands for a command line that makes no sense. The text that goes
// with it is for the user.
var errUsage = errors.New("")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w"+format, append([]any{errUsage}, args...)...)
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0 && len(exit.Stderr) == 0 && errors.Is(err, exit) && err == error(exit):
		return exit.ExitCode() // it has said why
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "cluster: %v\nTry cluster help.\n", err)
		return exitUsage
	case errors.Is(err, cluster.ErrOff):
		fmt.Fprintf(stderr, "cluster: %v: start it with cluster up\n", err)
		return exitFailed
	default:
		fmt.Fprintf(stderr, "cluster: %v\n", err)
		return exitFailed
	}
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		printUsage(stderr)
		return usage("a command is missing")
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		printUsage(stdout)
		return nil
	}
	for _, cmd := range commands {
		if cmd.name != args[0] {
			continue
		}
		flags := flag.NewFlagSet("cluster "+cmd.name, flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		cfg := cluster.Config{Log: stderr}
		if cmd.name == "up" {
			flags.IntVar(&cfg.Nodes, "nodes", 1, "")
		}
		rest := args[1:]
		if !cmd.verbatim {
			if err := flags.Parse(rest); err != nil && !errors.Is(err, flag.ErrHelp) {
				return usage("%s: %v", cmd.name, err)
			} else if err != nil {
				printUsage(stdout)
				return err
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
	return usage("%q is no command", args[0])
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, "A Kubernetes cluster on this machine, for tests. It has no route to the outside.\n\n")
	for _, cmd := range commands {
		fmt.Fprintf(w, "  cluster %-26s %s\n", cmd.name+" "+cmd.args, cmd.help)
	}
	fmt.Fprint(w, "\nBinaries, images and state are in $TROUPE_CLUSTER, by default ~/.cache/troupe-cluster.\n")
}
