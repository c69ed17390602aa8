package screen

// mode is a DEC private mode, or the application keypad, which has a sequence of its own.
type mode uint8

const (
	cursorKeys mode = iota
	reverseVideo
	autowrap
	visible
	reverseWrap
	keypad
	focus
	alternateScroll
	urxvtMouse
	utf8Mouse
	paste
	synchronized
	modeCount
)

var modeNumbers = [modeCount]int{
	cursorKeys: 1, reverseVideo: 5, autowrap: 7, visible: 25, reverseWrap: 45, keypad: 66, focus: 1004,
	utf8Mouse: 1005, alternateScroll: 1007, urxvtMouse: 1015, paste: 2004, synchronized: 2026,
}

// modes are what a terminal does otherwise than a new one.
type modes struct {
	on       uint32 // by mode
	insert   bool   // IRM
	newline  bool   // LNM
	mouse    int    // the mode of what is reported: 0, 9, 1000, 1002 or 1003
	encoding int    // the mode of how that is encoded: 0, 1006 or 1016
	style    int    // of the cursor (DECSCUSR)
	blinking byte   // what mode 12 was set to: 'h', 'l' or 0 if it was not
}

func newModes() modes { return modes{on: 1<<autowrap | 1<<visible} }

func (m *modes) has(which mode) bool { return m.on>>which&1 != 0 }

func (m *modes) set(which mode, on bool) {
	m.on &^= 1 << which
	if on {
		m.on |= 1 << which
	}
}

// setPrivate sets or resets a DEC private mode.
func (s *Screen) setPrivate(n int, on bool) {
	switch n {
	case 2:
		if on {
			s.cur.charsets = newCursor().charsets
		}
	case 6:
		s.cur.origin = on
		s.moveTo(0, 0)
	case 9, 1000, 1002, 1003:
		if s.mouse = n; !on {
			s.mouse = 0
		}
	case 1006, 1016:
		if s.encoding = n; !on {
			s.encoding = 0
		}
	case 12:
		if s.blinking = 'h'; !on {
			s.blinking = 'l'
		}
	case 1048:
		if on {
			s.save()
		} else {
			s.restore()
		}
	case 47, 1047, 1049:
		s.setAlternate(on, n == 1049)
	default:
		for which, number := range modeNumbers {
			if n == number {
				s.set(mode(which), on) //nolint:gosec // less than modeCount
			}
		}
	}
}

// setAlternate shows the alternate screen, of which only the saved cursor is not new, or the normal one.
func (s *Screen) setAlternate(on, saves bool) {
	if on {
		if saves {
			s.save()
		}
		if s.shown == &s.normal {
			saved := s.alternate.saved
			s.alternate = newPage(s.cols, s.rows)
			s.alternate.saved = saved
			s.shown = &s.alternate
			for y := range s.shown.rows {
				s.shown.rows[y].clear(s.cur.pen.bg)
			}
		}
		return
	}
	s.shown, s.alternate = &s.normal, page{saved: s.alternate.saved}
	if s.cur.origin {
		s.cur.y = min(max(s.cur.y, s.shown.top), s.shown.bottom)
	}
	if saves {
		s.restore()
	}
}

// softReset is DECSTR.
func (s *Screen) softReset() {
	mouse, encoding := s.mouse, s.encoding
	x, y := s.cur.x, s.cur.y
	other := s.on & (1<<reverseVideo | 1<<alternateScroll | 1<<urxvtMouse | 1<<utf8Mouse)
	newline, blinking := s.newline, s.blinking
	s.modes = newModes()
	s.on |= other
	s.mouse, s.encoding, s.newline, s.blinking = mouse, encoding, newline, blinking
	s.shown.top, s.shown.bottom = 0, s.rows-1
	s.shown.saved = newCursor()
	link := s.cur.link
	s.cur = newCursor()
	s.cur.x, s.cur.y, s.cur.link = x, y, link
}
