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
	saved := &s.alternate.saved
	saved.x, saved.y = min(saved.x, cols-1), min(saved.y, rows-1)
	s.cols, s.rows = cols, rows
	if s.cur.x < s.joinWidth {
		s.joinWidth = 0
	}
}

// resizePage lays a page out anew. Lines that were wrapped are wrapped for the new width, but for the one with the
// cursor, which programs draw again themselves. If there are too many lines then, those below the cursor leave
// first, and then those at the top.
func (s *Screen) resizePage(p *page, cols, rows int) {
	y := &p.saved.y // of the normal page behind the alternate one, because no other is known
	if p == s.shown {
		y = &s.cur.y
	}
	lines, at, saved := p.rows, *y, p.saved.y
	if p == &s.normal && cols != s.cols {
		lines, at, saved = s.reflow(lines, cols, rows, at, saved)
	}
	top := max(0, min(len(lines)-rows, at+1-rows))
	lines = lines[top:min(top+rows, len(lines))]
	p.rows = make([]row, rows)
	copy(p.rows, lines)
	for i := range p.rows {
		p.rows[i].resize(s.cols, cols)
	}
	p.saved.x, p.saved.y = min(p.saved.x, cols-1), min(max(saved-top, 0), rows-1)
	*y = min(max(at-top, 0), rows-1)
	if p == s.shown {
		s.cur.x = min(s.cur.x, cols-1)
	}
	p.top, p.bottom = 0, rows-1
	p.resizeTabs(cols)
}

// reflow wraps lines for another width. It returns them, and where two of them are now. Those that a page of so
// many rows has no room for are left out: of those before the cursor the first, of those behind it the last.
func (s *Screen) reflow(old []row, cols, rows, at, saved int) (lines []row, newAt, newSaved int) {
	for from := 0; from < len(old); {
		to := from + 1
		for to < len(old) && old[to].wrapped {
			to++
		}
		group := old[from:to]
		if whole := to-from == 1 && group[0].used(s.cols) <= cols; !whole && (at < from || at >= to) {
			group = s.wrapAnew(group, cols, rows, to <= at)
		}
		if at >= from && at < to {
			newAt = len(lines) + min(at-from, len(group)-1)
		}
		if saved >= from && saved < to {
			newSaved = len(lines) + min(saved-from, len(group)-1)
		}
		lines = append(lines, group...)
		if extra := len(lines) - rows; extra > 0 && to <= at {
			lines = append(lines[:0], lines[extra:]...)
			newSaved -= extra
		}
		if from = to; from > at && len(lines)-newAt >= rows {
			break
		}
	}
	return lines, newAt, newSaved
}

// wrapAnew wraps one line, which has been wrapped to several rows or is too long for one now. It returns at most so
// many rows of it: the last ones or the first.
func (s *Screen) wrapAnew(group []row, cols, most int, last bool) []row {
	rest := make([]cell, 0, len(group)*s.cols)
	for i := range group {
		r := &group[i]
		n := s.cols
		if i == len(group)-1 {
			n = r.used(s.cols)
		} else if group[i+1].at(0).isWide() && r.at(n-1).blank() {
			n-- // it did not fit there
		}
		for x := range n {
			rest = append(rest, r.at(x))
		}
	}
	count := 1
	for left := rest; len(left) > cols; left = left[rowEnd(left, cols):] {
		count++
	}
	first := 0
	if last {
		first = max(0, count-most)
	}
	lines := make([]row, 0, min(count-first, most))
	for i := range first + cap(lines) {
		n := rowEnd(rest, cols)
		if i >= first {
			lines = append(lines, row{cells: exactly(rest[:n]), wrapped: i > 0 || group[0].wrapped})
		}
		rest = rest[n:]
	}
	return lines
}

// rowEnd is how many of the cells fit into a row.
func rowEnd(cells []cell, cols int) int {
	switch {
	case len(cells) <= cols:
		return len(cells)
	case cols > 1 && cells[cols-1].isWide():
		return cols - 1
	}
	return cols
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
		if r.tail != (cell{}) {
			r.extend(from, cols)
			r.tail = cell{}
		}
		return
	}
	if len(r.cells) > cols {
		r.cells = exactly(r.cells[:cols])
	}
	if len(r.cells) == cols {
		r.part(cols, pen{})
	}
}

// exactly copies cells to a place without room for more, which would count.
func exactly(cells []cell) []cell {
	to := make([]cell, len(cells))
	copy(to, cells)
	return to
}
