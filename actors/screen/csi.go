package screen

// maxParams bounds the parameters of a sequence, and apart from them their subparameters. Those beyond are left out.
const maxParams = 32

// params are the parameters of a control sequence. One that is left out is 0, a subparameter -1.
type params struct {
	values [maxParams]int
	count  int
	subs   [maxParams]int
	ends   [maxParams]int // of each parameter's subparameters in subs
	nsubs  int
}

// parse reads parameters. It returns the bytes behind them.
func (p *params) parse(b []byte) []byte {
	p.count = 1
	number := &p.values[0] // which is being read; nil if there is no place for it
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			if number != nil {
				*number = min(max(*number, 0)*10+int(c-'0'), 1<<31-1)
			}
		case c == ';':
			if number = nil; p.count < maxParams {
				p.ends[p.count-1] = p.nsubs
				number = &p.values[p.count]
				p.count++
			}
		case c == ':':
			if number = nil; p.nsubs < maxParams {
				number = &p.subs[p.nsubs]
				*number = -1
				p.nsubs++
			}
		default:
			p.ends[p.count-1] = p.nsubs
			return b[i:]
		}
	}
	p.ends[p.count-1] = p.nsubs
	return nil
}

// get returns a parameter for which 0 and nothing are the same as 1.
func (p *params) get(i int) int { return max(p.values[i], 1) }

func (p *params) all() []int { return p.values[:p.count] }

func (p *params) sub(i int) []int {
	from := 0
	if i > 0 {
		from = p.ends[i-1]
	}
	return p.subs[from:p.ends[i]]
}

// controlSequence carries out a control sequence.
func (s *Screen) controlSequence(body []byte, final byte) {
	var prefix byte
	if len(body) > 0 && body[0] >= '<' {
		prefix, body = body[0], body[1:]
	}
	var p params
	body = p.parse(body)
	switch {
	case prefix == 0 && len(body) == 0:
		s.plainSequence(&p, final)
	case prefix == '?' && len(body) == 0:
		s.privateSequence(&p, final)
	case prefix == 0 && len(body) == 1:
		s.intermediateSequence(&p, body[0], final)
	}
}

func (s *Screen) privateSequence(p *params, final byte) {
	switch final {
	case 'h', 'l':
		for _, n := range p.all() {
			s.setPrivate(n, final == 'h')
		}
	case 'J', 'K': // these spare what is protected, which nothing is here
		s.plainSequence(p, final)
	}
}

func (s *Screen) intermediateSequence(p *params, intermediate, final byte) {
	switch {
	case intermediate == '!' && final == 'p':
		s.softReset()
	case intermediate == ' ' && final == 'q':
		if n := p.values[0]; n <= 6 {
			s.style = n
		}
	}
}

// plainSequence carries out a sequence that has neither a prefix nor intermediate bytes.
func (s *Screen) plainSequence(p *params, final byte) {
	if s.moves(p, final) || s.edits(p, final) {
		return
	}
	switch final {
	case 'g':
		if n := p.values[0]; n == 0 {
			s.setTab(false)
		} else if n == 3 {
			clear(s.shown.tabs)
		}
	case 'h', 'l':
		for _, n := range p.all() {
			if n == 4 {
				s.insert = final == 'h'
			} else if n == 20 {
				s.newline = final == 'h'
			}
		}
	case 'm':
		s.cur.pen.apply(p)
	case 'r':
		s.setRegion(p)
	case 's':
		s.save()
	case 'u':
		s.restore()
	}
}

// moves carries out a sequence that moves the cursor.
func (s *Screen) moves(p *params, final byte) bool {
	n := p.get(0)
	switch final {
	case 'A':
		s.moveBy(0, -n, true)
	case 'B':
		s.moveBy(0, n, true)
	case 'C', 'a':
		s.moveBy(n, 0, false)
	case 'D':
		s.moveBy(-n, 0, false)
	case 'E':
		s.moveBy(0, n, true)
		s.cur.x = 0
	case 'F':
		s.moveBy(0, -n, true)
		s.cur.x = 0
	case 'G', '`':
		s.moveBy(n-1-min(s.cur.x, s.cols-1), 0, false)
	case 'H', 'f':
		s.moveTo(p.get(1)-1, n-1)
	case 'd':
		s.moveTo(s.cur.x, n-1)
	case 'e':
		s.moveBy(0, n, false)
	case 'I':
		s.tab(n)
	case 'Z':
		s.tab(-n)
	default:
		return false
	}
	return true
}

// edits carries out a sequence that changes what is on the screen.
func (s *Screen) edits(p *params, final byte) bool {
	n := p.get(0)
	x := min(s.cur.x, s.cols-1)
	switch final {
	case 'J':
		s.eraseDisplay(p.values[0])
	case 'K':
		s.eraseLine(p.values[0])
	case 'L':
		s.changeLines(-n)
	case 'M':
		s.changeLines(n)
	case '@':
		s.cur.x = x
		s.line().insert(x, n, s.cols, s.cur.pen.erased())
	case 'P':
		s.cur.x = x
		s.line().remove(x, n, s.cols, s.cur.pen)
	case 'X':
		s.cur.x = x
		s.line().erase(x, x+min(n, s.cols-x), s.cols, s.cur.pen)
	case 'S':
		s.scroll(s.shown.top, n, s.cur.pen)
	case 'T':
		if p.count == 1 { // with more it is about highlighting by the mouse
			s.scroll(s.shown.top, -n, pen{})
		}
	case 'b':
		s.repeat(n)
	default:
		return false
	}
	return true
}

// changeLines deletes n lines at the cursor, or inserts them if n is negative.
func (s *Screen) changeLines(n int) {
	s.cur.x = min(s.cur.x, s.cols-1)
	if s.cur.y < s.shown.top || s.cur.y > s.shown.bottom {
		return
	}
	s.scroll(s.cur.y, n, s.cur.pen)
	s.cur.x = 0
}

func (s *Screen) setRegion(p *params) {
	top, bottom := p.get(0), p.values[1]
	if bottom == 0 || bottom > s.rows {
		bottom = s.rows
	}
	if bottom > top {
		s.shown.top, s.shown.bottom = top-1, bottom-1
		s.moveTo(0, 0)
	}
}

func (s *Screen) eraseDisplay(how int) {
	rows, p := s.shown.rows, s.cur.pen
	from, to := 0, s.rows // of the lines that are blanked as a whole
	switch how {
	case 0:
		s.eraseLine(0)
		from = s.cur.y + 1
	case 1:
		s.line().erase(0, min(s.cur.x+1, s.cols), s.cols, p)
		s.line().wrapped = false
		if s.cur.x+1 >= s.cols && s.cur.y+1 < s.rows {
			rows[s.cur.y+1].wrapped = false
		}
		to = s.cur.y
	case 2:
	default:
		return // of what has scrolled away nothing is here
	}
	for y := from; y < to; y++ {
		rows[y].clear(p.bg)
	}
}

func (s *Screen) eraseLine(how int) {
	r, p := s.line(), s.cur.pen
	switch how {
	case 0:
		r.erase(s.cur.x, s.cols, s.cols, p)
		r.wrapped = r.wrapped && s.cur.x > 0
	case 1:
		r.erase(0, min(s.cur.x+1, s.cols), s.cols, p)
	case 2:
		r.clear(p.bg)
	}
}
