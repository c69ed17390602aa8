//go:build linux

package shim

import (
	"time"
)

// samplePeriod is how often the memory of a tree is measured that has a limit but no memory cgroup.
// A process can fill about 100 MB in that time.
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
		over := !x.isDead() && p.walk.Resident() > limit && p.walk.Proportional() > limit
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
