package transcript

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// split says which part of a chunk may be stored by itself when the limit leaves no room for all of
// it.
type split uint8

const (
	splitNever split = iota // All or nothing: one line, or part of one.
	splitLines              // Whole lines.
	splitBytes              // Any number of bytes.
)

// chunk is the payload of one append: held, then body, then marker, without copying them.
type chunk struct {
	stream Stream
	split  split
	held   []byte // Has no newline in line mode.
	body   []byte
	// Truncated means that the chunk is (a part of) one truncated line; the last part has the marker.
	truncated bool
	marker    []byte
}

func (c chunk) size() int { return len(c.held) + len(c.body) + len(c.marker) }

// fit returns the part of c that may be stored in room bytes.
func (c chunk) fit(room int64) chunk {
	if int64(c.size()) <= room {
		return c
	}
	n := int(max(room, 0))
	switch c.split {
	case splitLines:
		inBody := n - len(c.held)
		end := lastLineEnd(c.body, 0, inBody)
		if end > inBody { // A newline that belongs to a carriage return does not fit.
			end = lastLineEnd(c.body, 0, inBody-1)
		}
		if end <= 0 {
			return chunk{}
		}
		c.body = c.body[:end]
	case splitBytes:
		c.held = c.held[:min(n, len(c.held))]
		c.body = c.body[:n-len(c.held)]
	default:
		return chunk{}
	}
	return c
}

// part returns the bytes of held and body from one to another, and the marker with the last of them.
func (c chunk) part(from, to int) chunk {
	held := len(c.held)
	if to < held+len(c.body) {
		c.marker = nil
	}
	c.body = c.body[max(from-held, 0):max(to-held, 0)]
	c.held = c.held[min(from, held):min(to, held)]
	return c
}

// append adds c, to a First transcript as one record, and returns how many of its bytes it stored.
// Fewer than all means that dropping has begun; the caller counts the rest.
func (t *Transcript) append(c chunk) int {
	if t.retain == First {
		return t.appendRecord(c)
	}
	n, size := 0, len(c.held)+len(c.body)
	for {
		part := c.part(n, min(n+maxRecycled, size))
		t.awaitRoom()
		stored := t.appendRecord(part)
		n += stored
		if stored < part.size() || n >= size {
			return n
		}
	}
}

func (t *Transcript) appendRecord(c chunk) int {
	var local [8]*Cursor
	t.writeMu.Lock()
	n, woken := t.appendLocked(c, local[:0])
	t.writeMu.Unlock()
	wake(woken)
	return n
}

func (t *Transcript) appendLocked(c chunk, woken []*Cursor) (int, []*Cursor) {
	if t.dropping.Load() != 0 {
		return 0, woken
	}
	var reason DropReason
	part := c
	if t.retain == First {
		part = c.fit(t.limit - t.end)
	}
	n := part.size()
	if n < c.size() {
		reason = DropLimit
	}
	if n > 0 {
		header := putHeader(t.header[:], part.stream, part.truncated, n, t.timeDue())
		if failed := t.writeRecord(part, header); failed != 0 {
			n, reason = 0, failed
		} else {
			woken = t.publish(header, n, woken)
			if t.retain == Last {
				t.keepNewest()
			}
		}
	}
	if reason != 0 {
		woken = t.startDropping(reason, woken)
	}
	return n, woken
}

// timeDue returns the time that the next record is to carry, or noTime. A record with an entry in the
// index carries one, so that a cursor knows the time wherever it begins.
func (t *Transcript) timeDue() int64 {
	if !t.times {
		return noTime
	}
	now := time.Since(t.store.opened).Milliseconds()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now-t.timed < timeStep && !t.entryDue() {
		return noTime
	}
	t.timed = now
	return now
}

// entryDue reports whether the next record gets an entry in the index. Called with mu held.
func (t *Transcript) entryDue() bool {
	index := t.index.all()
	last := len(index) - 1
	return last < 0 || t.fileEnd-index[last].pos >= indexEvery
}

// publish makes a completely written record of n payload bytes visible to cursors.
func (t *Transcript) publish(header, n int, woken []*Cursor) []*Cursor {
	t.store.outputBytes.Add(int64(n))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entryDue() {
		t.index.push(indexEntry{t.end, t.fileEnd})
	}
	t.end += int64(n)
	t.fileEnd += int64(header + n)
	return t.takeWaiting(woken)
}

