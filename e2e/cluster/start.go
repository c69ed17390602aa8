package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// initName is argv[0] of an init: the same binary, started again.
const initName = "troupe-cluster-init"

// networkName is the init that holds the cluster's network. Everything else
// is a node.
const networkName = "net"

// startTimeout bounds the start of one init to the point where all its services
// run. An idle two-core machine needs 10 s; one that compiles beside it, a
// minute.
const startTimeout = 3 * time.Minute

// order is what an init gets from its starter, as JSON on descriptor 3. An
// init that reads nothing there has lost its starter and exits.
type order struct {
	Name   string   `json:"name"`   // networkName or that of a node
	Number int      `json:"number"` // of a node, from 1
	Dir    string   `json:"dir"`
	Cgroup string   `json:"cgroup"`
	Images []string `json:"images"` // tarballs to import
}

func nodeName(number int) string { return fmt.Sprintf("node%d", number) }

// nodeNumber is the reverse of nodeName; 0 for anything else.
func nodeNumber(name string) int {
	var n int
	if _, err := fmt.Sscanf(name, "node%d", &n); err != nil || n < 1 || n > maxNodes || nodeName(n) != name {
		return 0
	}
	return n
}

// start starts an init and waits until it says that everything it has to start
// runs. connect is called with the init's id while it waits for its order.
func (c *Cluster) start(ctx context.Context, o order, flags uintptr, connect func(pid int) error) (err error) {
	late := fmt.Errorf("%s has not started after %s", o.Name, startTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, late)
	defer cancel()
	if err := os.MkdirAll(c.run(o.Name, "log"), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(c.run(o.Name, "log", "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	ordersIn, ordersOut, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ordersOut.Close()
	reportsIn, reportsOut, err := os.Pipe()
	if err != nil {
		ordersIn.Close()
		return err
	}
	defer reportsIn.Close()

	// Not by exec.CommandContext: an init outlives its starter.
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // see above
	cmd.Args = []string{initName, o.Name}
	cmd.Env = []string{"PATH=" + c.path(), "HOME=/root", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ordersIn, reportsOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags}
	err = cmd.Start()
	ordersIn.Close()
	reportsOut.Close()
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("the kernel refuses new namespaces to this process: "+
			"run as root, not in a container without CAP_SYS_ADMIN: %w", err)
	}
	if err != nil {
		return err
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	defer func() {
		if err != nil {
			_ = id.kill(context.WithoutCancel(ctx))
		}
	}()
	if err := c.record(o.Name, id); err != nil {
		return err
	}
	if err := connect(id.PID); err != nil {
		return err
	}
	if err := json.NewEncoder(ordersOut).Encode(o); err != nil {
		return err
	}
	ordersOut.Close()
	return c.await(ctx, o.Name, reportsIn)
}

// reports of an init, one a line.
const (
	reportStarted = "started"
	reportFailed  = "failed: "
)

// await reads an init's reports until it has started.
func (c *Cluster) await(ctx context.Context, name string, reports *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = reports.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewScanner(reports)
	for lines.Scan() {
		line := lines.Text()
		if line == reportStarted {
			return nil
		}
		if what, failed := strings.CutPrefix(line, reportFailed); failed {
			return fmt.Errorf("%s: %s", name, what)
		}
		c.say("%s", line)
	}
	logs := c.run(name, "log")
	if ctx.Err() != nil {
		return fmt.Errorf("%w; see the logs in %s", context.Cause(ctx), logs)
	}
	return fmt.Errorf("%s died while it started; see %s", name, filepath.Join(logs, "init.log"))
}

// path is PATH of everything in the cluster. Debian keeps iptables, nft and
// runc in directories that a user's PATH lacks.
func (c *Cluster) path() string {
	return filepath.Join(c.dir, "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}
