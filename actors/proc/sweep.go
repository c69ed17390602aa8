//go:build linux

package proc

import "golang.org/x/sys/unix"

// reapOrphans reaps the dead among the children that are not to be skipped, by
// their pids, and reports whether nothing is left below them. It is the done
// function of a hunt by a process that has children besides those it hunts,
// and to whom wait can therefore not answer ECHILD.
//
// An empty snapshot is proof as long as nothing else reaps meanwhile: whatever
// lives below this process hangs below one of its children, and that child
// stays in /proc, as a zombie at least, until it is reaped here.
func (w *walker) reapOrphans() bool {
	for {
		if len(w.snapshot(nil)) == 0 {
			return true
		}
		reaped := 0
		for i := range w.found {
			s := &w.found[i]
			if s.ppid != w.self {
				continue
			}
			var info siginfo
			err := waitid(unix.P_PID, s.pid, &info, unix.WEXITED|unix.WNOHANG, nil)
			if err == nil && info.pid != 0 {
				reaped++
			}
		}
		if reaped == 0 {
			return false
		}
	}
}