func (t *Transcript) startDropping(reason DropReason, woken []*Cursor) []*Cursor {
	t.dropping.Store(uint32(reason))
	var v any
	if t.onDrop != nil && reason != DropClosed {
		v = t.onDrop(reason, t.end)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unblock() // The other writer may wait: it has nothing to wait for any more.
	return t.addMark(v, false, woken)
}

// writeRecord appends a record to the file, whose header of so many bytes is in t.header. When it
// returns a reason, no part of the record is stored.
func (t *Transcript) writeRecord(c chunk, header int) DropReason {
	for {
		grow, reason, err := t.tryRecord(c, header)
		switch {
		case reason == 0:
			return 0
		case grow > 0 && t.recycleOldest():
		case err != nil:
			return t.writeFailed(err)
		default:
			return reason
		}
	}
}

// tryRecord also returns by how many bytes the file had to grow, and the error behind DropWrite.
func (t *Transcript) tryRecord(c chunk, header int) (grow int64, reason DropReason, err error) {
	size := int64(header + c.size())
	grow, old := size, t.fileEnd
	if r := t.recycled; r != nil {
		grow, old = r.place(t.fileEnd, size, t.retain == Last), r.size
		if t.retain == Unread && old+grow > maxUnreadFile {
			return grow, DropBudget, nil
		}
	}
	if grow > 0 {
		if reason := t.store.reserve(t, grow); reason != 0 {
			return grow, reason, nil
		}
	}
	if t.file == nil {
		if err := t.create(); err != nil {
			t.store.release(t, grow)
			return grow, DropWrite, err
		}
	}
	written := int64(0)
	if err = t.extend(old, grow); err == nil {
		t.parts = [4][]byte{t.header[:header], c.held, c.body, c.marker}
		written, err = t.writeParts(size)
		t.parts, t.unsent = [4][]byte{}, [4][]byte{} // Otherwise the caller's buffer stays referenced.
	}
	if err == nil {
		if t.recycled != nil {
			t.recycled.size += grow
		}
		return grow, 0, nil
	}
	// A short write left part of the record in the file. Truncate it, or it would use disk space
	// that the budget does not count.
	if grow > 0 && (written == 0 && t.retain != Last || t.file.Truncate(old) == nil) {
		t.store.release(t, grow)
	}
	return grow, DropWrite, err
}

// extend takes the blocks of a Last transcript from the disk before they are written to. When the
// disk or the budget is short, a block is therefore full, and the next record can take the place of
// the oldest ones.
func (t *Transcript) extend(size, grow int64) error {
	if t.retain != Last || grow == 0 {
		return nil
	}
	err := t.store.fallocate(t.fd, size, grow)
	if err == unix.EOPNOTSUPP {
		return t.file.Truncate(size + grow)
	}
	return err
}

func (t *Transcript) create() error {
	open := func() (*os.File, error) {
		return os.OpenFile(t.path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	}
	f, err := open()
	if errors.Is(err, fs.ErrNotExist) && t.store.restore() {
		f, err = open()
	}
	if err != nil {
		return err
	}
	t.fd = int(f.Fd())
	t.mu.Lock()
	t.file = f
	t.mu.Unlock()
	return nil
}

// writeParts writes t.parts, size bytes, after the last record. It continues a short write until it
// is complete or fails.
func (t *Transcript) writeParts(size int64) (written int64, err error) {
	for {
		place := extent{t.fileEnd + written, size - written}
		if t.recycled != nil {
			place = t.recycled.extentAfter(written)
		}
		left := cutParts(t.unsent[:0], t.parts[:], int(written), int(written+place.size))
		n, err := t.store.pwritev(t.fd, left, place.at)
		if n > 0 {
			written += int64(n)
		}
		switch {
		case err == unix.EINTR:
		case err != nil:
			return written, err
		case written == size:
			return written, nil
		case n <= 0:
			return written, unix.EIO
		}
	}
}

// cutParts appends to dst the bytes of parts from one to another.
func cutParts(dst, parts [][]byte, from, to int) [][]byte {
	for _, p := range parts {
		if a, b := max(from, 0), min(to, len(p)); a < b {
			dst = append(dst, p[a:b])
		}
		from, to = from-len(p), to-len(p)
	}
	return dst
}

func (t *Transcript) writeFailed(err error) DropReason {
	t.store.writeFailures.Add(1)
	t.log().Warn("cannot write transcript, dropping output from here on", slog.Any("err", err))
	return DropWrite
}
