package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible returns s with every character that could act on a terminal, or make the text read
// differently from what it is, written as an escape such as \x1b or \u202e. Names, commands and error
// texts come from servers and other users. Everything that troupe prints goes through it, to a
// terminal or not, except for the output of commands and JSON.
func visible(s string) string {
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		at := i
		i += size
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[at])
		case !unsafe(r):
			b.WriteString(s[at:i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// shorten cuts s to about most bytes, in its middle: the end of an error is usually its cause.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	head, tail := most/2, len(s)-most/2
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	for tail < len(s) && !utf8.RuneStart(s[tail]) {
		tail++
	}
	return fmt.Sprintf("%s… %d bytes …%s", s[:head], tail-head, s[tail:])
}

// unsafe reports whether a terminal does anything with r but show it: the control characters C0, DEL
// and C1, line and paragraph separators, and format characters, among which are those that change
// the direction of text (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069). The joiners
// U+200C and U+200D belong to words and to emoji, and move nothing.
func unsafe(r rune) bool {
	switch r {
	case '\u200c', '\u200d':
		return false
	case utf8.RuneError: // also what stands for a byte that is not UTF-8
		return true
	}
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}
