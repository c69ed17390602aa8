package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Running reports whether the cluster's network and at least its first node
// are up. It does not ask whether Kubernetes answers.
func (c *Cluster) Running() bool {
	_, network := c.recorded(networkName)
	_, first := c.recorded(nodeName(1))
	return network == nil && first == nil
}

// Enter replaces this process by another program that runs in the cluster's
// network, as a client outside of every node: the cluster's DNS server in
// resolv.conf, the nodes in hosts, KUBECONFIG set, everything else as it was,
// the current directory too. It returns only with an error.
func (c *Cluster) Enter(argv ...string) error {
	id, err := c.recorded(networkName)
	if err != nil {
		return err
	}
	if len(argv) == 0 {
		return errors.New("no command")
	}
	c.prepareEnvironment()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// What a thread has entered holds for what it executes.
	runtime.LockOSThread()
	if err := enterNetwork(id); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace for %s: %w", argv[0], err)
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	for _, file := range []string{"resolv.conf", "hosts"} {
		target, err := filepath.EvalSymlinks("/etc/" + file)
		if err != nil {
			continue // nothing to hide: without resolv.conf, glibc asks 127.0.0.1
		}
		if err := mount(c.run(networkName, file), target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, argv, os.Environ()))
}

// prepareEnvironment sets what a program in the cluster's network needs.
func (c *Cluster) prepareEnvironment() {
	os.Setenv("KUBECONFIG", c.Kubeconfig())
	// The cluster's own kubectl and helm before others, what only root has in PATH
	// behind them.
	os.Setenv("PATH", c.Program("")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
}

// Command prepares a program to run in the cluster's network, with KUBECONFIG
// set. It differs from a program in Enter in that it sees the machine's
// resolv.conf. The name is looked up among the cluster's programs (kubectl,
// helm) before PATH.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	id, err := c.recorded(networkName)
	if err != nil {
		return nil, err
	}
	return c.nsenter(ctx, id, []string{"--net"}, name, args...), nil
}

func (c *Cluster) nsenter(
	ctx context.Context, id identity, namespaces []string, name string, args ...string,
) *exec.Cmd {
	if own := c.Program(name); unix.Access(own, unix.X_OK) == nil {
		name = own
	}
	argv := append([]string{"--target", strconv.Itoa(id.PID)}, namespaces...)
	argv = append(append(argv, "--", name), args...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	return cmd
}

// In calls a function on a thread that is in the cluster's network: sockets
// that it opens, on its own goroutine, belong there for as long as they live.
// Goroutines that it starts are elsewhere.
func (c *Cluster) In(do func() error) error {
	id, err := c.recorded(networkName)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine, and no
		// other goroutine ever runs in the wrong network.
		runtime.LockOSThread()
		if err := enterNetwork(id); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

func enterNetwork(id identity) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", id.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the cluster's network: %w", err)
	}
	return nil
}

// DialContext dials an address in the cluster's network. It fits into
// rest.Config, http.Transport and the like. The host has to be an IP address:
// names would be looked up on this machine.
func (c *Cluster) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("dialing %s: only IP addresses can be dialed from outside of the cluster's network", address)
	}
	var conn net.Conn
	err = c.In(func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens in the cluster's network, where pods reach it by
// ClientAddress.
func (c *Cluster) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var l net.Listener
	err := c.In(func() error {
		var err error
		l, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	return l, err
}
