package cluster

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// sysctls are settings of the whole machine that a kubelet insists on. A node
// must not change the machine, so the kubelet is shown files that already hold
// its values.
var sysctls = map[string]string{
	"vm/overcommit_memory": "1",
	"vm/panic_on_oom":      "0",
	"kernel/panic":         "10",
	"kernel/panic_on_oops": "1",
}

// mount gives the node its own view of every directory that it, or something
// on it, writes to. The rest is the machine's, read by node and machine alike.
func (n *initProcess) mount() error {
	for _, dir := range []string{
		"etc", "etc.work", "varlib", "varlib.work", "varlog", "sysctl", "containerd", "kubelet", "etcd",
	} {
		if err := os.MkdirAll(n.own(dir), 0o755); err != nil {
			return err
		}
	}
	// What overlayfs left in its work directory when the power went is of no use,
	// and in the way.
	for _, dir := range []string{"etc.work/work", "varlib.work/work"} {
		if err := os.RemoveAll(n.own(dir)); err != nil {
			return err
		}
	}
	overlay := func(dir, name string) error {
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, n.own(name), n.own(name+".work"))
		return mount("overlay", dir, "overlay", 0, options)
	}
	return inOrder(
		// First of all, so that nothing that follows shows on the machine.
		func() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") },
		func() error { return mount("tmpfs", "/run", "tmpfs", 0, "mode=755") },
		func() error { return os.Mkdir("/run/lock", 0o755) },
		func() error { return os.Mkdir("/run/netns", 0o755) },
		mountSys,
		func() error { return overlay("/etc", "etc") },
		func() error { return overlay("/var/lib", "varlib") },
		func() error { return mount(n.own("varlog"), "/var/log", "", unix.MS_BIND, "") },
		// containerd's snapshots are overlays themselves and cannot lie on one.
		func() error { return bind(n.own("containerd"), "/var/lib/containerd") },
		// The kubelet's volumes have to appear in containers that ask for mount
		// propagation.
		func() error { return bind(n.own("kubelet"), "/var/lib/kubelet") },
		func() error { return mount("", "/var/lib/kubelet", "", unix.MS_REC|unix.MS_SHARED, "") },
		n.hideSysctls,
	)
}

// inOrder does one step after another and stops at the first that fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mountSys mounts a sysfs that shows the node's network interfaces instead of
// the machine's, with the machine's cgroups in it. It is read-only: what can be
// written there, cgroups aside, belongs to the machine.
func mountSys() error {
	const next = "/run/sys"
	if err := os.Mkdir(next, 0o755); err != nil {
		return err
	}
	return inOrder(
		func() error {
			return mount("sysfs", next, "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		func() error { return mount("/sys/fs/cgroup", next+"/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return mount(next, "/sys", "", unix.MS_MOVE, "") },
	)
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return mount(from, to, "", unix.MS_BIND, "")
}

func (n *initProcess) hideSysctls() error {
	for name, value := range sysctls {
		file := n.own("sysctl", filepath.Base(name))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", cmp.Or(source, fstype, "flags"), target, err)
	}
	return nil
}
