package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// processesOf finds every process of a running cluster: those below its inits,
// which includes containers, and others in one of their namespaces. The numbers
// of namespaces are of no use afterwards, since the kernel gives them out again.
func processesOf(t *testing.T, c *Cluster) []identity {
	t.Helper()
	parents := map[int]int{}
	for _, pid := range allPIDs(t) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			rest, _ := afterName(string(stat))
			parents[pid], _ = strconv.Atoi(strings.Fields(rest)[1])
		}
	}
	var inits []int
	for _, name := range c.recordedNames() {
		id, err := c.recorded(name)
		if err != nil {
			t.Fatal(err)
		}
		inits = append(inits, id.PID)
	}
	below := func(pid int) bool {
		for pid > 1 && !slices.Contains(inits, pid) {
			pid = parents[pid]
		}
		return pid > 1
	}
	own, theirs := namespacesOf(os.Getpid()), map[string]bool{}
	for pid := range parents {
		if !below(pid) {
			continue
		}
		for _, ns := range namespacesOf(pid) {
			theirs[ns] = !slices.Contains(own, ns)
		}
	}
	var found []identity
	for pid := range parents {
		if below(pid) || slices.ContainsFunc(namespacesOf(pid), func(ns string) bool { return theirs[ns] }) {
			if id, err := identify(pid); err == nil {
				found = append(found, id)
			}
		}
	}
	return found
}

func allPIDs(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func namespacesOf(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/ns/*", pid))
	var all []string
	for _, l := range links {
		if ns, err := os.Readlink(l); err == nil {
			all = append(all, ns)
		}
	}
	return all
}

// mustLeaveNothing fails if anything of the cluster is left, of which these
// were the processes.
func mustLeaveNothing(t *testing.T, c *Cluster, processes []identity) {
	t.Helper()
	for _, id := range processes {
		if id.alive() {
			t.Errorf("process %d lives", id.PID)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.dir) {
			t.Errorf("mounted: %s", line)
		}
	}
	hierarchies, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		if _, err := os.Stat(filepath.Join(h, c.cgroup())); err == nil {
			t.Errorf("cgroups in %s", h)
		}
	}
	if exists(c.run()) {
		t.Errorf("state in %s", c.run())
	}
}

// machineState is what a cluster must not change: settings of the kernel, and
// directories that nodes have as their own.
func machineState(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sysctls)) {
		value, err := os.ReadFile("/proc/sys/" + name)
		fmt.Fprintf(&b, "%s=%s %v\n", name, value, err)
	}
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} {
		content, err := os.ReadFile(file)
		fmt.Fprintf(&b, "%s: %s %v\n", file, content, err)
	}
	for _, dir := range []string{
		"/etc/cni", "/var/lib/cni", "/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods",
		"/run/containerd", "/run/netns",
	} {
		_, err := os.Stat(dir)
		fmt.Fprintln(&b, dir, err == nil)
	}
	host, err := os.Hostname()
	fmt.Fprintln(&b, host, err)
	return b.String()
}
