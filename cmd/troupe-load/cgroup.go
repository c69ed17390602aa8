package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup holds processes to a memory limit and a CPU weight, as a container does. Either may be
// missing, where it cannot be made.
type cgroup struct {
	memory, cpu string // directories; the same one with cgroup v2
	v2          bool
}

// cgroupRoot is where every distribution mounts cgroups, v1 or v2.
const cgroupRoot = "/sys/fs/cgroup"

// newCgroup makes a cgroup. memory 0: no limit. shares is the CPU weight as cgroup v1 counts it, 1024
// for one CPU of a Kubernetes request. The error says why there is no memory limit.
func newCgroup(name string, memory int64, shares int) (*cgroup, error) {
	name = fmt.Sprintf("troupe-load-%d-%s", os.Getpid(), name)
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	g := &cgroup{v2: err == nil}
	if g.v2 {
		// It fails below the root of a system without delegation, and where it was done before.
		_ = os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+memory +cpu"), 0o600)
		dir := filepath.Join(cgroupRoot, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return g, err
		}
		g.memory, g.cpu = dir, dir
		// 1..10000 for 2..262144, as Kubernetes converts it.
		_ = os.WriteFile(filepath.Join(dir, "cpu.weight"), []byte(strconv.Itoa(1+(shares-2)*9999/262142)), 0o600)
		_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0o600)
		return g, g.limitMemory("memory.max", memory)
	}
	g.cpu = filepath.Join(cgroupRoot, "cpu", name)
	if os.Mkdir(g.cpu, 0o755) != nil ||
		os.WriteFile(filepath.Join(g.cpu, "cpu.shares"), []byte(strconv.Itoa(shares)), 0o600) != nil {
		g.cpu = ""
	}
	g.memory = filepath.Join(cgroupRoot, "memory", name)
	if err := os.Mkdir(g.memory, 0o755); err != nil {
		g.memory = ""
		return g, err
	}
	return g, g.limitMemory("memory.limit_in_bytes", memory)
}

func (g *cgroup) limitMemory(file string, memory int64) error {
	if memory == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(g.memory, file), []byte(strconv.FormatInt(memory, 10)), 0o600)
}

// command returns argv with a shell in front of it that enters the cgroup first, so that all of the
// program's memory counts.
func (g *cgroup) command(argv ...string) []string {
	var enter string
	for _, dir := range []string{g.memory, g.cpu} {
		if dir != "" {
			enter += "echo $$ > " + dir + "/cgroup.procs && "
		}
	}
	return append([]string{"/bin/sh", "-c", enter + `exec "$@"`, "sh"}, argv...)
}

// peak returns the most memory that the cgroup has held, in bytes: with that of the kernel, and
// cached files, which the kernel takes back when they are in the way.
func (g *cgroup) peak() (int64, error) {
	file := "memory.max_usage_in_bytes"
	if g.v2 {
		file = "memory.peak"
	}
	b, err := os.ReadFile(filepath.Join(g.memory, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// kernel returns how much of the memory that the cgroup holds now is the kernel's: sockets, pipes,
// page tables. With cgroup v1 it leaves out the buffers of TCP.
func (g *cgroup) kernel() (int64, error) {
	if !g.v2 {
		b, err := os.ReadFile(filepath.Join(g.memory, "memory.kmem.usage_in_bytes"))
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	stat, err := os.ReadFile(filepath.Join(g.memory, "memory.stat"))
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(stat)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "kernel" || name == "sock" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// remove removes the cgroup once its processes are gone.
func (g *cgroup) remove() error {
	var errs []error
	for _, dir := range []string{g.memory, g.cpu} {
		if dir == "" {
			continue
		}
		var err error
		for range 100 { // the kernel takes a moment to see that a process has ended
			if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				err = nil
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
