package screen

import "unicode/utf8"

// putASCII writes characters as far as there is nothing to mind, and returns how many.
func (s *Screen) putASCII(p []byte) int {
	if s.insert || s.cur.charsets[s.cur.gl] != 'B' || s.joinWidth != 0 && s.joinKind != breakOther {
		return 0
	}
	room := s.cols - s.cur.x
	if room == 0 {
		if !s.has(autowrap) {
			return 0
		}
		s.wrap(0)
		room = s.cols
	}
	n := 0
	for p = p[:min(len(p), room)]; n < len(p) && p[n]-' ' < 0x7f-' '; {
		n++
	}
	if n == 0 {
		return 0
	}
	r := s.line()
	x := s.cur.x
	r.part(x, s.cur.pen)
	r.extend(x+n, s.cols)
	c := cell{content: uint32(s.cur.link) << linkShift, pen: s.cur.pen}
	cells := r.cells[x : x+n]
	for i, b := range p[:n] {
		c.content = c.content&^charBits | uint32(b)
		cells[i] = c
	}
	s.cur.x = x + n
	s.heal()
	s.joinWidth, s.joinKind = 1, breakOther
	return n
}

// heal blanks the second half of a wide character whose first half was written over.
func (s *Screen) heal() {
	if r := s.line(); s.cur.x < len(r.cells) && r.cells[s.cur.x].isHalf() {
		r.cells[s.cur.x] = cell{pen: s.cur.pen}
	}
}

// put writes a character.
func (s *Screen) put(r rune) {
	if s.joinWidth == 0 {
		s.line().part(s.cur.x, s.cur.pen)
	}
	s.putOne(s.mapped(r))
	s.heal()
}

func (s *Screen) putOne(r rune) {
	kind, width := lookUp(r)
	joins := s.joinWidth > 0 && joined(s.joinKind, kind)
	old := 0
	if joins {
		old = s.joinWidth
		if s.joinKind == breakRegional && kind == breakRegional {
			kind, width = breakOther, 2
		}
		width = max(width, old)
	}
	s.joinWidth, s.joinKind = width, kind
	if s.cur.x+width-old > s.cols {
		if s.has(autowrap) && s.cols >= width {
			s.wrap(old)
		} else {
			s.cur.x = s.cols - 1
			s.line().part(s.cur.x, s.cur.pen)
			if width == 2 {
				s.joinWidth = 0
				return
			}
		}
	}
	line := s.line()
	if joins && s.cur.x > 0 {
		s.combine(line, r, width, old)
		return
	}
	if s.insert {
		line.insert(s.cur.x, width-old, s.cols, s.cur.pen)
	}
	line.extend(s.cur.x+width, s.cols)
	c := cell{content: uint32(s.cur.link)<<linkShift | uint32(r), pen: s.cur.pen}
	if width == 2 {
		line.cells[s.cur.x+1] = cell{content: half, pen: s.cur.pen}
		c.content |= wide
	}
	line.cells[s.cur.x] = c
	s.cur.x += width
}

// wrap begins a new line, and takes the character along that is before the cursor if it has old columns.
func (s *Screen) wrap(old int) {
	above := s.line()
	from := max(s.cur.x-old, 0)
	var taken [2]cell
	for i := range old {
		taken[i] = above.at(from + i)
	}
	if from < s.cols { // a wide character did not fit
		above.extend(s.cols, s.cols)
		for x := from; x < s.cols; x++ {
			above.cells[x] = cell{pen: s.cur.pen}
		}
	}
	s.cur.x = old
	s.down()
	line := s.line()
	line.wrapped = true
	if old > 0 {
		line.extend(old, s.cols)
		copy(line.cells, taken[:old])
	}
}

// combine adds a character to the one before the cursor, which may become wider thereby.
func (s *Screen) combine(line *row, r rune, width, old int) {
	line.extend(s.cur.x, s.cols)
	x := s.cur.x - 1
	if x > 0 && line.cells[x].isHalf() {
		x--
	}
	c := &line.cells[x]
	if c.blank() {
		c.content |= uint32(r)
	} else if text := s.char(*c) + string(r); len(text) <= maxCluster {
		if n := s.add(&s.clusters, text, s.usedClusters); n > 0 {
			c.content = c.content&^contentBits | clustered | n
		}
	}
	if width > old {
		line.extend(s.cur.x+1, s.cols)
		line.cells[x].content = line.cells[x].content&^widthBits | wide
		line.cells[s.cur.x] = cell{content: half, pen: s.cur.pen}
		s.cur.x++
	}
}

// repeat writes the character before the cursor n times (REP), up to as many as make a line: more is for no good.
func (s *Screen) repeat(n int) {
	if s.joinWidth == 0 || s.cur.x < s.joinWidth {
		return
	}
	c := s.line().at(s.cur.x - s.joinWidth)
	if c.blank() {
		return
	}
	char := s.char(c)
	for range min(n, s.cols/utf8.RuneCountInString(char)) {
		for _, r := range char {
			s.put(r)
		}
	}
}

// mapped is a character in the character set that is in use.
func (s *Screen) mapped(r rune) rune {
	if r < 0x7f {
		switch s.cur.charsets[s.cur.gl] {
		case '0':
			if r >= '`' {
				return lineDrawing[r-'`']
			}
		case 'A':
			if r == '#' {
				return '£'
			}
		}
	}
	return r
}

// unmapped is what gives a character in the character set that is in use.
func (s *Screen) unmapped(char string) string {
	b := make([]byte, 0, len(char))
	for _, r := range char {
		switch s.cur.charsets[s.cur.gl] {
		case '0':
			for i, drawn := range lineDrawing {
				if r == drawn {
					r = rune(i) + '`'
				}
			}
		case 'A':
			if r == '£' {
				r = '#'
			}
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

var lineDrawing = []rune("◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")
