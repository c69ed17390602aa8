//go:build linux

package shim

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
	"github.com/troupe-dev/troupe/actors/proc/proctree"
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
	if dir, _, err := proctree.CgroupDir(string(own), string(mounts), "memory"); err == nil {
		if path := filepath.Join(dir, "memory.oom_control"); readable(path) {
			return &memoryEvents{path}
		}
	}
	// A cgroup without the controller counts in the nearest one above that has it.
	dir, top, err := proctree.CgroupDir(string(own), string(mounts), "")
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
			count, _ := strconv.ParseUint(string(bytes.TrimSpace(n)), 10, 64)
			return count
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
			s.tell(frame.New(frame.KindKills).Uint(last).Done())
			known = last
		}
		last = s.memory.kills()
	}
}

// kills is the counter of the container's kills for memory if the command may
// have died of one, else 0. A leaf has its own counter, which finish reads.
func (p *initProcess) kills(x *execution, info *proctree.Siginfo) uint64 {
	if info.Code != proctree.CLDKilled || unix.Signal(info.Status) != unix.SIGKILL || x.shot || p.leaf.countsKills() {
		return 0
	}
	return findMemoryEvents().kills()
}
