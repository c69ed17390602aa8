package transcript

import "encoding/binary"

// A record is a run of consecutive bytes of one stream: a header, then the payload. The header has
// one byte for a payload of less than 32 bytes, and four for a longer one:
//
//	bit 0     stream
//	bit 1     truncated: the payload is (a part of) one line that was cut
//	bit 2     the header has four bytes, little endian
//	bits 3-   length of the payload, at least 1
//
// Many whole lines share one record, so a line by itself costs nothing. The short header keeps the
// overhead bearable for a command that writes single bytes: each takes 2 bytes on disk, and no
// record takes more than twice its payload.
const (
	maxHeader = 4
	maxShort  = 31
)

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
}

// headerSize is the size of the header of a record with that many bytes of payload.
func headerSize(length int) int64 {
	if length <= maxShort {
		return 1
	}
	return maxHeader
}

// putHeader writes a header to the front of b and returns its size.
func putHeader(b []byte, stream Stream, truncated bool, length int) int {
	v := uint32(length)<<3 | uint32(stream)&1
	if truncated {
		v |= 2
	}
	if length <= maxShort {
		b[0] = byte(v)
		return 1
	}
	binary.LittleEndian.PutUint32(b, v|4)
	return maxHeader
}

// parseHeader reports false if b ends before the header does.
func parseHeader(b []byte) (header, bool) {
	if len(b) == 0 {
		return header{}, false
	}
	h := header{stream: Stream(b[0] & 1), truncated: b[0]&2 != 0, size: 1, length: int64(b[0] >> 3)}
	if b[0]&4 != 0 {
		if len(b) < maxHeader {
			return header{}, false
		}
		h.size, h.length = maxHeader, int64(binary.LittleEndian.Uint32(b)>>3)
	}
	return h, true
}

// mergesWith reports whether bytes of both records may share a piece. A truncated line stands
// alone.
func (h header) mergesWith(next header) bool {
	return h.stream == next.stream && !h.truncated && !next.truncated
}
