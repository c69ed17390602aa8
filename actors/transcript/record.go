package transcript

import "encoding/binary"

// A record is a run of consecutive bytes of one stream: a header, then the payload. The header has
// one byte for a payload of less than 32 bytes, and four for a longer one:
//
//	bit 0     stream
//	bit 1     truncated: the payload is (a part of) one line that was cut
//	bit 2     the header has four bytes, little endian
//	bits 3-   length of the payload, at least 1
//	bit 31    a time follows: five bytes, little endian
//
// The time is when the payload arrived, in milliseconds since the store was opened. Records without
// one arrived with the record before, or less than timeStep after the last one that has a time.
//
// Many whole lines share one record, so a line by itself costs nothing. The short header keeps the
// overhead bearable for a command that writes single bytes: each takes 2 bytes on disk, and without
// a time no record takes more than twice its payload.
const (
	longHeader = 4
	timeSize   = 5
	maxHeader  = longHeader + timeSize
	maxShort   = 31
	timed      = 1 << 31
)

// timeStep is how exact times are, in milliseconds.
const timeStep = 10

// noTime is that of a record without a time.
const noTime = -1

// indexEvery is the distance in file bytes between two entries of a transcript's index. Counting
// file bytes, not payload, bounds what a search reads even where records hold one byte each.
const indexEvery = 64 << 10

// indexEntry says that the payload byte at offset is the first of the record whose header is at
// pos.
type indexEntry struct {
	offset, pos int64
}

type header struct {
	stream    Stream
	truncated bool
	size      int64 // Of the header itself.
	length    int64
	at        int64 // The time, or noTime.
}

// putHeader writes a header to the front of b and returns its size.
func putHeader(b []byte, stream Stream, truncated bool, length int, at int64) int {
	v := uint32(length)<<3 | uint32(stream)&1
	if truncated {
		v |= 2
	}
	switch {
	case at != noTime:
		binary.LittleEndian.PutUint32(b, v|4|timed)
		binary.LittleEndian.PutUint32(b[longHeader:], uint32(at)) //nolint:gosec // the rest follows
		b[longHeader+4] = byte(at >> 32)
		return maxHeader
	case length <= maxShort:
		b[0] = byte(v)
		return 1
	}
	binary.LittleEndian.PutUint32(b, v|4)
	return longHeader
}

// parseHeader reports false if b ends before the header does.
func parseHeader(b []byte) (header, bool) {
	if len(b) == 0 {
		return header{}, false
	}
	h := header{stream: Stream(b[0] & 1), truncated: b[0]&2 != 0, size: 1, length: int64(b[0] >> 3), at: noTime}
	if b[0]&4 == 0 {
		return h, true
	}
	if len(b) < longHeader {
		return header{}, false
	}
	v := binary.LittleEndian.Uint32(b)
	h.size, h.length = longHeader, int64(v&^timed>>3)
	if v&timed == 0 {
		return h, true
	}
	if len(b) < maxHeader {
		return header{}, false
	}
	h.size, h.at = maxHeader, int64(binary.LittleEndian.Uint32(b[longHeader:]))|int64(b[longHeader+4])<<32
	return h, true
}

// mergesWith reports whether bytes of both records may share a piece. A truncated line stands
// alone.
func (h header) mergesWith(next header) bool {
	return h.stream == next.stream && !h.truncated && !next.truncated
}
