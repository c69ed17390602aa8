//go:build linux

package proc

// A container's cgroup counts the processes that the kernel has killed for memory. Package shim
// says how the counts come here (oom.go there).

// claimOOMKill reports whether the kernel has killed a process that is not explained yet, and takes
// that kill as the end of one command. count is the cgroup's counter when the command died.
func (r *Runner) claimOOMKill(rc *runnerConn, count uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if count <= rc.oomKillsExplained {
		return false
	}
	rc.oomKillsExplained++
	return true
}

// explainOOMKills counts every kill up to count as explained.
func (r *Runner) explainOOMKills(rc *runnerConn, count uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rc.oomKillsExplained = max(rc.oomKillsExplained, count)
}
