package screen

// color is a color and, in the foreground and background of a cell, the attributes in the bits above it.
type color = uint32

const (
	palette16  color = 1 << 24 // 0 to 15, as SGR 30 to 37 and 90 to 97 select them
	palette256 color = 2 << 24
	direct     color = 3 << 24 // 8 bits each of red, green and blue
	colorBits  color = 1<<26 - 1
)

// Attributes in pen.fg.
const (
	inverse = 1 << (26 + iota)
	bold
	underlined // how is in pen.line
	blink
	hidden
	struck
)

// Attributes in pen.bg.
const (
	italic = 1 << (26 + iota)
	faint
	overlined
)

// The style of an underline in pen.line, above its color: 0 is a single line.
const lineShift = 26

// pen is how a character is drawn.
type pen struct {
	fg, bg, line uint32
}

// erased is how p leaves a cell that it erases: with its background alone.
func (p pen) erased() pen { return pen{bg: p.bg & colorBits} }

// shows says whether a blank that p draws looks different from one that it erases.
func (p pen) shows() bool {
	return p.fg&(inverse|underlined|struck) != 0 || p.bg&overlined != 0
}

// cell is one place of a row. The zero cell is blank, as is every one that was erased.
type cell struct {
	// A character (21 bits), or with clustered set the index of a cluster; then its width; then a link.
	content uint32
	pen
}

const (
	charBits    = 1<<21 - 1
	clustered   = 1 << 21
	contentBits = clustered | charBits
	wide        = 1 << 22 // the first half of a wide character
	half        = 2 << 22 // the second one
	widthBits   = 3 << 22
	linkShift   = 24
)

func (c cell) blank() bool  { return c.content&(contentBits|widthBits) == 0 }
func (c cell) isWide() bool { return c.content&widthBits == wide }
func (c cell) isHalf() bool { return c.content&widthBits == half }

// row is a line. The cells that it does not have are as tail, which is blank or a letter.
type row struct {
	cells   []cell
	tail    cell
	wrapped bool // it continues the row above
}

func (r *row) at(x int) cell {
	if x < len(r.cells) {
		return r.cells[x]
	}
	return r.tail
}

// extend gives the row at least n cells of its own, of the cols that it may have.
func (r *row) extend(n, cols int) {
	if n <= len(r.cells) {
		return
	}
	if n > cap(r.cells) {
		grown := make([]cell, len(r.cells), min(max(n, 2*cap(r.cells), 16), max(cols, n)))
		copy(grown, r.cells)
		r.cells = grown
	}
	from := len(r.cells)
	r.cells = r.cells[:n]
	for i := from; i < n; i++ {
		r.cells[i] = r.tail
	}
}

// clear blanks the whole row and keeps its memory.
func (r *row) clear(bg color) {
	r.cells, r.tail, r.wrapped = r.cells[:0], cell{pen: pen{bg: bg & colorBits}}, false
}

// part blanks what a change from column x on would leave of a wide character: its first half.
func (r *row) part(x int, p pen) {
	if x > 0 && x <= len(r.cells) && r.cells[x-1].isWide() {
		r.cells[x-1] = cell{pen: p}
	}
}

// erase blanks the columns from one to before another.
func (r *row) erase(from, to, cols int, p pen) {
	blank := cell{pen: p.erased()}
	r.part(from, blank.pen)
	if to < cols && to > 0 && r.at(to-1).isWide() {
		r.extend(to+1, cols)
		r.cells[to] = blank
	}
	if from >= len(r.cells) && blank == r.tail {
		return
	}
	if to >= cols {
		r.extend(from, cols)
		r.cells, r.tail = r.cells[:from], blank
		return
	}
	r.extend(to, cols)
	for i := from; i < to; i++ {
		r.cells[i] = blank
	}
}

// insert moves the cells from x on to the right by n columns and blanks those.
func (r *row) insert(x, n, cols int, p pen) {
	r.part(x, p)
	n = min(n, cols-x)
	r.extend(cols, cols)
	copy(r.cells[x+n:], r.cells[x:cols-n])
	if x+n < cols && r.cells[x+n].isHalf() {
		r.cells[x+n] = cell{pen: r.cells[x+n].pen}
	}
	for i := x; i < x+n; i++ {
		r.cells[i] = cell{pen: p}
	}
	if r.cells[cols-1].isWide() {
		r.cells[cols-1] = cell{pen: p}
	}
	r.trim()
}

// remove moves the cells behind n columns at x to the left and blanks those that become free.
func (r *row) remove(x, n, cols int, p pen) {
	p = p.erased()
	n = min(n, cols-x)
	r.extend(cols, cols)
	copy(r.cells[x:], r.cells[x+n:cols])
	for i := cols - n; i < cols; i++ {
		r.cells[i] = cell{pen: p}
	}
	r.part(x, p)
	if r.cells[x].isHalf() {
		r.cells[x] = cell{pen: p}
	}
	r.trim()
}

// trim gives up the cells at the end that the row need not have.
func (r *row) trim() {
	n := len(r.cells)
	for n > 0 && r.cells[n-1] == r.tail {
		n--
	}
	r.cells = r.cells[:n]
}

// used is the number of columns up to the last character.
func (r *row) used(cols int) int {
	if !r.tail.blank() && len(r.cells) < cols {
		return cols
	}
	for x := len(r.cells) - 1; x >= 0; x-- {
		if c := r.cells[x]; !c.blank() {
			if c.isWide() {
				return x + 2
			}
			return x + 1
		}
	}
	return 0
}
