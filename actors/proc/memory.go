//go:build linux

package proc

import (
	"bytes"
	"time"
)

// samplePeriod is how often a tree with a memory limit and no memory cgroup is
// looked at. A process fills about 100 MB in that time.
const samplePeriod = 50 * time.Millisecond

// watchMemory kills the tree when it holds more than limit bytes.
func (p *initProcess) watchMemory(x *execution, limit int64) {
	tick := time.NewTicker(samplePeriod)
	defer tick.Stop()
	for {
		select {
		case <-x.dead:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		over := !x.isDead() && p.walk.resident() > limit && p.walk.proportional() > limit
		if over {
			x.oom = true
		}
		p.mu.Unlock()
		if over {
			p.kill(x)
			return
		}
	}
}

// resident sums the memory of the tree that is not backed by files. Pages
// shared by several processes count several times.
func (w *walker) resident() int64 {
	var sum int64
	w.snapshot(nil)
	for i := range w.found {
		if b, err := w.fs.read(w.fs.path(w.found[i].pid, "status")); err == nil {
			sum += field(b, "\nRssAnon:") + field(b, "\nRssShmem:")
		}
	}
	return sum
}

// proportional sums the same of the last snapshot, with every shared page
// divided among those that share it. It costs a walk of their page tables, so
// it is asked only when the cheap sum is over the limit.
func (w *walker) proportional() int64 {
	var sum int64
	for i := range w.found {
		if b, err := w.fs.read(w.fs.path(w.found[i].pid, "smaps_rollup")); err == nil && len(b) > 0 {
			sum += field(b, "\nPss_Anon:") + field(b, "\nPss_Shmem:")
		} else if b, err := w.fs.read(w.fs.path(w.found[i].pid, "status")); err == nil {
			sum += field(b, "\nRssAnon:") + field(b, "\nRssShmem:")
		}
	}
	return sum
}

// field reads a line such as "RssAnon:     12 kB" as bytes.
func field(b []byte, name string) int64 {
	_, rest, ok := bytes.Cut(b, []byte(name))
	if !ok {
		return 0
	}
	return int64(atoi(bytes.TrimLeft(rest, " \t"))) * 1024
}
