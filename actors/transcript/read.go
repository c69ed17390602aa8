package transcript

import (
	"io"
	"os"
	"time"
)

// fill reads payload into buf, from the cursor's place up to v.bound. An error means that nothing
// was read.
//
// It reads file bytes straight into buf, several records at a time, and closes up the headers
// between them: one system call for a buffer full of short records.
func (c *Cursor) fill(v view, buf []byte) (Piece, error) {
	if !c.located {
		if err := c.locate(v, buf); err != nil {
			return Piece{}, err
		}
	}
	var kind header
	var at time.Time
	var err error
	n, want := int64(0), min(int64(len(buf)), v.bound-c.offset)
	for n < want {
		if c.left == 0 {
			if err = c.readHeader(v); err != nil {
				break
			}
		}
		if n == 0 {
			kind, at = c.record, c.time()
		} else if !c.merges(kind) {
			break
		}
		size := min(want-n, max(c.left, c.ahead), v.fileEnd-c.pos)
		var got int64
		if got, err = c.readBlock(v, buf[n:n+size], kind); err != nil {
			break
		}
		n += got
		c.offset += got
		if c.left == 0 && kind.truncated {
			break
		}
		c.ahead = min(2*c.ahead, maxAhead)
	}
	if n == 0 && err != nil {
		return Piece{}, err
	}
	c.adapt(n, n < want)
	return Piece{Stream: kind.stream, Data: buf[:n:n], Truncated: kind.truncated, Offset: c.offset, At: at}, nil
}

// merges reports whether the current record may continue a piece of kind.
func (c *Cursor) merges(kind header) bool {
	return kind.mergesWith(c.record) && (!c.byTime || c.record.at == noTime)
}

// time returns when the current record arrived.
func (c *Cursor) time() time.Time {
	if c.at == noTime {
		return time.Time{}
	}
	return c.t.store.opened.Add(time.Duration(c.at) * time.Millisecond)
}

// adapt keeps the read-ahead near the length of the runs of one stream. With a fixed read-ahead,
// each byte of a command that writes single bytes to alternating streams would cost a 64 KiB read.
func (c *Cursor) adapt(n int64, cutShort bool) {
	if cutShort {
		c.ahead = max(minAhead, min(2*n, maxAhead))
	}
}

// readHeader reads the header at c.pos.
func (c *Cursor) readHeader(v view) error {
	word := c.word[:min(maxHeader, max(v.fileEnd-c.pos, 0))]
	if err := readFull(v, word, c.pos); err != nil {
		return err
	}
	h, whole := parseHeader(word)
	if !whole {
		return errCorrupt
	}
	return c.enter(v, h)
}

// enter moves past a header. The file may have been tampered with, so every value in it is checked.
func (c *Cursor) enter(v view, h header) error {
	if h.length == 0 || c.pos+h.size+h.length > v.fileEnd {
		return errCorrupt
	}
	c.record, c.left = h, h.length
	if h.at != noTime {
		c.at = h.at
	}
	c.pos += h.size
	return nil
}

// readBlock fills block with file bytes from c.pos, moves the payload that merges with kind to its
// front, and returns its length, at least 1. c is left in the record that does not merge, or where
// the block ended.
func (c *Cursor) readBlock(v view, block []byte, kind header) (int64, error) {
	if len(block) == 0 {
		return 0, errCorrupt
	}
	if err := readFull(v, block, c.pos); err != nil {
		return 0, err
	}
	src, dst := int64(0), int64(0)
	for {
		take := min(c.left, int64(len(block))-src)
		if dst != src {
			copy(block[dst:], block[src:src+take])
		}
		src, dst = src+take, dst+take
		c.left -= take
		c.pos += take
		if c.left > 0 {
			return dst, nil
		}
		h, whole := parseHeader(block[src:])
		if !whole {
			return dst, nil // It is read again.
		}
		if c.enter(v, h) != nil {
			return dst, nil // What came before is good. The next call finds the same, and reports it.
		}
		src += h.size
		if !c.merges(kind) {
			return dst, nil
		}
	}
}

// locate finds the record that holds c.offset. scratch is overwritten.
func (c *Cursor) locate(v view, scratch []byte) error {
	if len(scratch) < len(c.skim) {
		scratch = c.skim[:]
	}
	scratch = scratch[:min(len(scratch), 16<<10)]
	offset, pos := v.start.offset, v.start.pos
	for {
		block := scratch[:min(int64(len(scratch)), max(v.fileEnd-pos, 0))]
		if err := readFull(v, block, pos); err != nil {
			return err
		}
		at := int64(0)
		for at < int64(len(block)) {
			h, whole := parseHeader(block[at:])
			if !whole {
				break
			}
			if h.length == 0 {
				return errCorrupt
			}
			if h.at != noTime {
				c.at = h.at
			}
			if inside := c.offset - offset; inside < h.length {
				c.pos = pos + at
				if err := c.enter(v, h); err != nil {
					return err
				}
				c.pos += inside
				c.left -= inside
				c.located = true
				return nil
			}
			offset += h.length
			at += h.size + h.length
		}
		if at == 0 {
			return errCorrupt
		}
		pos += at
	}
}

func readFull(v view, b []byte, pos int64) error {
	if v.recycled != nil {
		return v.recycled.read(v.file, b, pos)
	}
	return readAt(v.file, b, pos)
}

func readAt(f *os.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return errCorrupt
	}
	return err
}
