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

// hierarchy is where the runner makes one cgroup per init. A nil hierarchy
// makes none.
type hierarchy struct {
	base string // our own cgroup, made by us: troupe.PID
	fd   int
}

// openHierarchy looks for a cgroup v2 that may be used. With "auto" finding
// none is not an error. It only ever makes cgroups below the runner's own,
// moves no process but the runner itself, and that only when nothing else
// lives in its cgroup.
func openHierarchy(mode string) (*hierarchy, error) {
	switch mode {
	case "off":
		return nil, nil
	case "", "auto":
		dir, err := ownCgroup()
		if err != nil {
			return nil, nil
		}
		h, err := makeHierarchy(dir, onlyProcess(dir))
		if err != nil {
			return nil, nil
		}
		return h, nil
	}
	h, err := makeHierarchy(mode, true)
	if err != nil {
		return nil, fmt.Errorf("--cgroup %s: %w", mode, err)
	}
	return h, nil
}

// ownCgroup is the directory of this process's cgroup v2.
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

// onlyProcess says whether this process is alone in a cgroup, which makes the
// cgroup its own to arrange.
func onlyProcess(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

// wanted are the controllers that limit or count something for an execution.
var wanted = []string{"memory", "pids", "cpu"}

// makeHierarchy makes and tries out a cgroup below dir. arrange allows to
// change dir itself: to leave it, so that it may hand its controllers down.
func makeHierarchy(dir string, arrange bool) (*hierarchy, error) {
	removeLeftovers(dir)
	h := &hierarchy{base: filepath.Join(dir, "troupe."+strconv.Itoa(os.Getpid())), fd: -1}
	if err := os.Mkdir(h.base, 0o755); err != nil {
		return nil, err
	}
	if arrange && onlyProcess(dir) {
		home := filepath.Join(h.base, "runner")
		if os.Mkdir(home, 0o755) == nil {
			_ = os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte("0"), 0)
		}
	}
	if arrange {
		enableControllers(dir)
	}
	enableControllers(h.base)
	fd, err := unix.Open(h.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		h.fd = fd
		err = h.try()
	}
	if err != nil {
		h.remove()
		return nil, err
	}
	return h, nil
}

// enableControllers hands down what is there, one by one: one that cannot be
// enabled must not keep the others back.
func enableControllers(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	have := strings.Fields(string(b))
	for _, c := range wanted {
		for _, h := range have {
			if c == h {
				_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
			}
		}
	}
}

// try starts a process in a leaf. Permission to make a cgroup is not yet
// permission to start something in it.
func (h *hierarchy) try() error {
	dir, name, ok := h.newLeaf(0)
	if !ok {
		return errors.New("cannot make a cgroup")
	}
	defer h.removeLeaf(name)
	defer unix.Close(dir)
	l := &leaf{dir: dir}
	if _, err := l.read("cgroup.events"); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"troupe-runner", "--version"}, &syscall.ProcAttr{
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir},
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

func (h *hierarchy) containment() string {
	if h == nil {
		return frame.ContainmentTree
	}
	return frame.ContainmentCgroup
}

func (h *hierarchy) path() string {
	if h == nil {
		return ""
	}
	return h.base
}

// newLeaf makes the cgroup of one init and opens its directory.
func (h *hierarchy) newLeaf(id uint64) (dir int, name string, ok bool) {
	if h == nil {
		return -1, "", false
	}
	name = strconv.FormatUint(id, 10)
	if err := unix.Mkdirat(h.fd, name, 0o755); err != nil {
		return -1, "", false
	}
	dir, err := unix.Openat(h.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.removeLeaf(name)
		return -1, "", false
	}
	return dir, name, true
}

// removeLeaf kills what may be left in a leaf, and removes it.
func (h *hierarchy) removeLeaf(name string) {
	if h != nil && name != "" {
		removeCgroup(filepath.Join(h.base, name))
	}
}

// remove removes what is empty. The runner's own cgroup stays when the runner
// is in it; it goes with the container.
func (h *hierarchy) remove() {
	if h != nil {
		proctree.RemoveCgroup(h.base)
		unix.Close(h.fd)
	}
}

// removeCgroup removes one leaf, with what a command made below it.
func removeCgroup(dir string) {
	if os.Remove(dir) == nil {
		return
	}
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	proctree.RemoveCgroup(dir)
}

// removeLeftovers removes what runners left that did not get to clean up. Only
// empty cgroups can be removed, so one that is in use is in no danger.
func removeLeftovers(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, "troupe.*"))
	if err != nil {
		return
	}
	for _, path := range old {
		pid := strings.TrimPrefix(filepath.Base(path), "troupe.")
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			proctree.RemoveCgroup(path)
		}
	}
}
