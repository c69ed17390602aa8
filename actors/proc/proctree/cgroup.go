//go:build linux

package proctree

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// CgroupDir finds the directory of a cgroup, and the mount point of its hierarchy, from the
// contents of /proc/PID/cgroup and /proc/PID/mountinfo. controller names a controller of cgroup v1;
// "" means v2.
//
// https://man7.org/linux/man-pages/man7/cgroups.7.html
func CgroupDir(own, mounts, controller string) (dir, mountpoint string, err error) {
	path := ""
	for line := range strings.Lines(own) {
		// 4:memory:/some/path, or 0::/some/path
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (controller != "" && has(f[1], controller) || controller == "" && f[0] == "0") {
			path = f[2]
		}
	}
	if path == "" {
		return "", "", errors.New("no such cgroup")
	}
	for line := range strings.Lines(mounts) {
		// 36 35 0:31 ROOT MOUNTPOINT rw,... - cgroup cgroup rw,memory
		mount, fs, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		at, kind := strings.Fields(mount), strings.Fields(fs)
		if len(at) < 5 || len(kind) < 3 {
			continue
		}
		if controller == "" && kind[0] != "cgroup2" {
			continue
		}
		if controller != "" && (kind[0] != "cgroup" || !has(kind[2], controller)) {
			continue
		}
		rel, err := filepath.Rel(at[3], path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		return filepath.Join(at[4], rel), at[4], nil
	}
	return "", "", errors.New("no such cgroup is mounted")
}

// has reports whether a comma-separated list contains a word.
func has(list, word string) bool { return slices.Contains(strings.Split(list, ","), word) }

// RemoveCgroup removes an empty cgroup and those below it, the deepest first. Cgroups with
// processes stay: the kernel refuses to remove them.
func RemoveCgroup(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			RemoveCgroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
