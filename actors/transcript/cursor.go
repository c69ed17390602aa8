package transcript

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Piece is the result of one Cursor.Next: bytes, a gap or a mark.
type Piece struct {
	Stream Stream
	// Data is a part of the buffer given to Next: the next bytes of one stream.
	Data []byte
	// Truncated means that Data is (part of) one truncated line, its marker included.
	Truncated bool
	// Gap, if not 0, is the number of bytes missing here, because the transcript does not keep them
	// any more, or because they were evicted or removed or could not be read. Data is nil in that
	// case.
	Gap int64
	// Offset is the position after this piece. The next piece starts there.
	Offset int64
	// At is when the first byte of Data arrived, 10 ms more or less; zero without Options.Times.
	At time.Time
	// Mark, if not nil, is a value given to Transcript.Mark or Restate, or returned by OnDrop or by
	// Summary.Marks. Data is nil.
	Mark any
}

// Cursor reads a transcript from an offset. Its methods may be called from any goroutine, but only
// one call of Next may run at a time. A cursor holds no descriptor of its own, and no memory beyond
// its few fields. It must be closed.
type Cursor struct {
	t      *Transcript
	notify func()

	mu      sync.Mutex
	closed  bool
	offset  int64
	mark    int    // The number of the next mark to deliver.
	stands  []any  // What comes before it, because it stands for what is missing.
	located bool   // The fields below belong to offset.
	record  header // The record that holds offset, or, when left is 0, the one before it.
	left    int64  // Bytes of record at and after offset.
	pos     int64  // Where in the records the next byte is; when left is 0, the next header.
	ahead   int64  // How far to read past the current record; see adapt.
	at      int64  // The last time at or before offset, or noTime.
	byTime  bool   // See SplitTimes.
	word    [maxHeader]byte
	skim    [256]byte // For searching when the caller's buffer is small.

	// Guarded by t.mu.
	waiting bool // In t.waiting.
	reading bool // Counted in t.readers.
}

// The bounds of how far a cursor reads past the current record, in the hope of finding more of the
// same stream.
const (
	minAhead = 256
	maxAhead = 256 << 10
)

// Cursor returns a cursor that delivers the bytes that follow offset after, and the marks at
// offsets >= after. Several marks at one place come in the order they were made. It returns
// ErrOffset if after is negative or past the end. One that begins where the kept bytes do delivers first
// what stands for those before.
//
// notify is called each time something arrives after Next returned ErrWait, at most once for each
// ErrWait. It runs on the goroutine that appends, without locks; it must not block. One call may
// still be under way when Close returns. It may be nil.
func (t *Transcript) Cursor(after int64, notify func()) (*Cursor, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if after < 0 || after > t.end {
		return nil, fmt.Errorf("%w: %d is not in 0..%d", ErrOffset, after, t.end)
	}
	c := &Cursor{t: t, notify: notify, offset: after, mark: t.firstMarkAt(after), ahead: 64 << 10, at: noTime}
	if after == t.start {
		c.stands = t.stands // whoever has come so far may have lost a part of it
	}
	return c, nil
}

// SplitTimes makes each piece end where bytes follow that have a time of their own. Call it before
// Next.
func (c *Cursor) SplitTimes() { c.byTime = true }

// Offset returns the position of the next byte.
func (c *Cursor) Offset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

// Close ends the cursor. Idempotent.
func (c *Cursor) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	c.letGo()
	if !c.waiting {
		return
	}
	c.waiting = false
	for i, w := range t.waiting {
		if w == c {
			last := len(t.waiting) - 1
			t.waiting[i], t.waiting[last] = t.waiting[last], nil
			t.waiting = t.waiting[:last]
			return
		}
	}
}

// letGo records that the cursor no longer needs the file. Called with t.mu held.
func (c *Cursor) letGo() {
	if c.reading {
		c.reading = false
		c.t.readers--
		c.t.closeUnused()
	}
}

