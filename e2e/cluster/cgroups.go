package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// nodeCgroup is the root of a node's pods in every hierarchy, without a
// leading slash.
func nodeCgroup(cluster, node string) string { return filepath.Join(cluster, node) }

// hierarchies lists the directories in which a node has cgroups: one with
// cgroup v2, one for each controller with v1. Of a machine with both, v1 has
// the controllers, but runc uses v2 too.
func hierarchies() ([]string, error) {
	if fsType(cgroupRoot) == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries { // a controller that shares a hierarchy is a symbolic link, and no directory
		dir := filepath.Join(cgroupRoot, e.Name())
		if t := fsType(dir); e.IsDir() && (t == unix.CGROUP_SUPER_MAGIC || t == unix.CGROUP2_SUPER_MAGIC) {
			found = append(found, dir)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no cgroup hierarchy: mount cgroup2 there", cgroupRoot)
	}
	return found, nil
}

func fsType(dir string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return s.Type
}

// makeCgroups makes the node's empty cgroup in every hierarchy.
func (n *initProcess) makeCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	cgroup := nodeCgroup(n.Cgroup, n.Name)
	for _, h := range all {
		// A machine that boots has no cgroups. Stale ones of pods cost the kubelet
		// 3 s each.
		if err := removeTree(filepath.Join(h, cgroup)); err != nil {
			return err
		}
		if err := makeCgroup(h, cgroup, fsType(h) == unix.CGROUP2_SUPER_MAGIC); err != nil {
			return err
		}
	}
	return nil
}

// makeCgroup makes the cgroup at path below the hierarchy and lets every
// controller work there: in v2 by enabling it in each parent, in v1 by copying
// the CPUs and memory nodes, of which a new cgroup has none.
func makeCgroup(hierarchy, path string, v2 bool) error {
	dir := hierarchy
	for elem := range strings.SplitSeq(path, "/") {
		parent := dir
		dir = filepath.Join(dir, elem)
		if v2 {
			if err := enableControllers(parent); err != nil {
				return err
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if v2 {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(parent, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue // not the hierarchy of cpuset
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
			}
			if err != nil {
				return err
			}
		}
	}
	if v2 {
		return enableControllers(dir)
	}
	return nil
}

// enableControllers hands every controller that a v2 cgroup has to its
// children.
func enableControllers(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	enabled := strings.Fields(string(on))
	for controller := range strings.FieldsSeq(string(have)) {
		if slices.Contains(enabled, controller) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enabling the %s controller in %s: %w", controller, dir, err)
		}
	}
	return nil
}

// removeTree removes a cgroup and all below it. It fails with EBUSY while a
// process is in one of them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing cgroup %s: %w", dir, err)
	}
	return nil
}

// cgroupTimeout bounds how long a cgroup may stay busy after its last process
// was killed: the kernel removes an exiting task from it a little later.
const cgroupTimeout = 10 * time.Second

// removeCgroups removes a cgroup, the name relative to the hierarchies, after
// its processes were killed.
func removeCgroups(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, cgroupTimeout)
	defer cancel()
	all, err := hierarchies()
	if err != nil {
		return nil //nolint:nilerr // no hierarchies, no cgroups
	}
	for _, h := range all {
		for {
			err := removeTree(filepath.Join(h, name))
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EBUSY) || pause(ctx, 20*time.Millisecond) != nil {
				return err
			}
		}
	}
	return nil
}
