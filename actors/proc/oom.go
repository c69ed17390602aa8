//go:build linux

package proc

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Whom the kernel killed for memory
//
// When a container is at its memory limit the kernel kills. Either all of it
// dies (cgroup v2 with memory.oom.group, which the kubelet sets), and the
// runner is lost; or one process does (cgroup v1, or the kubelet's
// singleProcessOOMKill), and a command seems to have been killed by somebody.
// The cgroup counts such kills. So an init whose command died of a SIGKILL that
// it did not send reads that counter, and trouped compares it with the kills
// that it has accounted for: one that is new is the command's. A kill that no
// command died of, but some other process of a tree, is written off after a
// second or two, so that it explains no later SIGKILL.

// memoryEvents is the file with the counter of the cgroup that this process
// lives in. Nil where there is none: then nothing is ever new.
type memoryEvents struct{ path string }

// findMemoryEvents looks for the controller on cgroup v1 first: where a machine
// has both, v2 has no controllers.
func findMemoryEvents() *memoryEvents {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	if dir, _, err := cgroupDir(string(own), string(mounts), "memory"); err == nil {
		if path := filepath.Join(dir, "memory.oom_control"); readable(path) {
			return &memoryEvents{path}
		}
	}
	// A cgroup without the controller counts in the nearest one above that has it.
	dir, top, err := cgroupDir(string(own), string(mounts), "")
	for ; err == nil; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, "memory.events"); readable(path) {
			return &memoryEvents{path}
		}
		if dir == top {
			break
		}
	}
	return nil
}

func readable(path string) bool { return unix.Access(path, unix.R_OK) == nil }

// cgroupDir finds the directory of a cgroup by the contents of /proc/self/cgroup
// and /proc/self/mountinfo, and the place where its hierarchy is mounted.
// controller is one of cgroup v1, or "" for v2.
func cgroupDir(own, mounts, controller string) (dir, mountpoint string, err error) {
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
		if controller == "" && kind[0] != "cgroup2" || controller != "" && (kind[0] != "cgroup" || !has(kind[2], controller)) {
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

// has says whether a list with commas has a word.
func has(list, word string) bool { return slices.Contains(strings.Split(list, ","), word) }

// kills is how many processes the kernel has killed, or 0.
func (m *memoryEvents) kills() uint64 {
	if m == nil {
		return 0
	}
	b, err := os.ReadFile(m.path)
	if err != nil {
		return 0
	}
	return oomKills(b)
}

// oomKills reads the line "oom_kill 3" of memory.events or memory.oom_control.
func oomKills(b []byte) uint64 {
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			return uint64(atoi(n))
		}
	}
	return 0
}

// killsPeriod is how often the counter is looked at. A kill is written off
// between one and two periods later: much longer than the death of a command
// takes to be reported, and short enough for a second cause of SIGKILL to be
// unlikely.
const killsPeriod = time.Second

// watchKills tells trouped of kills when they are at least a period old. known
// is what it was told before. nil never stops it.
func (s *supervisor) watchKills(known uint64, stop <-chan struct{}) {
	if s.memory == nil {
		return
	}
	tick := time.NewTicker(killsPeriod)
	defer tick.Stop()
	last := known
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if last != known {
			s.tell(frame(kindKills).uint(last).done())
			known = last
		}
		last = s.memory.kills()
	}
}

// kills is the counter of the container's kills for memory if the command may
// have died of one, else 0. A leaf has its own counter, which finish reads.
func (p *initProcess) kills(x *execution, info *siginfo) uint64 {
	if info.code != cldKilled || unix.Signal(info.status) != unix.SIGKILL || x.shot || p.leaf.countsKills() {
		return 0
	}
	return findMemoryEvents().kills()
}

// claimKill reports whether the kernel has killed more than is accounted for, and
// accounts for one of them. count is what the cgroup said when the command died.
func (r *Runner) claimKill(l *link, count uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if count <= l.kills {
		return false
	}
	l.kills++
	return true
}

// writeOff accounts for all kills up to count.
func (r *Runner) writeOff(l *link, count uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.kills = max(l.kills, count)
}
