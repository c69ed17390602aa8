//go:build linux

package proctree

import "golang.org/x/sys/unix"

// ReapOrphans reaps the dead children that are not skipped, each by its pid, and reports whether
// nothing is left below them. It is the done function of KillAll for a process that also has
// children it must keep, and for which wait can therefore never answer ECHILD.
//
// An empty snapshot is proof if nothing else reaps meanwhile: every descendant hangs below one of
// self's children, and that child stays in /proc, at least as a zombie, until it is reaped here.
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
