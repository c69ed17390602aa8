package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main has to be the first call of main, or of TestMain, in every program that
// calls Up or PowerOn: these start the same binary again as the first process
// of a node, and Main then becomes that process and does not return.
func Main() {
	if filepath.Base(os.Args[0]) != initName {
		return
	}
	n := &initProcess{report: os.NewFile(4, "reports")}
	err := n.run()
	fmt.Fprintln(os.Stderr, err)
	fmt.Fprintf(n.report, "%s%s\n", reportFailed, strings.ReplaceAll(err.Error(), "\n", " "))
	os.Exit(1)
}

// initProcess is the first process of a node, or the holder of the network.
// While it lives, the kernel keeps the namespaces; when it dies, the kernel
// ends every process of the node and drops its mounts, interfaces and rules.
type initProcess struct {
	order
	report *os.File
	children
}

func (n *initProcess) run() error {
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	orders := os.NewFile(3, "orders")
	data, err := io.ReadAll(orders)
	if err != nil {
		return err
	}
	orders.Close()
	if len(data) == 0 {
		return errors.New("the starter died before it gave an order")
	}
	if err := json.Unmarshal(data, &n.order); err != nil {
		return err
	}
	// Only SIGKILL ends a node, like the power switch it stands for. A terminal
	// or a service manager that ends the starter's group does not.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	n.reap()
	if n.Name == networkName {
		err = n.network()
	} else {
		err = n.node()
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(n.report, reportStarted)
	n.report.Close()
	select {}
}

// network is all that the holder of the network does.
func (n *initProcess) network() error {
	if err := unix.Sethostname([]byte("client")); err != nil {
		return err
	}
	return n.setUpClientNetwork()
}

// node brings a node up, in the order in which a machine boots.
func (n *initProcess) node() error {
	if err := unix.Sethostname([]byte(n.Name)); err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"mounting", n.mount},
		{"configuring the network", n.setUpNodeNetwork},
		{"making cgroups", n.makeCgroups},
		{"writing configuration", n.configure},
		{"raising the limit of open files", raiseFileLimit},
		{"starting services", n.startServices},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// raiseFileLimit lets services have as many files as root may: containers
// inherit it.
func raiseFileLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// own is a path in the node's directory, which survives a power-off as a disk
// would.
func (n *initProcess) own(elem ...string) string {
	return filepath.Join(append([]string{n.Dir, "run", n.Name}, elem...)...)
}

// shared is a path in the directory of what all nodes are given: certificates
// and kubeconfigs.
func (n *initProcess) shared(elem ...string) string {
	return filepath.Join(append([]string{n.Dir, "run", "shared"}, elem...)...)
}
