package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/troupe-dev/troupe/e2e/cluster"
)

// command is a subcommand. With verbatim set, its arguments are those of
// another program and not looked at. most is -1 for any number.
type command struct {
	name, args, help string
	verbatim         bool
	least, most      int
	run              func(ctx context.Context, c *cluster.Cluster, args []string, stdout io.Writer) error
}

var commands = []command{
	{name: "up", args: "[--nodes N]", help: "start the cluster, or add nodes; makes missing programs and images", run: up},
	{
		name: "down", help: "stop it and leave nothing but binaries, images and logs",
		run: func(ctx context.Context, c *cluster.Cluster, _ []string, _ io.Writer) error { return c.Down(ctx) },
	},
	{name: "status", help: "print what runs and which nodes are Ready", run: status},
	{
		name: "kubectl", args: "ARG...", help: "kubectl, as cluster-admin",
		verbatim: true, most: -1, run: program("kubectl"),
	},
	{name: "helm", args: "ARG...", help: "helm, as cluster-admin", verbatim: true, most: -1, run: program("helm")},
	{
		name: "load", args: "TAR...", help: "import image tarballs on every node", least: 1, most: -1,
		run: func(ctx context.Context, c *cluster.Cluster, args []string, _ io.Writer) error {
			return c.Load(ctx, args...)
		},
	},
	{
		name: "in", args: "net|NODE CMD...", help: "run a program in the cluster's network, or on a node",
		verbatim: true, least: 2, most: -1, run: in,
	},
	{name: "exec", args: "NODE CMD...", help: "run a program on a node", verbatim: true, least: 2, most: -1, run: on},
	{name: "power-off", args: "NODE", help: "cut a node's power", least: 1, most: 1, run: power((*cluster.Node).PowerOff)},
	{
		name: "power-on", args: "NODE", help: "boot a node that is off",
		least: 1, most: 1, run: power((*cluster.Node).PowerOn),
	},
	{name: "kubeconfig", help: "print the path of the kubeconfig, for use inside the network", run: kubeconfig},
	{name: "env", help: "print settings for a shell in the network: eval \"$(cluster env)\"", run: env},
	{
		name: "packages", help: "install the Debian packages that are missing",
		run: func(ctx context.Context, c *cluster.Cluster, _ []string, _ io.Writer) error {
			return c.InstallPackages(ctx)
		},
	},
	{
		name: "build", help: "build its programs; 15 to 25 minutes the first time",
		run: func(ctx context.Context, c *cluster.Cluster, _ []string, _ io.Writer) error { return c.Build(ctx) },
	},
	{
		name: "images", help: "make its images",
		run: func(ctx context.Context, c *cluster.Cluster, _ []string, _ io.Writer) error { return c.Images(ctx) },
	},
}

func up(ctx context.Context, c *cluster.Cluster, _ []string, _ io.Writer) error {
	if err := c.InstallPackages(ctx); err != nil {
		return err
	}
	return c.Up(ctx)
}

// program runs one of the cluster's programs, or any other one, in its
// network. It does not return when it succeeds.
func program(name string) func(context.Context, *cluster.Cluster, []string, io.Writer) error {
	return func(_ context.Context, c *cluster.Cluster, args []string, _ io.Writer) error {
		return c.Enter(append([]string{name}, args...)...)
	}
}

func in(ctx context.Context, c *cluster.Cluster, args []string, stdout io.Writer) error {
	if args[0] == "net" {
		return c.Enter(args[1:]...)
	}
	return on(ctx, c, args, stdout)
}

func on(ctx context.Context, c *cluster.Cluster, args []string, stdout io.Writer) error {
	n, err := c.Node(args[0])
	if err != nil {
		return usage("%v", err)
	}
	cmd, err := n.Command(ctx, args[1], args[2:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, os.Stderr
	// A terminal's Ctrl-C reaches the program by itself.
	cmd.Cancel = func() error { return nil }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exitError(exit.ExitCode())
	}
	return err
}

func power(
	do func(*cluster.Node, context.Context) error,
) func(context.Context, *cluster.Cluster, []string, io.Writer) error {
	return func(ctx context.Context, c *cluster.Cluster, args []string, _ io.Writer) error {
		n, err := c.Node(args[0])
		if err != nil {
			return usage("%v", err)
		}
		return do(n, ctx)
	}
}

func kubeconfig(_ context.Context, c *cluster.Cluster, _ []string, stdout io.Writer) error {
	fmt.Fprintln(stdout, c.Kubeconfig())
	return nil
}

func env(_ context.Context, c *cluster.Cluster, _ []string, stdout io.Writer) error {
	fmt.Fprintf(stdout, "export KUBECONFIG=%q PATH=%q:\"$PATH\"\n", c.Kubeconfig(), c.Program(""))
	return nil
}

// status prints what runs, and what Kubernetes reports.
func status(ctx context.Context, c *cluster.Cluster, _ []string, stdout io.Writer) error {
	fmt.Fprintln(stdout, "directory ", c.Dir())
	if !c.Running() {
		fmt.Fprintln(stdout, "cluster    off")
		return nil
	}
	fmt.Fprintf(stdout, "API server https://%s\ningress    http://%s\n", cluster.APIServer, cluster.IngressAddress)
	for _, n := range c.Nodes() {
		if pid, err := n.PID(); err == nil {
			fmt.Fprintf(stdout, "%-10s on, first process %d, logs in %s\n", n.Name(), pid, n.LogDir())
		} else {
			fmt.Fprintf(stdout, "%-10s off\n", n.Name())
		}
	}
	for _, args := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A", "-o", "wide"}} {
		cmd, err := c.Command(ctx, "kubectl", args...)
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = stdout, os.Stderr
		fmt.Fprintln(stdout)
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}
