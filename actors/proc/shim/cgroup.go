//go:build linux

package shim

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// leaf is the cgroup v2 of one init's trees. A nil leaf does nothing: the tree
// walk contains a tree without it, and with it as well, since a command with
// enough rights can leave its cgroup.
type leaf struct {
	dir    int  // descriptor of its directory
	memory bool // its limit can be set
	counts bool // it counts the processes that are killed for memory
	frozen bool
	spent  bool   // killed once, see kill
	kills  uint64 // that count when the execution began
}

// inheritedLeaf is the leaf whose directory the runner left open at fd, if any.
func inheritedLeaf(fd int) *leaf {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	l := &leaf{dir: fd}
	l.memory = unix.Faccessat(fd, "memory.max", unix.W_OK, 0) == nil
	l.counts = unix.Faccessat(fd, "memory.events", unix.R_OK, 0) == nil
	return l
}

func (l *leaf) limitsMemory() bool { return l != nil && l.memory }
func (l *leaf) countsKills() bool  { return l != nil && l.counts }

// begin prepares the leaf for an execution.
func (l *leaf) begin(maxMemory int64) {
	l.kills = l.oomKills()
	if !l.memory {
		return
	}
	limit := "max"
	if maxMemory > 0 {
		limit = strconv.FormatInt(maxMemory, 10)
		_ = l.write("memory.oom.group", "1") // the tree dies as one; without it, of the walk
	}
	if l.write("memory.max", limit) != nil && maxMemory > 0 {
		l.memory = false // sampling takes over
	}
}

// end reports whether the kernel killed in this leaf for lack of memory, and
// thaws it: a command that is started in a frozen leaf never gets to execve,
// and its init would wait for that for ever.
func (l *leaf) end() bool {
	if l.frozen {
		l.freeze(false)
	}
	return l.oomKills() > l.kills
}

func (l *leaf) oomKills() uint64 {
	if !l.counts {
		return 0
	}
	b, err := l.read("memory.events")
	if err != nil {
		return 0
	}
	return oomKills(b)
}

// kill has the kernel kill everything in the leaf, which nothing in it can
// outrun. It spends the leaf: kernels from 6.15 on compare a counter of
// such kills when a process is forked, take it from the wrong cgroup when it
// is forked into another one, and so kill every later command at birth. Hence
// the init retires.
func (l *leaf) kill() {
	if l != nil {
		_ = l.write("cgroup.kill", "1") // the walk kills too
		l.spent = true
	}
}

func (l *leaf) retires() bool { return l != nil && l.spent }

func (l *leaf) freeze(on bool) {
	if l == nil {
		return
	}
	v := "0"
	if on {
		v = "1"
	}
	_ = l.write("cgroup.freeze", v) // SIGSTOP stops it too
	l.frozen = on
}

func (l *leaf) write(file, value string) error {
	fd, err := unix.Openat(l.dir, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

func (l *leaf) read(file string) ([]byte, error) {
	fd, err := unix.Openat(l.dir, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
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
