package transcript

// takeWaiting moves the waiting cursors into woken, for the caller to notify once it has released
// its locks. It is called with mu held, in the same critical section as the change they wait for. A
// cursor can therefore neither arm itself in between and be missed, nor be woken for something it
// has already seen.
func (t *Transcript) takeWaiting(woken []*Cursor) []*Cursor {
	for i, c := range t.waiting {
		c.waiting = false
		t.waiting[i] = nil
		woken = append(woken, c)
	}
	t.waiting = t.waiting[:0]
	return woken
}

func wake(cursors []*Cursor) {
	for _, c := range cursors {
		if c.notify != nil {
			c.notify()
		}
	}
}
