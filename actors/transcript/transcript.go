package transcript

import (
	"container/list"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Stream is one of the two output streams of a command.
type Stream uint8

// The streams of a command.
const (
	Stdout Stream = iota
	Stderr
)

func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// DropReason says why a transcript stopped taking bytes.
type DropReason uint8

// The reasons to drop output. DropReasons lists them.
const (
	// DropLimit: the next bytes would exceed the transcript's limit.
	DropLimit DropReason = iota + 1
	// DropWrite: the file could not be created or written (disk full, I/O error).
	DropWrite
	// DropBudget: the store's budget is used up and there was nothing left to evict.
	DropBudget
	// DropOwner: the budget of the transcript's owner is used up by transcripts that are not sealed.
	DropOwner
	// DropClosed: the transcript was sealed or removed, or its store closed, before its writers
	// were done. OnDrop is not called for it: readers see the end.
	DropClosed
)

// DropReasons lists every DropReason, for metrics.
func DropReasons() []DropReason {
	return []DropReason{DropLimit, DropWrite, DropBudget, DropOwner, DropClosed}
}

func (r DropReason) String() string {
	switch r {
	case DropLimit:
		return "limit"
	case DropWrite:
		return "write"
	case DropBudget:
		return "budget"
	case DropOwner:
		return "subject_limit"
	case DropClosed:
		return "closed"
	}
	return "none"
}

// Counts accounts for every byte given to the writers of a transcript; the package comment has the
// identity. It is exact once the writers are closed: until then they may hold a partial line that
// is not counted anywhere yet.
type Counts struct {
	// OutputBytes is the payload that cursors could read, markers of truncated lines included. Equal
	// to End. An Unread or Last transcript does not hold all of it.
	OutputBytes int64
	// DroppedLines counts the lines of which at least one byte was dropped; an unterminated last
	// one counts.
	DroppedLines int64
	// DroppedBytes counts the bytes that were dropped, newlines included.
	DroppedBytes int64
	// DropReason says why bytes were dropped. 0: none were.
	DropReason DropReason
	// TruncatedLines counts the lines that end with the marker in the transcript.
	TruncatedLines int64
	// TruncatedBytes counts the bytes of truncated lines that the marker stands for, the newline
	// that ended the line included where there was one.
	TruncatedBytes int64
}

// Transcript is the output of one execution, both streams in order of arrival. Create makes one.
// All methods may be called at any time from any goroutine, with the exceptions that OnDrop names.
//
// Locks are taken in the order writeMu, Store.mu, mu (of another, sealed transcript). No callback
// but OnDrop's runs under any of them.
type Transcript struct {
	store  *Store
	name   string // For the log. Chosen by clients, so never part of a path.
	path   string
	retain Retain
	limit  int64 // Payload bytes: of First the most in all, of Last the most at any time.
	times  bool  // Records carry the time at which they arrived.

	// Append state, guarded by writeMu, which is held while the file is written. No cursor takes it,
	// so a slow disk does not keep readers from output that is already stored.
	writeMu sync.Mutex
	fd      int // Of file, while unsealed.
	onDrop  func(DropReason, int64) any
	timed   int64 // The last time in a record.
	header  [maxHeader]byte
	parts   [4][]byte // Of the write in progress. Here, because a local array would be allocated each time.
	unsent  [4][]byte // What a short write left of it.

	// dropping is the DropReason once output is no longer accepted. Set under writeMu, read anywhere.
	dropping atomic.Uint32

	// Read state, guarded by mu. While unsealed, file, end and fileEnd change only under writeMu as
	// well, so that an appender may read them without mu.
	mu      sync.Mutex
	file    *os.File // nil before the first byte, and after Seal while no cursor is in the middle of it.
	start   int64    // The payload before it is not kept any more. Equal to end if the file was evicted or removed.
	end     int64    // Payload bytes.
	fileEnd int64    // Bytes of records: payload and headers. Of a First transcript, the size of the file.
	index   queue[indexEntry]
	marks   []mark
	counts  Counts
	sealed  bool
	readers int       // Cursors that need file to stay open.
	waiting []*Cursor // Cursors to notify.

	recycled *recycler // Of an Unread or Last transcript.

	// Of a Last transcript. Set under writeMu and mu; the Summary's methods are called under writeMu or
	// after it was taken from here.
	summary Summary
	stands  []any // The marks that stand for what is before start.

	nextMark int

	// Budget state, guarded by Store.mu.
	disk  int64         // Bytes reserved for this file.
	place *list.Element // In its owner's list of sealed transcripts.
	owner *owner
}

// OnDrop sets the function that is called once, when the transcript stops accepting bytes at
// offset. Its result becomes a mark there, unless it is nil. The function must be set before the
// first Write, and runs on a writer's goroutine with the transcript locked: it must neither block
// nor call back into the transcript.
func (t *Transcript) OnDrop(f func(reason DropReason, offset int64) any) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.onDrop = f
}

