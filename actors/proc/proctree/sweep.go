//go:build linux

package proctree

import "golang.org/x/sys/unix"

// ReapOrphans reaps the dead among the children that are not to be skipped, by
// their pids, and reports whether nothing is left below them. It is the done
// function of a hunt by a process that has children besides those it hunts,
// and to whom wait can therefore not answer ECHILD.
//
// An empty snapshot is proof as long as nothing else reaps meanwhile: whatever
// lives below this process hangs below one of its children, and that child
// stays in /proc, as a zombie at least, until it is reaped here.
func (w *Walker) ReapOrphans() bool {
	for {
		if len(w.Snapshot(nil)) == 0 {
			return true
		}
		reaped := 0
		for i := range w.found {
			s := &w.found[i]
			if s.PPID != w.self {
				continue
			}
			var info Siginfo
			err := Waitid(unix.P_PID, s.PID, &info, unix.WEXITED|unix.WNOHANG, nil)
			if err == nil && info.PID != 0 {
				reaped++
			}
		}
		if reaped == 0 {
			return false
		}
	}
}
