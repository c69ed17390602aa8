package transcript

import "time"

// Retain says which bytes of its output a transcript keeps.
type Retain uint8

// The kinds of transcript.
const (
	// First keeps the first Options.Limit bytes and drops the rest.
	First Retain = iota
	// Unread keeps what its reader has not acknowledged. Its writers wait while that is UnreadWindow
	// bytes or more.
	Unread
	// Last keeps the newest Options.Scrollback bytes. Its writers never wait, unless Pace says so.
	Last
)

func (r Retain) String() string {
	switch r {
	case Unread:
		return "unread"
	case Last:
		return "last"
	}
	return "first"
}

// UnreadWindow is the number of unacknowledged bytes at which the writers of an Unread transcript
// wait.
const UnreadWindow = 1 << 20

// Options say what a transcript keeps, and who pays for it.
type Options struct {
	// Owner is charged with the bytes on disk: the subject that runs the execution.
	Owner string
	// Retain is the kind of the transcript. Zero: First.
	Retain Retain
	// Limit is the most payload bytes that a First transcript holds; none if not positive. The other
	// kinds ignore it.
	Limit int64
	// Scrollback is the number of payload bytes that a Last transcript keeps. The other kinds ignore
	// it.
	Scrollback int64
	// Times makes pieces say when their bytes arrived. It costs five to eight bytes of disk for each
	// 10 ms in which something does, and no memory.
	Times bool
	// Summary, if not nil, stands for what a Last transcript has let go of. The transcript owns it.
	Summary Summary
}

// Ack says that the reader of an Unread transcript has processed every byte below offset. These
// bytes may go, and writers that waited for room continue. An offset below an earlier one is
// ignored; one past the end acknowledges the end. For a Last transcript it does what Pace says. A
// First one ignores Ack.
func (t *Transcript) Ack(offset int64) {
	switch t.retain {
	case First:
		return
	case Last:
		t.pace(func(r *recycler) { r.paced = max(r.paced, min(offset, t.end)) })
		return
	}
	t.mu.Lock()
	offset = min(offset, t.end)
	more := offset > t.start
	if more {
		t.keepFrom(offset)
		t.recycled.room.Broadcast()
	}
	over := more && t.sealed && t.start == t.end
	t.mu.Unlock()
	if over {
		t.store.discard(t)
	}
}

// Pace makes the writers of a Last transcript wait while they are window bytes or more ahead of what
// was acknowledged, which is offset now. With window 0 they never wait. The other kinds ignore Pace.
func (t *Transcript) Pace(offset, window int64) {
	if t.retain == Last {
		t.pace(func(r *recycler) { r.paced, r.window = min(offset, t.end), window })
	}
}

func (t *Transcript) pace(change func(*recycler)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(t.recycled)
	t.recycled.room.Broadcast()
}

// Unblock ends every wait of the writers, now and later: call it when the tree is dead, so that what
// is left in the pipes is taken beyond the window, as far as 4 MiB of file hold it. Seal and Remove
// do the same. Idempotent.
func (t *Transcript) Unblock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unblock()
}

// unblock is called with mu held.
func (t *Transcript) unblock() {
	if t.recycled != nil {
		t.recycled.unblocked = true
		t.recycled.room.Broadcast()
	}
}

// Blocked reports whether a writer waits for an Ack, and since when: the command is not silent
// then, because its output is not read. It is always false for a First transcript.
func (t *Transcript) Blocked() (since time.Time, blocked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recycled == nil || t.recycled.waiting == 0 {
		return time.Time{}, false
	}
	return t.recycled.since, true
}

// awaitRoom returns when a writer may write: two writers that do so at once exceed the window by a
// record each.
func (t *Transcript) awaitRoom() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.full() {
		return
	}
	r := t.recycled
	if r.waiting == 0 {
		r.since = time.Now()
	}
	r.waiting++
	for t.full() {
		r.room.Wait()
	}
	r.waiting--
}

// full is called with mu held.
func (t *Transcript) full() bool {
	r := t.recycled
	ahead := t.end-t.start >= UnreadWindow
	if t.retain == Last {
		ahead = r.window > 0 && t.end-r.paced >= r.window
	}
	return ahead && !r.unblocked && t.dropping.Load() == 0
}

// keepFrom lets go of the payload before offset. Of the file, that frees the blocks that hold
// nothing but records before it. Called with mu held.
func (t *Transcript) keepFrom(offset int64) {
	if offset <= t.start {
		return
	}
	t.start = offset
	entries, gone := t.index.all(), 0
	for gone < len(entries)-1 && entries[gone+1].offset <= offset {
		gone++
	}
	from := t.fileEnd
	if offset == t.end {
		gone = len(entries) // The next record gets an entry of its own.
	} else {
		from = entries[gone].pos
	}
	t.index.drop(gone)
	t.recycled.keepFrom(from)
}

// recycleOldest makes room in the file of a Last transcript that cannot grow, at the cost of its
// oldest bytes, and reports whether it could.
func (t *Transcript) recycleOldest() bool {
	if t.retain != Last {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.recycled
	r.unplace(t.fileEnd)
	for free := r.free.len(); r.free.len() == free; {
		if t.index.len() < 2 {
			return false
		}
		to := t.index.all()[1].offset
		t.mu.Unlock()
		t.letGo(to)
		t.mu.Lock()
	}
	return true
}
