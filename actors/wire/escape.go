package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// This escaper exists because encoding/json allocates and cannot stop at a size. Consider
// encoding/json/jsontext instead once it is stable (https://go.dev/issue/71497): it is behind
// GOEXPERIMENT=jsonv2 in Go 1.26.

// Masks for testing eight bytes of a string at a time
// (SWAR, https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord).
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// specialBytes returns a word whose lowest set bit is in the first of the eight bytes of w that is
// not ASCII or needs an escape in a JSON string: a control character, a quote, a backslash or a
// byte above 0x7f. Zero means that there is none.
//
// For a byte x below 0x80, x-n has its high bit set exactly if x < n, and x^c
// is zero exactly if x is c. A borrow out of a byte can make a later one look
// special, never an earlier one, so the lowest bit is exact.
func specialBytes(w uint64) uint64 {
	control := w - lowBits*0x20
	quote := (w ^ lowBits*'"') - lowBits
	backslash := (w ^ lowBits*'\\') - lowBits
	return (control | quote | backslash | w) & highBits
}

// plainRun returns the length of the prefix of b that is ASCII and needs no escape in a JSON
// string.
func plainRun(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if m := specialBytes(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && plainByte[b[i]] {
		i++
	}
	return i
}

// plainByte marks the ASCII bytes that need no escape in a JSON string.
var plainByte = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

const hexDigits = "0123456789abcdef"

// escapeMax is the longest text that one byte or rune of payload can become: \u0000.
const escapeMax = 6

// replacement is U+FFFD in UTF-8.
const replacement = "\uFFFD"

// verbatimRun returns the length of the prefix of b that needs no escape in a JSON string: valid
// UTF-8 without control characters, quotes and backslashes.
func verbatimRun(b []byte) int {
	i := 0
	for {
		i += plainRun(b[i:])
		if i == len(b) || b[i] < utf8.RuneSelf {
			return i
		}
		for i < len(b) && b[i] >= utf8.RuneSelf {
			n := runeLen(b[i:])
			if n == 0 {
				return i
			}
			i += n
		}
	}
}

// runeLen returns the length of the non-ASCII rune at the start of b, or 0 if it is incomplete or
// not UTF-8. It avoids utf8.DecodeRune for the common lengths of two and three bytes.
func runeLen(b []byte) int {
	const continuation, mask = 0x80, 0xc0
	switch c := b[0]; {
	case 0xc2 <= c && c <= 0xdf:
		if len(b) >= 2 && b[1]&mask == continuation {
			return 2
		}
		return 0
	case 0xe1 <= c && c <= 0xec: // 0xe0 and 0xed onwards have narrower second bytes
		if len(b) >= 3 && b[1]&mask == continuation && b[2]&mask == continuation {
			return 3
		}
		return 0
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && n == 1 {
		return 0
	}
	return n
}

// appendEscaped appends src as the inside of a JSON string, at most room
// bytes, and returns how much of src that was. It never cuts a rune.
func appendEscaped(dst, src []byte, room int) (out []byte, consumed int) {
	limit := len(dst) + room
	i := 0
	for i < len(src) {
		run := verbatimRun(src[i:min(len(src), i+limit-len(dst))])
		dst = append(dst, src[i:i+run]...)
		i += run
		if i == len(src) || limit-len(dst) < escapeMax {
			break
		}
		// This byte ended the run, not the lack of room.
		if src[i] < utf8.RuneSelf {
			dst = appendEscapedByte(dst, src[i])
		} else {
			dst = append(dst, replacement...)
		}
		i++
	}
	return dst, i
}

// appendEscapedByte appends an ASCII byte that verbatimRun stopped at.
func appendEscapedByte(dst []byte, c byte) []byte {
	switch c {
	case '\n':
		return append(dst, '\\', 'n')
	case '"', '\\':
		return append(dst, '\\', c)
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// escapedLen returns the bytes that appendEscaped writes for src.
func escapedLen(src []byte) int {
	total := 0
	for i := 0; i < len(src); {
		run := verbatimRun(src[i:])
		total += run
		i += run
		if i == len(src) {
			break
		}
		if src[i] < utf8.RuneSelf {
			var scratch [escapeMax]byte
			total += len(appendEscapedByte(scratch[:0], src[i]))
		} else {
			total += len(replacement)
		}
		i++
	}
	return total
}

// AppendString appends s as a JSON string, without the HTML escaping of encoding/json.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if !plainByte[s[i]] {
			dst, _ = appendEscaped(dst, []byte(s), escapeMax*(len(s)+1))
			return append(dst, '"')
		}
	}
	dst = append(dst, s...)
	return append(dst, '"')
}
