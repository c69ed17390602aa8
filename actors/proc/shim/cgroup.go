//go:build linux

package shim

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// cgroup is the cgroup v2 in which one init runs its commands. A nil cgroup does nothing. Walking
// the tree contains it without a cgroup, and is needed with one too, since a command with enough
// privileges can leave its cgroup.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html
type cgroup struct {
	dir        int  // descriptor of its directory
	memory     bool // its memory limit can be set
	counts     bool // it counts the processes that the kernel kills for memory
	frozen     bool
	killed     bool   // cgroup.kill was used, see kill
	killsSoFar uint64 // that count when the execution began
}

// inheritedCgroup returns the cgroup whose directory the runner left open at fd, if any.
func inheritedCgroup(fd int) *cgroup {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	g := &cgroup{dir: fd}
	g.memory = unix.Faccessat(fd, "memory.max", unix.W_OK, 0) == nil
	g.counts = unix.Faccessat(fd, "memory.events", unix.R_OK, 0) == nil
	return g
}

func (g *cgroup) limitsMemory() bool   { return g != nil && g.memory }
func (g *cgroup) countsOOMKills() bool { return g != nil && g.counts }

// prepare sets the cgroup up for an execution.
func (g *cgroup) prepare(maxMemory int64) {
	g.killsSoFar = g.oomKills()
	if !g.memory {
		return
	}
	limit := "max"
	if maxMemory > 0 {
		limit = strconv.FormatInt(maxMemory, 10)
		_ = g.write("memory.oom.group", "1") // the kernel kills the whole tree; without it, the init does
	}
	if g.write("memory.max", limit) != nil && maxMemory > 0 {
		g.memory = false // sampling takes over
	}
}

// complete reports whether the kernel killed a process in this cgroup for lack of memory. It also
// thaws the cgroup: a command that is started in a frozen cgroup never reaches execve, and its init
// would wait for that forever.
func (g *cgroup) complete() (oom bool) {
	if g.frozen {
		g.freeze(false)
	}
	return g.oomKills() > g.killsSoFar
}

func (g *cgroup) oomKills() uint64 {
	if !g.counts {
		return 0
	}
	b, err := g.read("memory.events")
	if err != nil {
		return 0
	}
	return oomKills(b)
}

// kill has the kernel kill everything in the cgroup (cgroup.kill, Linux 5.14), which no process in
// it can outrun.
//
// Afterwards the init must retire. Since commit b69bb476dee9 (Linux 6.14, and stable kernels that
// carry it) fork compares the cgroup's count of such kills before and after. A fork into another
// cgroup (CLONE_INTO_CGROUP) reads the first count from the parent's cgroup, so that every later
// command in a cgroup that was killed once would be killed at birth.
//
// https://git.kernel.org/linus/b69bb476dee9
func (g *cgroup) kill() {
	if g != nil {
		_ = g.write("cgroup.kill", "1") // on an error the walk still kills
		g.killed = true
	}
}

// mustRetire reports whether no other command may run in this cgroup.
func (g *cgroup) mustRetire() bool { return g != nil && g.killed }

func (g *cgroup) freeze(on bool) {
	if g == nil {
		return
	}
	v := "0"
	if on {
		v = "1"
	}
	_ = g.write("cgroup.freeze", v) // on an error SIGSTOP has still stopped the tree
	g.frozen = on
}

func (g *cgroup) write(file, value string) error {
	fd, err := unix.Openat(g.dir, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

func (g *cgroup) read(file string) ([]byte, error) {
	fd, err := unix.Openat(g.dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 1024)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
