package screen

import "strings"

// operate carries out an operating system command: the title, and links.
func (s *Screen) operate(body string) {
	number, rest, found := strings.Cut(body, ";")
	if !found {
		return
	}
	switch number {
	case "0", "2":
		s.title, s.titled = rest, true
	case "8":
		_, address, found := strings.Cut(rest, ";")
		switch {
		case !found, s.plain:
		case address == "":
			s.cur.link = 0
		default:
			s.cur.link = uint8(s.add(&s.links, rest, s.usedLinks)) //nolint:gosec // at most maxLinks
		}
	}
}
