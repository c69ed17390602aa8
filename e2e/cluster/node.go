package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Node is one node of a cluster, running or not.
type Node struct {
	c      *Cluster
	number int
}

// Node returns the node with this name: node1 to node9.
func (c *Cluster) Node(name string) (*Node, error) {
	number := nodeNumber(name)
	if number == 0 {
		return nil, fmt.Errorf("%q is no node: they are called %s to %s", name, nodeName(1), nodeName(maxNodes))
	}
	return &Node{c, number}, nil
}

// Nodes lists the nodes that have been started since the last Down, those that
// are off included, in the order of their numbers.
func (c *Cluster) Nodes() []*Node {
	var all []*Node
	for m := 1; m <= maxNodes; m++ {
		if _, err := os.Stat(c.stateFile(nodeName(m))); err == nil {
			all = append(all, &Node{c, m})
		}
	}
	return all
}

// Name is the node's name, in Kubernetes too.
func (n *Node) Name() string { return nodeName(n.number) }

// Address is the node's IP address in the cluster's network.
func (n *Node) Address() string { return lanAddress(n.number) }

// LogDir is where the logs of the node's services are, one file each:
// kubelet.log, containerd.log.
func (n *Node) LogDir() string { return n.c.run(n.Name(), "log") }

// PID is the id, on this machine, of the node's first process. The error is
// ErrOff when the node is off. Below /proc/PID/root is what the node sees;
// /proc/PID/root/proc shows every process on it.
func (n *Node) PID() (int, error) {
	id, err := n.c.recorded(n.Name())
	return id.PID, err
}

// PowerOff cuts the node's power: SIGKILL to its first process, and the kernel
// drops every process, container, mount, interface and rule. The disk stays.
// The cable goes first, so that the node's peers hear nothing: the kernel would
// still close the connections of processes that it kills. It is not an error
// when the node is off.
func (n *Node) PowerOff(ctx context.Context) error {
	release, err := n.c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return n.powerOff(ctx)
}

func (n *Node) powerOff(ctx context.Context) error {
	id, err := n.c.recorded(n.Name())
	if err != nil {
		return nil //nolint:nilerr // off already
	}
	n.unplug(ctx)
	if err := id.kill(ctx); err != nil {
		return err
	}
	return removeCgroups(ctx, nodeCgroup(n.c.cgroup(), n.Name()))
}

// PowerOn boots the node with the disk that it had, and returns when its
// services run; the node is Ready a little later. It is an error when the node
// is on.
func (n *Node) PowerOn(ctx context.Context) error {
	release, err := n.c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return n.powerOn(ctx)
}

func (n *Node) powerOn(ctx context.Context) error {
	if _, err := n.c.recorded(n.Name()); err == nil {
		return fmt.Errorf("%s is on", n.Name())
	}
	if _, err := n.c.recorded(networkName); err != nil {
		return fmt.Errorf("the cluster: %w", ErrOff)
	}
	o := order{Name: n.Name(), Number: n.number, Dir: n.c.dir, Cgroup: n.c.cgroup(), Images: n.c.imageTarballs()}
	const own = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC |
		syscall.CLONE_NEWUTS
	return n.c.start(ctx, o, own, func(pid int) error {
		// A node that died by itself has left its port, until the kernel comes to it.
		n.unplug(ctx)
		cmd, err := n.c.Command(ctx, "ip", "-batch", "-")
		if err != nil {
			return err
		}
		cmd.Stdin = strings.NewReader(strings.Join(plugLinks(n.number, pid), "\n") + "\n")
		_, err = output(cmd)
		return err
	})
}

// unplug removes the node's port from the bridge, and with it the interface on
// the node. It may be gone already.
func (n *Node) unplug(ctx context.Context) {
	if cmd, err := n.c.Command(ctx, "ip", "link", "del", n.Name()); err == nil {
		_ = cmd.Run()
	}
}

// Command prepares a program to run on the node, outside of every container:
// with its processes, files and network.
func (n *Node) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	id, err := n.c.recorded(n.Name())
	if err != nil {
		return nil, err
	}
	cmd := n.c.nsenter(ctx, id, []string{"--mount", "--net", "--pid", "--ipc", "--uts"}, name, args...)
	cmd.Env = append(cmd.Env, "PATH="+n.c.path())
	return cmd, nil
}

// Process is a process on a node, in a container or not.
type Process struct {
	// PID is its id on the node: what Command(ctx, "kill", …) takes.
	PID int
	// Args are its arguments. A kernel thread or a zombie has none.
	Args []string
	// Cgroup is the content of proc(5) cgroup, which names the pod's UID.
	Cgroup string
}

// Processes lists what runs on the node, by PID.
func (n *Node) Processes() ([]Process, error) {
	id, err := n.c.recorded(n.Name())
	if err != nil {
		return nil, err
	}
	proc := fmt.Sprintf("/proc/%d/root/proc", id.PID)
	// A process finds itself in the machine's /proc, which a node sees until it
	// has mounted its own.
	if _, err := os.Readlink(filepath.Join(proc, "self")); err == nil {
		return nil, fmt.Errorf("%s has only begun to boot", n.Name())
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name(), err)
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		cgroup, _ := os.ReadFile(filepath.Join(proc, e.Name(), "cgroup"))
		p := Process{PID: pid, Cgroup: string(cgroup)}
		if args = bytes.TrimSuffix(args, []byte{0}); len(args) > 0 {
			p.Args = strings.Split(string(args), "\x00")
		}
		all = append(all, p)
	}
	return all, nil
}
