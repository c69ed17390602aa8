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

// Commands that the kernel killed for memory
//
// When a container reaches its memory limit, the kernel kills. Either all of the container dies
// (cgroup v2 with memory.oom.group, which the kubelet sets), and the runner is lost. Or one process
// dies (cgroup v1, or the kubelet's singleProcessOOMKill), and a command seems to have been killed
// by another process. The container's cgroup counts such kills. An init whose command died of a
// SIGKILL that the init did not send reads the counter and sends it along. trouped compares it with
// the kills that it has explained so far: one that is new was the command's.
//
// A kill of some other process of a tree ends no command. trouped is told of it after a second or
// two and counts it as explained, so that it does not explain a later SIGKILL.

// oomCounter is the file with the counter of the cgroup that this process lives in. On a nil
// oomCounter the count stays 0.
type oomCounter struct{ path string }

// findOOMCounter looks for the memory controller of cgroup v1 first: a machine that has both
// versions attaches it to v1.
func findOOMCounter() *oomCounter {
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
			return &oomCounter{path}
		}
	}
	// A cgroup without the controller is counted in its nearest ancestor with the controller.
	dir, top, err := proctree.CgroupDir(string(own), string(mounts), "")
	for ; err == nil; dir = filepath.Dir(dir) {
		if path := filepath.Join(dir, "memory.events"); readable(path) {
			return &oomCounter{path}
		}
		if dir == top {
			break
		}
	}
	return nil
}

func readable(path string) bool { return unix.Access(path, unix.R_OK) == nil }

// kills returns how many processes the kernel has killed, or 0 if that is unknown.
func (m *oomCounter) kills() uint64 {
	if m == nil {
		return 0
	}
	b, err := os.ReadFile(m.path)
	if err != nil {
		return 0
	}
	return oomKills(b)
}

// oomKills reads the line "oom_kill 3" of memory.events (v2) or memory.oom_control (v1, since Linux
// 4.13).
func oomKills(b []byte) uint64 { return counter(b, "oom_kill") }

// counter reads the line "NAME 3".
func counter(b []byte, name string) uint64 {
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			count, _ := strconv.ParseUint(string(bytes.TrimSpace(n)), 10, 64)
			return count
		}
	}
	return 0
}

// oomPollInterval is how often the runner reads the counter. It reports a kill between one and two
// intervals later: long after the death of a command was reported, and early enough that another
// SIGKILL in between is unlikely.
const oomPollInterval = time.Second

// reportOOMKills tells trouped of kills that are at least one interval old. known is the count that
// trouped has. A nil stop never stops it.
func (s *supervisor) reportOOMKills(known uint64, stop <-chan struct{}) {
	if s.oom == nil {
		return
	}
	tick := time.NewTicker(oomPollInterval)
	defer tick.Stop()
	last := known
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if last != known {
			s.send(frame.New(frame.KindOOMKills).Uint(last).Done())
			known = last
		}
		last = s.oom.kills()
	}
}

// oomKillCount returns the container's counter if the kernel may have killed the command for
// memory, else 0. An init with a cgroup that counts such kills has its own counter, which treeDead
// reads.
func (p *initProcess) oomKillCount(x *execution, info *proctree.Siginfo) uint64 {
	if !x.mayBeOutOfMemory(info) || p.cgroup.countsOOMKills() {
		return 0
	}
	return findOOMCounter().kills()
}

// mayBeOutOfMemory reports whether the command died of a SIGKILL that this init did not send.
func (x *execution) mayBeOutOfMemory(info *proctree.Siginfo) bool {
	return info.Code == proctree.CLDKilled && unix.Signal(info.Status) == unix.SIGKILL && !x.killedByUs
}
