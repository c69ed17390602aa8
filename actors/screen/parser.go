package screen

import "unicode/utf8"

// maxSequence bounds the bytes of an escape sequence. A longer one has no effect.
const maxSequence = 4096

// state is where in the output the parser is.
type state uint8

const (
	ground  state = iota
	escape        // behind ESC, and the intermediate bytes that may follow
	control       // in a control sequence (CSI)
	command       // in an operating system command (OSC)
	device        // in a device control string (DCS)
	text          // in a string that nobody reads (SOS, PM, APC)
)

// The first bytes of sequences that stand for those that grew too long: they come to their end where those do, and
// have no effect, here and on any terminal.
var overlong = [...]string{
	escape:  "\x1b   ",
	control: "\x1b[0<",
	command: "\x1b]7777;",
	device:  "\x1bP0z",
	text:    "\x1bX",
}

// parser cuts the output into characters, controls and sequences.
type parser struct {
	state   state
	tooLong bool
	raw     []byte // of the sequence that is not complete, from its beginning

	partial [utf8.UTFMax]byte // of a character that is not complete
	had     int
	needs   int
}

// Write follows a part of the program's output. It never fails.
func (s *Screen) Write(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if s.had == 0 && p[i] < utf8.RuneSelf {
			if s.state == ground && p[i] >= ' ' {
				if n := s.putASCII(p[i:]); n > 0 {
					i += n
					continue
				}
			}
			s.next(rune(p[i]))
			i++
			continue
		}
		if s.decode(p[i]) {
			i++
		}
	}
	return len(p), nil
}

// decode takes a byte of a character that has several. It returns false if the byte is not of one, but
// ends one that is thereby invalid. Invalid bytes are dropped.
func (s *Screen) decode(b byte) bool {
	if s.had > 0 {
		if b&0xc0 != 0x80 {
			s.had = 0
			return false
		}
	} else {
		switch {
		case b&0xe0 == 0xc0:
			s.needs = 2
		case b&0xf0 == 0xe0:
			s.needs = 3
		case b&0xf8 == 0xf0:
			s.needs = 4
		default:
			return true
		}
	}
	s.partial[s.had] = b
	s.had++
	if s.had < s.needs {
		return true
	}
	r, n := utf8.DecodeRune(s.partial[:s.had])
	whole := n == s.had && r != '\ufeff' // a byte order mark shows nothing
	s.had = 0
	if whole {
		s.next(r)
	}
	return true
}

// next takes a character or control.
func (s *Screen) next(r rune) {
	switch {
	case r == 0x1b:
		s.finish()
		s.begin(escape, r)
	case r == 0x18 || r == 0x1a: // CAN and SUB: the sequence has no effect
		s.toGround()
		s.joinWidth = 0
	case r >= 0x80 && r < 0xa0:
		s.nextC1(r)
	case s.state == ground:
		switch {
		case r < ' ':
			s.execute(r)
		case r != 0x7f:
			s.put(r)
		}
	case s.state == escape:
		s.nextOfEscape(r)
	case s.state == control:
		s.nextOfControl(r)
	case s.state == command && r < ' ':
		if r == 7 {
			s.finish()
		}
	case s.state == text && r < ' ':
	default:
		s.keep(r)
	}
}

// nextC1 takes a control that stands for a sequence of two bytes, which is at work in all states.
func (s *Screen) nextC1(r rune) {
	switch r {
	case 0x9c: // ST
		s.finish()
	case 0x9b:
		s.begin(control, r)
	case 0x9d:
		s.begin(command, r)
	case 0x90:
		s.begin(device, r)
	case 0x98, 0x9e, 0x9f:
		s.begin(text, r)
	default:
		s.toGround()
		s.execute(r)
	}
}

func (s *Screen) nextOfEscape(r rune) {
	switch {
	case r < ' ':
		s.execute(r)
	case r == 0x7f:
	case r > 0x7f:
		s.toGround()
	case r < '0':
		s.keep(r)
	case len(s.raw) > 1: // behind intermediate bytes
		s.dispatch(r, s.escapeWith)
	case r == '[':
		s.become(control, r)
	case r == ']':
		s.become(command, r)
	case r == 'P':
		s.become(device, r)
	case r == 'X' || r == '^' || r == '_':
		s.become(text, r)
	default:
		s.dispatch(r, s.escapeAlone)
	}
}

func (s *Screen) nextOfControl(r rune) {
	switch {
	case r < ' ':
		s.execute(r)
	case r == 0x7f:
	case r > 0x7f:
		s.toGround()
	case r < '@':
		s.keep(r)
	case !wellFormed(s.body()):
		s.toGround()
	default:
		s.dispatch(r, s.controlSequence)
	}
}

// wellFormed says whether parameters, with the prefix they may have, come before intermediate bytes.
func wellFormed(body []byte) bool {
	last := byte('9')
	for i, c := range body {
		if c >= '<' && i > 0 || c >= '0' && last < '0' {
			return false
		}
		last = c
	}
	return true
}

func (s *Screen) begin(st state, r rune) {
	s.state, s.tooLong = st, false
	s.raw = utf8.AppendRune(s.raw[:0], r)
}

func (s *Screen) become(st state, r rune) {
	s.state = st
	s.raw = append(s.raw, byte(r))
}

func (s *Screen) keep(r rune) {
	if s.tooLong {
		return
	}
	if len(s.raw)+utf8.RuneLen(r) > maxSequence {
		s.tooLong = true
		s.raw = append(s.raw[:0], overlong[s.state]...)
		return
	}
	s.raw = utf8.AppendRune(s.raw, r)
}

func (s *Screen) toGround() { s.state, s.raw, s.tooLong = ground, s.raw[:0], false }

// dispatch carries out a sequence, of which do is given what stands behind its introducer.
func (s *Screen) dispatch(final rune, do func(body []byte, final byte)) {
	do(s.body(), byte(final))
	s.toGround()
	s.joinWidth = 0
}

// body is what has come of a sequence behind its introducer.
func (s *Screen) body() []byte {
	switch {
	case s.raw[0] != 0x1b: // a control of two bytes in UTF-8
		return s.raw[2:]
	case s.state == escape:
		return s.raw[1:]
	default:
		return s.raw[2:]
	}
}

// finish ends a string.
func (s *Screen) finish() {
	if s.state == command || s.state == device {
		if s.state == command {
			s.operate(string(s.body()))
		}
		s.joinWidth = 0
	}
	s.toGround()
}
