package wire

// MaxElements is how many elements of arrays and members of objects the params of a request may have.
// Decoded, each costs up to 100 bytes, and the kernel starts no command with as many arguments of
// useful length as this: execve(2) takes 2 MiB of them by default.
const MaxElements = 16_384

// Elements returns about how many elements and members JSON text has, at all depths: the number of
// its commas outside of strings. It may be wrong for text that is not JSON.
func Elements(text []byte) int {
	n := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ',':
			n++
		case '"':
			i = skipString(text, i+1)
		}
	}
	return n
}

// skipString returns the index of the quote that ends the string which begins at i.
func skipString(text []byte, i int) int {
	for ; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}
