//go:build linux

package proc

// claimKill reports whether the kernel has killed more than is accounted for, and
// accounts for one of them. count is what the cgroup said when the command died.
func (r *Runner) claimKill(l *link, count uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if count <= l.kills {
		return false
	}
	l.kills++
	return true
}

// writeOff accounts for all kills up to count.
func (r *Runner) writeOff(l *link, count uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.kills = max(l.kills, count)
}
