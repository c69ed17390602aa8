//go:build linux

package proctree

import "bytes"

// Resident sums the memory of the tree that is not backed by files. Pages
// shared by several processes count several times.
func (w *Walker) Resident() int64 {
	var sum int64
	w.Snapshot(nil)
	for i := range w.found {
		if b, err := w.fs.Read(w.fs.path(w.found[i].PID, "status")); err == nil {
			sum += field(b, "\nRssAnon:") + field(b, "\nRssShmem:")
		}
	}
	return sum
}

// Proportional sums the same of the last snapshot, with every shared page
// divided among those that share it. It costs a walk of their page tables, so
// it is asked only when the cheap sum is over the limit.
func (w *Walker) Proportional() int64 {
	var sum int64
	for i := range w.found {
		if b, err := w.fs.Read(w.fs.path(w.found[i].PID, "smaps_rollup")); err == nil && len(b) > 0 {
			sum += field(b, "\nPss_Anon:") + field(b, "\nPss_Shmem:")
		} else if b, err := w.fs.Read(w.fs.path(w.found[i].PID, "status")); err == nil {
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
