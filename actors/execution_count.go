package actors

import "sync"

// executionCount counts the executions that are not dead: those of each subject, and all.
type executionCount struct {
	mu    sync.Mutex
	of    map[string]int
	total int
}

// take counts an execution of the subject in, unless the subject has as many as limit says. A limit
// of 0 does not limit.
func (c *executionCount) take(subject string, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.of[subject] >= limit {
		return false
	}
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[subject]++
	c.total++
	return true
}

// release counts an execution of the subject out. A subject without any is not remembered.
func (c *executionCount) release(subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[subject]--; c.of[subject] == 0 {
		delete(c.of, subject)
	}
	c.total--
}

// all returns how many there are.
func (c *executionCount) all() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}
