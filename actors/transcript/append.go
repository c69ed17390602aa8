package transcript

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"

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
	marker []byte // Not empty: the line was truncated.
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
		if inBody > 0 {
			inBody = bytes.LastIndexByte(c.body[:inBody], '\n') + 1
		}
		if inBody <= 0 {
			return chunk{}
		}
		c.body = c.body[:inBody]
	case splitBytes:
		c.held = c.held[:min(n, len(c.held))]
		c.body = c.body[:n-len(c.held)]
	default:
		return chunk{}
	}
	return c
}

// append adds c as one record and returns how many of its bytes it stored. Fewer than all means
// that dropping has begun; the caller counts the rest.
func (t *Transcript) append(c chunk) int {
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
	part := c.fit(t.limit - t.end)
	n := part.size()
	if n < c.size() {
		reason = DropLimit
	}
	if n > 0 {
		if failed := t.writeRecord(part); failed != 0 {
			n, reason = 0, failed
		} else {
			woken = t.publish(n, woken)
		}
	}
	if reason != 0 {
		woken = t.startDropping(reason, woken)
	}
	return n, woken
}

// publish makes a completely written record of n payload bytes visible to cursors.
func (t *Transcript) publish(n int, woken []*Cursor) []*Cursor {
	t.store.outputBytes.Add(int64(n))
	t.mu.Lock()
	defer t.mu.Unlock()
	if last := len(t.index) - 1; last < 0 || t.fileEnd-t.index[last].pos >= indexEvery {
		t.index = append(t.index, indexEntry{t.end, t.fileEnd})
	}
	t.end += int64(n)
	t.fileEnd += headerSize + int64(n)
	return t.takeWaiting(woken)
}

func (t *Transcript) startDropping(reason DropReason, woken []*Cursor) []*Cursor {
	t.dropping.Store(uint32(reason))
	if t.onDrop == nil || reason == DropClosed {
		return woken
	}
	v := t.onDrop(reason, t.end)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addMark(v, woken)
}

// writeRecord appends a record to the file. When it returns a reason, no part of the record is
// stored.
func (t *Transcript) writeRecord(c chunk) DropReason {
	size := headerSize + int64(c.size())
	if reason := t.store.reserve(t, size); reason != 0 {
		return reason
	}
	if t.file == nil {
		if err := t.create(); err != nil {
			t.store.release(t, size)
			return t.writeFailed(err)
		}
	}
	putHeader(t.header[:], c.stream, len(c.marker) > 0, c.size())
	t.parts = [4][]byte{t.header[:], c.held, c.body, c.marker}
	written, err := t.writeParts()
	t.parts, t.unsent = [4][]byte{}, [4][]byte{} // Otherwise the caller's buffer stays referenced.
	if err == nil {
		return 0
	}
	// A short write left part of the record in the file. Truncate it, or it would use disk space
	// that the budget does not count.
	if written > 0 && t.file.Truncate(t.fileEnd) != nil {
		size -= int64(written)
	}
	t.store.release(t, size)
	return t.writeFailed(err)
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

// writeParts writes t.parts after the last record. It continues a short write until it is complete
// or fails.
func (t *Transcript) writeParts() (int, error) {
	size := 0
	for _, p := range t.parts {
		size += len(p)
	}
	written, left := 0, t.parts[:]
	for {
		n, err := t.store.pwritev(t.fd, left, t.fileEnd+int64(written))
		if n > 0 {
			written += n
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
		left = skipParts(t.unsent[:0], t.parts[:], written)
	}
}

// skipParts appends to dst the parts without their first n bytes.
func skipParts(dst, parts [][]byte, n int) [][]byte {
	for _, p := range parts {
		k := min(n, len(p))
		n -= k
		if k < len(p) {
			dst = append(dst, p[k:])
		}
	}
	return dst
}

func (t *Transcript) writeFailed(err error) DropReason {
	t.store.writeFailures.Add(1)
	t.log().Warn("cannot write transcript, dropping output from here on", slog.Any("err", err))
	return DropWrite
}