// Next returns the next piece. It fills buf with available bytes of one stream, joining records as
// far as they belong together; a piece never crosses a mark. If nothing is available yet, it
// returns ErrWait and notify will be called. It returns io.EOF after the last byte and mark of a
// sealed transcript, ErrClosed after Close, and io.ErrShortBuffer for an empty buf. A file that
// cannot be read causes a gap, not an error.
func (c *Cursor) Next(buf []byte) (Piece, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(buf) == 0 {
		return Piece{}, io.ErrShortBuffer
	}
	v, err := c.look()
	if err != nil || v.piece.Mark != nil || v.piece.Gap != 0 {
		return v.piece, err
	}
	piece, err := c.fill(v, buf)
	if err != nil {
		return c.unreadable(err), nil
	}
	return piece, nil
}

// view is what a cursor may read, according to the transcript's state at one moment.
type view struct {
	piece    Piece // If it has a mark or a gap, the result.
	file     *os.File
	recycled *recycler
	bound    int64      // Offset of the end or of the next mark.
	fileEnd  int64      // Where the last complete record ends.
	start    indexEntry // To search from, unless located.
}

// look decides what comes next.
func (c *Cursor) look() (view, error) {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.closed {
		return view{}, ErrClosed
	}
	if len(c.stands) > 0 {
		m := c.stands[0]
		c.stands = c.stands[1:]
		return view{piece: Piece{Offset: c.offset, Mark: m}}, nil
	}
	bound := t.end
	if m := t.markFrom(c.mark); m != nil {
		if m.offset <= c.offset {
			c.mark = m.seq + 1
			return view{piece: Piece{Offset: c.offset, Mark: m.value}}, nil
		}
		bound = m.offset
	}
	switch {
	case c.offset < t.start:
		return view{piece: c.gap(t.start)}, nil
	case c.offset < t.end:
		return c.reach(bound), nil
	case t.sealed:
		c.letGo()
		return view{}, io.EOF
	}
	if !c.waiting {
		c.waiting = true
		t.waiting = append(t.waiting, c)
	}
	return view{}, ErrWait
}

// reach makes sure that the file is open. Called with t.mu held.
func (c *Cursor) reach(bound int64) view {
	t := c.t
	if t.file == nil {
		f, err := reopen(t.path)
		if err != nil {
			return view{piece: c.failed(err)}
		}
		t.file = f
	}
	if !c.reading {
		c.reading = true
		t.readers++
	}
	v := view{file: t.file, recycled: t.recycled, bound: bound, fileEnd: t.fileEnd}
	if !c.located {
		index := t.index.all()
		i := sort.Search(len(index), func(i int) bool { return index[i].offset > c.offset })
		v.start = index[i-1]
	}
	return v
}

// reopen opens a file again that was closed in the meantime. Another process may have replaced it,
// so O_NONBLOCK keeps a named pipe from blocking and O_NOFOLLOW refuses a symbolic link (open(2)).
func reopen(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errCorrupt
	}
	if err != nil {
		closeFile(f)
		return nil, err
	}
	return f, nil
}

// gap skips to an offset. Called with t.mu held.
func (c *Cursor) gap(to int64) Piece {
	missing := to - c.offset
	c.offset, c.located, c.left, c.stands = to, false, 0, nil
	if to == c.t.start {
		c.stands = c.t.stands
	}
	if to == c.t.end {
		c.letGo()
	}
	return Piece{Gap: missing, Offset: c.offset}
}

// failed is a gap to the end, for a file that cannot be read. Called with t.mu held.
func (c *Cursor) failed(err error) Piece {
	c.t.store.readFailures.Add(1)
	c.t.log().Warn("cannot read transcript, its readers get a gap", slog.Any("err", err))
	return c.gap(c.t.end)
}

// unreadable returns the gap after a failed read: the bytes gave way, the file was evicted or
// removed, or an I/O error occurred.
func (c *Cursor) unreadable(err error) Piece {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.offset >= t.start {
		return c.failed(err)
	}
	if err == errRecycled && t.summary == nil {
		// The writer is faster than this reader. From the oldest byte it would be overtaken again.
		return c.gap(t.start + (t.end-t.start)/4)
	}
	return c.gap(t.start)
}
