//go:build linux

package shim

import (
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// cgroup is the cgroup v2 in which one init runs its commands: a leaf below the cgroup of their
// session, which bounds all executions of that session. A nil cgroup does nothing. Walking the tree
// contains it without a cgroup, and is needed with one too, since a command with enough privileges
// can leave its cgroup.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html
type cgroup struct {
	base    int    // directory of the runner's cgroups; -1: this is a clone, which keeps its leaf
	name    string // of the leaf
	session string // that the leaf belongs to
	leaf    *leaf  // nil: there is none, since it could not be made

	memoryMax, oomGroup string // what was written to the leaf's files

	frozen bool
	killed bool      // cgroup.kill was used, see kill
	before oomCounts // when the execution began
}

// oomCounts say whose limit of memory was reached, and whether a process of the leaf died for it.
type oomCounts struct{ kills, own, session uint64 }

// leafName is the name of an init's leaf.
func leafName(id uint64) string { return strconv.FormatUint(id, 10) }

// leaf is a cgroup with processes. Its files are opened when it is made, since a thread in the domain
// of a session could not open them.
type leaf struct {
	dir   int
	files [len(leafFiles)]int // -1: there is no such file
}

const (
	fileKill = iota
	fileFreeze
	fileMemoryMax
	fileOOMGroup
	fileEvents
	fileSessionEvents
)

var leafFiles = [...]string{
	fileKill: "cgroup.kill", fileFreeze: "cgroup.freeze", fileMemoryMax: "memory.max", fileOOMGroup: "memory.oom.group",
	fileEvents: "memory.events", fileSessionEvents: "../memory.events.local",
}

// makeLeaf makes a leaf in the cgroup of a session, and that one if it does not exist; "": in none.
// Limits for the session are only set when it is made: they are the same for all executions.
func makeLeaf(base int, session, name string, bounds frame.Bounds) (*leaf, error) {
	dir := path.Join(session, name)
	var err error
	for range 10 { // the last leaf of the session may be removed meanwhile, and the session's cgroup with it
		if session != "" {
			if err = makeSessionCgroup(base, session, bounds); err != nil {
				return nil, err
			}
		}
		if err = unix.Mkdirat(base, dir, 0o755); err != unix.ENOENT {
			break
		}
	}
	if err != nil && err != unix.EEXIST { // it exists if a command left a cgroup in there
		return nil, err
	}
	fd, err := unix.Openat(base, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return openLeaf(fd), nil
}

func openLeaf(dir int) *leaf {
	l := &leaf{dir: dir}
	for i, name := range leafFiles {
		mode := unix.O_WRONLY
		if i == fileEvents || i == fileSessionEvents {
			mode = unix.O_RDONLY
		}
		fd, err := unix.Openat(dir, name, mode|unix.O_CLOEXEC, 0)
		if err != nil {
			fd = -1
		}
		l.files[i] = fd
	}
	return l
}

// descriptors are those of the leaf for an init that inherits it. The directory stands for files
// that there are not.
func (l *leaf) descriptors() []int {
	if l == nil {
		return nil
	}
	fds := []int{l.dir}
	for _, fd := range l.files {
		if fd < 0 {
			fd = l.dir
		}
		fds = append(fds, fd)
	}
	return fds
}

func (l *leaf) close() {
	if l == nil {
		return
	}
	unix.Close(l.dir)
	for _, fd := range l.files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// processMargin is how many processes more than its bound the kernel allows a session. Then the
// measuring of the tree still sees that the bound is exceeded, and ends the execution that did it
// with the reason; the kernel keeps it from growing meanwhile.
func processMargin(bound int) int { return max(16, bound/8) }

// makeSessionCgroup makes the cgroup of a session, with its hard limits. A limit that cannot be set
// is only measured.
func makeSessionCgroup(base int, session string, bounds frame.Bounds) error {
	switch err := unix.Mkdirat(base, session, 0o755); err {
	case nil:
	case unix.EEXIST:
		return nil
	default:
		return err
	}
	_ = writeAt(base, path.Join(session, "cgroup.subtree_control"), "+memory") // the leaves have limits, too
	if n := bounds.Processes; n > 0 {
		_ = writeAt(base, path.Join(session, "pids.max"), strconv.Itoa(n+processMargin(n)))
	}
	if bounds.Memory > 0 {
		_ = writeAt(base, path.Join(session, "memory.max"), strconv.FormatInt(bounds.Memory, 10))
		_ = writeAt(base, path.Join(session, "memory.swap.max"), "0") // or the rest would go there
	}
	return nil
}

// removeLeaf removes a leaf, and the cgroup of its session if it was the last one in there.
func removeLeaf(base int, session, name string) {
	_ = unix.Unlinkat(base, path.Join(session, name), unix.AT_REMOVEDIR)
	if session != "" {
		_ = unix.Unlinkat(base, session, unix.AT_REMOVEDIR)
	}
}

// inheritedCgroup returns the cgroup that the runner has left open at fd, if any: to a clone its
// leaf, to other inits the directory in which they make theirs.
func inheritedCgroup(fd int, s *frame.Settings) *cgroup {
	if !isDirectory(fd) {
		return nil
	}
	g := &cgroup{base: fd, name: leafName(s.ID), session: s.Bound}
	if s.Bound == "" {
		return g
	}
	g.base, g.leaf = -1, &leaf{dir: fd}
	for i := range leafFiles {
		if g.leaf.files[i] = fd + 1 + i; isDirectory(fd + 1 + i) {
			g.leaf.files[i] = -1
		}
	}
	return g
}

func isDirectory(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// in reports whether the leaf is that of a session.
func (g *cgroup) in(session string) bool { return g.base < 0 || g.leaf != nil && g.session == session }

// enter gives the init a leaf in the cgroup of another session. The calling thread must be in no
// domain. On an error the init has no leaf.
func (g *cgroup) enter(session string, bounds frame.Bounds) error {
	if g.leaf != nil {
		g.leaf.close()
		removeLeaf(g.base, g.session, g.name)
	}
	var err error
	g.leaf, err = makeLeaf(g.base, session, g.name, bounds)
	g.session, g.memoryMax, g.oomGroup = session, "", ""
	return err
}

// has reports whether there is a leaf with this file.
func (g *cgroup) has(file int) bool { return g != nil && g.leaf != nil && g.leaf.files[file] >= 0 }

func (g *cgroup) limitsMemory() bool   { return g.has(fileMemoryMax) }
func (g *cgroup) countsOOMKills() bool { return g.has(fileEvents) }

// enterCgroup prepares the cgroup that a command is to run in. If there is none, the command runs
// without one, as it does where no cgroup can be made.
func (p *initProcess) enterCgroup(start *frame.Start) {
	if p.cgroup == nil {
		return
	}
	if !p.cgroup.in(start.Workspace) {
		var err error
		p.await(func() { err = p.cgroup.enter(start.Workspace, start.Session) }) // a domain has no right to write there
		if err != nil {
			fmt.Fprintln(os.Stderr, "troupe-runner: an execution has no cgroup:", err)
		}
	}
	p.cgroup.prepare(start.MaxMemory, start.Session)
}

// prepare sets the leaf up for an execution. When the kernel kills for the limit of the execution or
// of its session, it kills the whole tree; without that, the init does.
func (g *cgroup) prepare(maxMemory int64, session frame.Bounds) {
	g.before = g.oomCounts()
	limit, group := "max", "0"
	if maxMemory > 0 {
		limit = strconv.FormatInt(maxMemory, 10)
	}
	if maxMemory > 0 || session.Memory > 0 {
		group = "1"
	}
	if g.oomGroup != group && g.write(fileOOMGroup, group) == nil {
		g.oomGroup = group
	}
	if g.memoryMax == limit || !g.limitsMemory() {
		return
	}
	switch err := g.write(fileMemoryMax, limit); {
	case err == nil:
		g.memoryMax = limit
	case maxMemory > 0:
		unix.Close(g.leaf.files[fileMemoryMax])
		g.leaf.files[fileMemoryMax] = -1 // sampling takes over
	}
}

// complete reports whether the kernel killed a process in this leaf for lack of memory: exceeded if
// it was its session that had no more, and else oom. It also thaws the leaf: a command that is
// started in a frozen cgroup never reaches execve, and its init would wait for that forever.
func (g *cgroup) complete() (oom bool, exceeded frame.Bound) {
	if g.frozen {
		g.freeze(false)
	}
	now := g.oomCounts()
	switch {
	case now.kills <= g.before.kills:
		return false, 0
	case now.own <= g.before.own && now.session > g.before.session:
		return false, frame.BoundMemory
	}
	return true, 0
}

func (g *cgroup) oomCounts() oomCounts {
	own, session := g.read(fileEvents), g.read(fileSessionEvents)
	return oomCounts{kills: oomKills(own), own: counter(own, "oom"), session: counter(session, "oom")}
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
	if g != nil && g.leaf != nil {
		_ = g.write(fileKill, "1") // on an error the walk still kills
		g.killed = true
	}
}

// mustRetire reports whether no other command may run in this cgroup.
func (g *cgroup) mustRetire() bool { return g != nil && g.killed }

func (g *cgroup) freeze(on bool) {
	if g == nil || g.leaf == nil {
		return
	}
	v := "0"
	if on {
		v = "1"
	}
	_ = g.write(fileFreeze, v) // on an error SIGSTOP has still stopped the tree
	g.frozen = on
}

func (g *cgroup) write(file int, value string) error {
	if !g.has(file) {
		return unix.ENOENT
	}
	_, err := unix.Pwrite(g.leaf.files[file], []byte(value), 0)
	return err
}

// read returns nothing if there is no such file.
func (g *cgroup) read(file int) []byte {
	if !g.has(file) {
		return nil
	}
	b := make([]byte, 1024)
	n, err := unix.Pread(g.leaf.files[file], b, 0)
	if err != nil {
		return nil
	}
	return b[:n]
}

func writeAt(dir int, file, value string) error {
	fd, err := unix.Openat(dir, file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