// Seal says that no more output will come: cursors get io.EOF after the last byte and mark, and the
// transcript may be evicted; an Unread one without unread bytes leaves the disk. The file is closed
// as soon as no cursor is in the middle of it. Close the writers first, because bytes given to them
// later are dropped. Idempotent.
func (t *Transcript) Seal() {
	var local [8]*Cursor
	t.writeMu.Lock()
	t.dropping.CompareAndSwap(0, uint32(DropClosed))
	t.mu.Lock()
	t.sealed = true
	t.unblock()
	woken := t.takeWaiting(local[:0])
	t.closeUnused()
	over := t.retain == Unread && t.start == t.end
	t.mu.Unlock()
	t.writeMu.Unlock()
	if over {
		t.store.discard(t)
	} else {
		t.store.sealed(t)
	}
	wake(woken)
}

// Remove deletes the file and seals the transcript, so that no reader waits for more. Later reads
// see a gap to the end, then the marks, then io.EOF. Idempotent. If the file cannot be deleted, the
// error names it.
func (t *Transcript) Remove() error {
	var local [8]*Cursor
	t.writeMu.Lock()
	t.dropping.CompareAndSwap(0, uint32(DropClosed))
	t.mu.Lock()
	t.sealed = true
	t.unblock()
	woken := t.takeWaiting(local[:0])
	file := t.lose()
	t.mu.Unlock()
	t.writeMu.Unlock()
	err := t.store.forget(t)
	closeFile(file)
	wake(woken)
	if err != nil {
		return fmt.Errorf("remove transcript %s: %w", t.name, err)
	}
	return nil
}

// lose makes the bytes unreadable and returns the handle to close, if there is one. Called with mu
// held.
func (t *Transcript) lose() *os.File {
	file := t.file
	t.start, t.file, t.index = t.end, nil, queue[indexEntry]{}
	t.dropSummary()
	if t.recycled != nil {
		t.recycled.slots, t.recycled.free = queue[int32]{}, queue[int32]{}
	}
	return file
}

// closeUnused closes the handle of a sealed transcript that no cursor is reading: a session keeps
// 100 finished executions, which must not hold as many descriptors. Called with mu held.
func (t *Transcript) closeUnused() {
	if t.sealed && t.readers == 0 {
		closeFile(t.file)
		t.file = nil
	}
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // Nothing depends on it: what could not be written was reported by the write.
	}
}

// End returns the offset after the last byte.
func (t *Transcript) End() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end
}

// Counts returns the current counts.
func (t *Transcript) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts
	c.OutputBytes = t.end
	if c.DroppedBytes > 0 {
		c.DropReason = DropReason(t.dropping.Load()) //nolint:gosec // it was made of one
	}
	return c
}

// count adds to the transcript's counts and to the store's, except for OutputBytes.
func (t *Transcript) count(c Counts) {
	t.store.truncatedLines.Add(c.TruncatedLines)
	if c.DroppedBytes > 0 {
		reason := t.dropping.Load()
		t.store.droppedLines[reason].Add(c.DroppedLines)
		t.store.droppedBytes[reason].Add(c.DroppedBytes)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.DroppedLines += c.DroppedLines
	t.counts.DroppedBytes += c.DroppedBytes
	t.counts.TruncatedLines += c.TruncatedLines
	t.counts.TruncatedBytes += c.TruncatedBytes
}
