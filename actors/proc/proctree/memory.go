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

// Members returns the processes of the last snapshot. The caller owns the slice.
func (w *Walker) Members() []ProcID {
	ids := make([]ProcID, len(w.found))
	for i := range w.found {
		ids[i] = w.found[i].ID()
	}
	return ids
}

// Proportional sums the same for some processes, but divides each shared page among the processes
// that share it. The kernel walks their page tables for it, so it is used only when Resident exceeds
// the limit, or a part of it. smaps_rollup exists since Linux 4.14.
//
// It may take long, so the caller should hold no lock: the kernel waits for whoever changes the
// memory map of a process, as fork does (mmap_lock, dup_mmap in kernel/fork.c), and that one may wait
// for its turn behind hundreds of others.
func Proportional(processes []ProcID) int64 {
	var sum int64
	fs := NewProcfs()
	for _, p := range processes {
		anon, shmem := "\nPss_Anon:", "\nPss_Shmem:"
		b, err := fs.Read(fs.path(p.PID, "smaps_rollup"))
		if err != nil || len(b) == 0 {
			anon, shmem = "\nRssAnon:", "\nRssShmem:"
			if b, err = fs.Read(fs.path(p.PID, "status")); err != nil {
				continue
			}
		}
		bytes := field(b, anon) + field(b, shmem)
		if s, ok := fs.Stat(p.PID); ok && s.Start == p.Start { // another may have its pid by now
			sum += bytes
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
