package transcript

import "encoding/binary"

// A record is a run of consecutive bytes of one stream: a header, then the payload.
//
//	bit 0      stream
//	bit 1      truncated: the payload is (the rest of) one line that was cut
//	bits 2-31  length of the payload, at least 1
//
// Many whole lines share one record, so a line by itself costs nothing. A header of four bytes
// keeps the overhead bearable for a command that writes single bytes: each takes 5 bytes on disk.
const (
	headerSize = 4
	maxRecord  = 1<<30 - 1
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
	length    int64
}

func putHeader(b []byte, stream Stream, truncated bool, length int) {
	v := uint32(length)<<2 | uint32(stream)&1
	if truncated {
		v |= 2
	}
	binary.LittleEndian.PutUint32(b, v)
}

func parseHeader(b []byte) header {
	v := binary.LittleEndian.Uint32(b)
	return header{stream: Stream(v & 1), truncated: v&2 != 0, length: int64(v >> 2)}
}

// mergesWith reports whether bytes of both records may share a piece. A truncated line stands
// alone.
func (h header) mergesWith(next header) bool {
	return h.stream == next.stream && !h.truncated && !next.truncated
}
