package screen

import "slices"

// execute carries out a control.
func (s *Screen) execute(r rune) {
	s.joinWidth = 0
	switch r {
	case '\n', '\v', '\f':
		s.lineFeed()
	case '\r':
		s.cur.x = 0
	case '\b':
		s.backspace()
	case '\t':
		s.tab(1)
	case 0x0e: // SO
		s.cur.gl = 1
	case 0x0f: // SI
		s.cur.gl = 0
	case 0x84:
		s.index()
	case 0x85:
		s.cur.x = 0
		s.index()
	case 0x88:
		s.setTab(true)
	}
}

// escapeAlone carries out a sequence of ESC and one byte.
func (s *Screen) escapeAlone(_ []byte, final byte) {
	switch final {
	case '7':
		s.save()
	case '8':
		s.restore()
	case 'D':
		s.index()
	case 'E':
		s.cur.x = 0
		s.index()
	case 'H':
		s.setTab(true)
	case 'M':
		s.reverseIndex()
	case '=':
		s.set(keypad, true)
	case '>':
		s.set(keypad, false)
	case 'c':
		s.reset()
	case 'n', '}':
		s.cur.gl = 2
	case 'o', '|':
		s.cur.gl = 3
	case '~':
		s.cur.gl = 1
	}
}

// escapeWith carries out a sequence with intermediate bytes.
func (s *Screen) escapeWith(body []byte, final byte) {
	if len(body) != 1 {
		return
	}
	switch body[0] {
	case '(', ')', '*', '+':
		s.cur.designate(int(body[0]-'('), final)
	case '-', '.':
		s.cur.designate(int(body[0]-'-')+1, final)
	case '%':
		if final == '@' || final == 'G' {
			s.cur.gl, s.cur.charsets[0] = 0, 'B'
		}
	case '#':
		if final == '8' {
			s.align()
		}
	}
}

// designate makes a character set one of G0 to G3. Only line drawing and the British pound sign show
// on the screen as it is drawn; what a terminal makes of other sets, it makes of what comes.
func (c *cursor) designate(g int, set byte) {
	if slices.Contains([]byte("0AB4C5RQKYE6ZH7="), set) {
		c.charsets[g] = set
	}
}

// align fills the screen with E (DECALN).
func (s *Screen) align() {
	for y := range s.shown.rows {
		r := &s.shown.rows[y]
		r.clear(0)
		r.tail = cell{content: 'E', pen: s.cur.pen}
	}
	s.moveTo(0, 0)
}

func (s *Screen) lineFeed() {
	if s.newline {
		s.cur.x = 0
	}
	y := s.cur.y
	s.down()
	if s.cur.y != y {
		s.line().wrapped = false
	}
	s.cur.x = min(s.cur.x, s.cols-1)
}

// down moves the cursor to the next line, and scrolls at the end of the region.
func (s *Screen) down() {
	switch {
	case s.cur.y == s.shown.bottom:
		s.scroll(s.shown.top, 1, s.cur.pen)
	case s.cur.y < s.rows-1:
		s.cur.y++
	}
}

func (s *Screen) index() {
	s.cur.x = min(s.cur.x, s.cols-1)
	s.down()
}

func (s *Screen) reverseIndex() {
	s.cur.x = min(s.cur.x, s.cols-1)
	switch {
	case s.cur.y == s.shown.top:
		s.scroll(s.shown.top, -1, s.cur.pen)
	case s.cur.y > 0:
		s.cur.y--
	}
}

// scroll moves the lines from one to the end of the region up by n, or down if n is negative.
func (s *Screen) scroll(from, n int, p pen) {
	lines := s.shown.rows[from : s.shown.bottom+1]
	n = min(max(n, -len(lines)), len(lines))
	free := lines[len(lines)-max(n, 0):]
	switch {
	case n == 1:
		first := lines[0]
		copy(lines, lines[1:])
		lines[len(lines)-1] = first
	case n > 0:
		rotate(lines, n)
	default:
		rotate(lines, len(lines)+n)
		free = lines[:-n]
	}
	for i := range free {
		free[i].clear(p.bg)
	}
}

// rotate moves the first n lines behind the others.
func rotate(lines []row, n int) {
	slices.Reverse(lines[:n])
	slices.Reverse(lines[n:])
	slices.Reverse(lines)
}

func (s *Screen) backspace() {
	if !s.has(reverseWrap) {
		s.cur.x = max(min(s.cur.x, s.cols-1)-1, 0)
		return
	}
	if s.cur.x > 0 {
		s.cur.x--
		return
	}
	if r := s.line(); s.cur.y > s.shown.top && s.cur.y <= s.shown.bottom && r.wrapped {
		r.wrapped = false
		s.cur.y--
		s.cur.x = s.cols - 1
		if s.line().at(s.cur.x).blank() && s.cols > 1 {
			s.cur.x--
		}
	}
}

// moveTo puts the cursor to a place, counted from 0; with origin mode from the region's.
func (s *Screen) moveTo(x, y int) {
	low, high := 0, s.rows-1
	if s.cur.origin {
		low, high = s.shown.top, s.shown.bottom
		y += low
	}
	s.cur.x, s.cur.y = min(max(x, 0), s.cols-1), min(max(y, low), high)
}

// moveBy moves the cursor by columns, and by lines, which a margin of the region stops if stops is set.
func (s *Screen) moveBy(dx, dy int, stops bool) {
	low, high := 0, s.rows-1
	if s.cur.origin || stops && dy < 0 && s.cur.y >= s.shown.top {
		low = s.shown.top
	}
	if s.cur.origin || stops && dy > 0 && s.cur.y <= s.shown.bottom {
		high = s.shown.bottom
	}
	s.cur.x = min(max(min(s.cur.x, s.cols-1)+dx, 0), s.cols-1)
	s.cur.y = min(max(s.cur.y+dy, low), high)
}

func (s *Screen) setTab(on bool) {
	if s.cur.x < s.cols {
		s.shown.tabs[s.cur.x] = on
	}
}

// tab moves to the n-th next stop, or back if n is negative.
func (s *Screen) tab(n int) {
	if s.cur.x >= s.cols {
		return
	}
	for ; n > 0 && s.cur.x < s.cols-1; n-- {
		for s.cur.x++; s.cur.x < s.cols-1 && !s.shown.tabs[s.cur.x]; {
			s.cur.x++
		}
	}
	for ; n < 0 && s.cur.x > 0; n++ {
		for s.cur.x--; s.cur.x > 0 && !s.shown.tabs[s.cur.x]; {
			s.cur.x--
		}
	}
}

func (s *Screen) save() {
	s.shown.saved = s.cur
	s.shown.saved.x, s.shown.saved.link = min(s.cur.x, s.cols-1), 0
}

func (s *Screen) restore() {
	link := s.cur.link
	s.cur = s.shown.saved
	s.cur.link = link
	if s.cur.origin {
		s.cur.y = min(max(s.cur.y, s.shown.top), s.shown.bottom)
	}
}
