package mcp

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// excerpt keeps the beginning and the end of what is written to it, whatever the length. Its size is
// counted as JSON writes it, because that is what a model reads where a client passes on the
// structured result.
type excerpt struct {
	limit int

	start int64 // position in the output at which it begins
	end   int64 // position after the last byte
	head  []byte
	tail  []byte
	from  int64 // position of tail[0]

	lost   int64 // bytes that the server no longer has
	broken bool  // some of them between start and end
}

func newExcerpt(limit int, offset int64) *excerpt {
	return &excerpt{limit: limit, start: offset, end: offset}
}

// write adds output that ends at offset.
func (x *excerpt) write(p []byte, offset int64) {
	x.end = offset
	if room := x.limit - len(x.head); room > 0 && x.tail == nil && !x.broken {
		n := min(room, len(p))
		x.head, p = append(x.head, p[:n]...), p[n:]
	}
	if len(p) == 0 {
		return
	}
	if x.tail == nil {
		x.from = offset - int64(len(p))
	}
	x.tail = append(x.tail, p...)
	if excess := len(x.tail) - x.limit; excess > x.limit { // rarely, so that each byte is moved once
		x.cut(excess)
	}
}

// gap notes that n bytes before offset are missing.
func (x *excerpt) gap(n, offset int64) {
	if x.end == x.start {
		x.start = offset // it begins after the gap
	} else {
		x.broken = true
	}
	x.end = offset
	x.lost += n
	x.tail = nil
}

func (x *excerpt) cut(n int) {
	x.tail = x.tail[:copy(x.tail, x.tail[n:])]
	x.from += int64(n)
}

// omission is a part of the output that an answer leaves out.
type omission struct {
	Offset int64 `json:"offset"`
	Bytes  int64 `json:"bytes"`
}

// parts returns the beginning and the end of the output as valid UTF-8, and what lies between.
// Without an omission everything is in head.
func (x *excerpt) parts() (head, tail string, between *omission) {
	begin, end := x.head, x.tail
	if !x.broken && (len(end) == 0 || x.from == x.start+int64(len(begin))) {
		all := append(bytes.Clone(begin), end...)
		if cost(all) <= x.limit {
			return text(all), "", nil
		}
		begin, end = all, all
	}
	begin = first(begin, x.limit/2)
	end = last(end, x.limit-cost(begin))
	omitted := x.start + int64(len(begin))
	return text(begin), text(end), &omission{Offset: omitted, Bytes: x.end - int64(len(end)) - omitted}
}

// lastLine returns the last line that holds more than white space, for a progress message of at most n bytes.
func (x *excerpt) lastLine(n int) string {
	b := x.tail
	if len(b) == 0 {
		b = x.head
	}
	b = bytes.TrimRight(b, " \t\r\n")
	if i := bytes.LastIndexAny(b, "\r\n"); i >= 0 {
		b = b[i+1:]
	}
	return text(cutAtRune(b, n))
}

// text returns valid UTF-8 without NUL, which some clients cannot hold.
func text(b []byte) string {
	return strings.ReplaceAll(strings.ToValidUTF8(string(b), "\uFFFD"), "\x00", "\uFFFD")
}

// cost returns the length of b in a JSON string.
func cost(b []byte) (n int) {
	for len(b) > 0 {
		c, size := runeCost(b)
		n, b = n+c, b[size:]
	}
	return n
}

// runeCost returns what the first rune of b takes in a JSON string, and its length in b.
func runeCost(b []byte) (n, size int) {
	switch c := b[0]; {
	case c == '"', c == '\\', c == '\n', c == '\r', c == '\t':
		return 2, 1
	case c < ' ':
		return 6, 1
	case c < utf8.RuneSelf:
		return 1, 1
	}
	r, size := utf8.DecodeRune(b)
	if r == utf8.RuneError && size == 1 {
		return len("\uFFFD"), 1
	}
	return size, size
}

// first returns the longest beginning of b that costs at most limit, up to the end of a line if one ends
// in its second half.
func first(b []byte, limit int) []byte {
	n := 0
	for n < len(b) {
		c, size := runeCost(b[n:])
		if limit -= c; limit < 0 {
			break
		}
		n += size
	}
	if i := bytes.LastIndexByte(b[:n], '\n'); n < len(b) && i >= n/2 {
		n = i + 1
	}
	return b[:n]
}

// last returns the longest end of b that costs at most limit, from the beginning of a line on if one
// begins in its first half.
func last(b []byte, limit int) []byte {
	i := len(b)
	for i > 0 {
		size := 1
		if b[i-1] >= utf8.RuneSelf {
			_, size = utf8.DecodeLastRune(b[:i])
		}
		c, _ := runeCost(b[i-size : i])
		if limit -= c; limit < 0 {
			break
		}
		i -= size
	}
	if j := bytes.IndexByte(b[i:], '\n'); i > 0 && j >= 0 && j < (len(b)-i)/2 {
		i += j + 1
	}
	return b[i:]
}

// cutAtRune returns the beginning of b, at most n bytes, without a part of a rune at its end.
func cutAtRune(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	for n > 0 && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}
