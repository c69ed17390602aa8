package wire

// appendUnescaped reads the inside of a JSON string up to its closing quote, appends the unescaped
// bytes to dst, and returns the rest from that quote on. It knows the escapes that appendEscaped
// writes; if ok is false, the caller leaves the string to encoding/json.
func appendUnescaped(dst, b []byte) (out, rest []byte, ok bool) {
	for i := 0; i < len(b); {
		run := i
		i += verbatimRun(b[i:])
		if i == len(b) {
			break
		}
		dst = append(dst, b[run:i]...)
		if b[i] == '"' {
			return dst, b[i:], true
		}
		if b[i] != '\\' || i+1 == len(b) {
			break
		}
		c, n := unescapeByte(b[i+1:])
		if n == 0 {
			break
		}
		dst = append(dst, c)
		i += 1 + n
	}
	return dst, nil, false
}

// unescapeByte decodes the text after a backslash, if it stands for one ASCII character, and
// returns its length.
func unescapeByte(b []byte) (c byte, n int) {
	switch b[0] {
	case 'n':
		return '\n', 1
	case '"', '\\', '/':
		return b[0], 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case 'b':
		return '\b', 1
	case 'f':
		return '\f', 1
	case 'u':
		if len(b) < 5 || b[1] != '0' || b[2] != '0' {
			return 0, 0
		}
		hi, lo := hexValue(b[3]), hexValue(b[4])
		if hi > 7 || lo > 15 {
			return 0, 0
		}
		return hi<<4 | lo, 5
	}
	return 0, 0
}

// hexValue returns the value of a hexadecimal digit, or 255.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
