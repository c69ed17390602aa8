//go:build linux

package proctree

import (
	"testing"
)

func TestCgroupDir(t *testing.T) {
	const v1 = "12:pids:/kubepods/pod7/c9\n4:cpuset,memory:/kubepods/pod7/c9\n1:name=systemd:/a:b\n0::/\n"
	const v1Mounts = "900 899 0:30 /kubepods/pod7/c9 /sys/fs/cgroup/pids ro,nosuid - cgroup cgroup rw,pids\n" +
		"901 899 0:31 /kubepods/pod7/c9 /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,cpuset,memory\n"
	const v2Mounts = "800 799 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
	for name, tc := range map[string]struct{ own, mounts, controller, dir, top string }{
		"v1 in a container, whose mounts begin at its cgroup": {
			v1, v1Mounts, "memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory",
		},
		"v1 on a machine": {
			"4:memory:/user/1\n", "30 25 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "memory",
			"/sys/fs/cgroup/memory/user/1", "/sys/fs/cgroup/memory",
		},
		"v1 with a cgroup namespace": {
			"4:memory:/\n", "30 25 0:31 / /mem rw - cgroup cgroup rw,memory\n", "memory", "/mem", "/mem",
		},
		"v2 with a cgroup namespace": {"0::/\n", v2Mounts, "", "/sys/fs/cgroup", "/sys/fs/cgroup"},
		"v2 below it":                {"0::/troupe.1/7\n", v2Mounts, "", "/sys/fs/cgroup/troupe.1/7", "/sys/fs/cgroup"},
		"v2 where v1 is asked for":   {"0::/\n", v2Mounts, "memory", "", ""},
		"a controller whose name is part of another": {
			"4:memory:/x\n", "30 25 0:31 / /m rw - cgroup cgroup rw,memory2\n", "memory", "", "",
		},
		"a mount of another container's cgroup": {
			v1, "901 899 0:31 /kubepods/pod8 /m rw - cgroup cgroup rw,memory\n", "memory", "", "",
		},
		"nothing": {"", "", "memory", "", ""},
		"garbage": {"4:memory\n::::\n", "a b c\n - cgroup\n", "memory", "", ""},
	} {
		dir, top, err := CgroupDir(tc.own, tc.mounts, tc.controller)
		if dir != tc.dir || top != tc.top || (err == nil) != (tc.dir != "") {
			t.Errorf("%s: %q, %q, %v", name, dir, top, err)
		}
	}
}
