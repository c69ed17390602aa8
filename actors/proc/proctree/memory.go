//go:build linux

package proctree

import "bytes"

// Tasks takes a snapshot and counts its processes and threads, the dead ones that were not waited for
// included, as the kernel does. With a limit that is not 0 it stops counting beyond it: a walk takes
// as long as the tree is large, and a fork bomb grows meanwhile.
func (w *Walker) Tasks(limit int) int {
	w.maxTasks = limit
	w.Snapshot(nil)
	w.maxTasks = 0
	return w.tasks
}

// Resident sums the memory of the last snapshot that is not backed by files, in bytes. A page that
// several processes share counts once for each.
func (w *Walker) Resident() int64 {
	var sum int64
	for i := range w.found {
		if b, err := w.fs.Read(w.fs.path(w.found[i].PID, "status")); err == nil {
			sum += field(b, "\nRssAnon:") + field(b, "\nRssShmem:")
		}
	}
	return sum
}

// Proportional sums the same for the last snapshot, but divides each shared page among the
// processes that share it. The kernel walks their page tables for it, so it is used only when
// Resident exceeds the limit, or a part of it. smaps_rollup exists since Linux 4.14.
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

// field returns the value of a line such as "RssAnon:     12 kB" in bytes.
func field(b []byte, name string) int64 {
	_, rest, ok := bytes.Cut(b, []byte(name))
	if !ok {
		return 0
	}
	return int64(atoi(bytes.TrimLeft(rest, " \t"))) * 1024
}
