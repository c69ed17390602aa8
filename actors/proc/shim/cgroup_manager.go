//go:build linux

package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
)

// cgroupManager has the directory in which inits make cgroups v2, see cgroup. A nil cgroupManager has
// none.
type cgroupManager struct {
	base string // directory of the runner's own cgroup, troupe.PID
	fd   int    // of that directory
}

// openCgroupManager looks for a cgroup v2 that it may use. With "auto", finding none is not an
// error. It makes cgroups only below the runner's own cgroup and moves no process except the runner
// itself, and that only when the runner is alone in its cgroup.
func openCgroupManager(mode string) (*cgroupManager, error) {
	switch mode {
	case "off":
		return nil, nil
	case "", "auto":
		dir, err := ownCgroup()
		if err != nil {
			return nil, nil
		}
		m, err := newCgroupManager(dir, onlyProcess(dir))
		if err != nil {
			return nil, nil
		}
		return m, nil
	}
	m, err := newCgroupManager(mode, true)
	if err != nil {
		return nil, fmt.Errorf("--cgroup %s: %w", mode, err)
	}
	return m, nil
}

// ownCgroup returns the directory of this process's cgroup v2.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dir, _, err := proctree.CgroupDir(string(b), string(mounts), "")
	return dir, err
}

// onlyProcess reports whether this process is alone in a cgroup. Then it may rearrange that cgroup.
func onlyProcess(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

// wantedControllers limit or count something for an execution.
var wantedControllers = []string{"memory", "pids", "cpu"}

// newCgroupManager makes a cgroup below dir and tries it out. arrange permits changing dir itself:
// the runner leaves it, because a cgroup with processes cannot enable controllers for its children
// ("no internal process constraint").
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html#no-internal-process-constraint
func newCgroupManager(dir string, arrange bool) (*cgroupManager, error) {
	removeLeftovers(dir)
	m := &cgroupManager{base: filepath.Join(dir, "troupe."+strconv.Itoa(os.Getpid())), fd: -1}
	if err := os.Mkdir(m.base, 0o755); err != nil {
		return nil, err
	}
	if arrange && onlyProcess(dir) {
		home := filepath.Join(m.base, "runner")
		if os.Mkdir(home, 0o755) == nil {
			_ = os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte("0"), 0)
		}
	}
	if arrange {
		enableControllers(dir)
	}
	enableControllers(m.base)
	// The inits live there, too, and have to measure and to kill beside any number of busy sessions,
	// of which each has the default weight of 100.
	_ = os.WriteFile(filepath.Join(m.base, "runner", "cpu.weight"), []byte("1000"), 0)
	fd, err := unix.Open(m.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		m.fd = fd
		err = m.try()
	}
	if err != nil {
		m.remove()
		return nil, err
	}
	return m, nil
}

// enableControllers enables the wanted controllers for the children of dir. It writes them one by
// one, so that one that cannot be enabled does not prevent the others.
func enableControllers(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	have := strings.Fields(string(b))
	for _, c := range wantedControllers {
		for _, h := range have {
			if c == h {
				_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
			}
		}
	}
}

// try starts a process in a new cgroup: permission to make a cgroup does not imply permission to
// start a process in it.
func (m *cgroupManager) try() error {
	g := &cgroup{base: m.fd, name: leafName(0)}
	if err := g.enter("", frame.Bounds{}); err != nil {
		return err
	}
	defer m.removeLeaf(0)
	defer g.leaf.close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"troupe-runner", "--version"}, &syscall.ProcAttr{
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.leaf.dir},
	})
	if err != nil {
		return err
	}
	var info proctree.Siginfo
	for {
		err = proctree.Waitid(unix.P_PID, pid, &info, unix.WEXITED, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil && info.Status != 0 {
		err = fmt.Errorf("a process started in a new cgroup ended with status %d", info.Status)
	}
	return err
}

func (m *cgroupManager) containment() string {
	if m == nil {
		return frame.ContainmentTree
	}
	return frame.ContainmentCgroup
}

func (m *cgroupManager) path() string {
	if m == nil {
		return ""
	}
	return m.base
}

// leafOf makes the leaf of a clone, which could not do that itself. It returns nil if there is none.
func (m *cgroupManager) leafOf(req *frame.Clone, id uint64) *leaf {
	if m == nil {
		return nil
	}
	l, err := makeLeaf(m.fd, req.Workspace, leafName(id), req.Session)
	if err != nil {
		fmt.Fprintln(os.Stderr, "troupe-runner: the executions of a clone have no cgroup:", err)
		return nil
	}
	return l
}

// removeLeaf kills what is left in the leaf of an init, and removes it.
func (m *cgroupManager) removeLeaf(id uint64) {
	if m == nil {
		return
	}
	name := leafName(id)
	killAndRemove(filepath.Join(m.base, name))
	leaves, _ := filepath.Glob(filepath.Join(m.base, "*", name)) // fails for no such pattern
	for _, dir := range leaves {
		killAndRemove(dir)
		_ = os.Remove(filepath.Dir(dir)) // the session's, if it was the last one
	}
}

// forget removes the cgroup of a session that has ended.
func (m *cgroupManager) forget(session string) {
	if m != nil && frame.WorkspaceName(session) {
		proctree.RemoveCgroup(filepath.Join(m.base, session))
	}
}

// remove removes the empty cgroups. The runner's own stays if the runner is in it, and goes with
// the container.
func (m *cgroupManager) remove() {
	if m != nil {
		proctree.RemoveCgroup(m.base)
		unix.Close(m.fd)
	}
}

// killAndRemove removes the cgroup of one init, with the cgroups that a command made below it.
func killAndRemove(dir string) {
	if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
		return
	}
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	proctree.RemoveCgroup(dir)
}

// removeLeftovers removes the cgroups of runners that were killed before they could clean up. The
// kernel removes only empty cgroups, so one that is in use is safe.
func removeLeftovers(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, "troupe.*"))
	if err != nil {
		return
	}
	for _, path := range old {
		pid := strings.TrimPrefix(filepath.Base(path), "troupe.")
		// In a container every runner has the same pid.
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) || pid == strconv.Itoa(os.Getpid()) {
			proctree.RemoveCgroup(path)
		}
	}
}
