package screen

// Resize gives the screen another size.
func (s *Screen) Resize(cols, rows int) {
	cols, rows = max(cols, 1), max(rows, 1)
	if cols == s.cols && rows == s.rows {
		return
	}
	for _, p := range []*page{&s.normal, &s.alternate} {
		if len(p.rows) > 0 {
			s.resizePage(p, cols, rows)
		}
	}
	s.cols, s.rows = cols, rows
}

func (s *Screen) resizePage(p *page, cols, rows int) {
	// Lines below the cursor leave first, then those at the top.
	gone := 0
	if excess := len(p.rows) - rows; excess > 0 {
		gone = max(0, excess-(len(p.rows)-1-s.cur.y))
		p.rows = p.rows[gone : gone+rows]
	}
	kept := make([]row, rows)
	copy(kept, p.rows)
	p.rows = kept
	p.saved.x, p.saved.y = min(p.saved.x, cols-1), min(max(p.saved.y-gone, 0), rows-1)
	if p == s.shown {
		s.cur.x, s.cur.y = min(s.cur.x, cols-1), min(s.cur.y, rows-1)
	}
	p.top, p.bottom = 0, rows-1
	p.resizeTabs(cols)
	for y := range p.rows {
		p.rows[y].resize(s.cols, cols)
	}
}

// resizeTabs keeps the stops that there is room for, and sets the usual ones behind the last of them.
func (p *page) resizeTabs(cols int) {
	if cols < len(p.tabs) && p.tabs[cols] {
		p.tabs = p.tabs[:cols]
		return
	}
	tabs := make([]bool, cols)
	copy(tabs, p.tabs)
	p.tabs = tabs
	x := cols - 1
	for x > 0 && !tabs[x] {
		x--
	}
	for ; x < cols; x += tabWidth {
		tabs[x] = true
	}
}

// resize changes the number of columns. New ones are blank.
func (r *row) resize(from, cols int) {
	if cols > from {
		if r.tail != 0 {
			r.extend(from, cols)
			r.tail = 0
		}
		return
	}
	if len(r.cells) > cols {
		r.cells = append([]cell(nil), r.cells[:cols]...)
	}
	if len(r.cells) == cols {
		r.part(cols, pen{})
	}
}
