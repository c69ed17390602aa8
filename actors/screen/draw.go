package screen

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// afresh makes a terminal forget what it showed, but not what has scrolled away: it ends a sequence that is
// under way (CAN), leaves the alternate screen, and resets modes, margins, character sets and attributes.
const afresh = "\x18\x1b[?1049l\x1b[?1;5;9;45;1000;1002;1003;1004;1005;1006;1007;1015;1016;2004;2026l" +
	"\x1b[?7;25h\x1b[4l\x1b[20l\x1b>\x1b[r\x1b[0 q\x1b]8;;\x1b\\" + plain + "\x1b[2J"

// plain makes a terminal draw as a new one does.
const plain = "\x1b[?6l\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[m"

// maxLinksDrawn bounds the bytes of the links in a drawing. Further ones are text. The rest of a drawing takes at
// most 150 bytes a cell.
const maxLinksDrawn = 1 << 20

// drawing is a drawing as far as it has come.
type drawing struct {
	*Screen
	b    []byte
	cur  cursor // of the terminal that draws it; its place is at, as far as that is known
	x, y int    // the place, or -1

	top, bottom int // of the scrolling region
	last        breakKind
	open        bool // the next character could join the last one
	links       int  // the bytes of links that there is still room for
	most        int  // bytes, beyond which no line is begun
}

// Draw returns bytes that make a terminal of the screen's size show what the screen shows, whatever it showed
// before, and go on with the program's output in the middle of whatever had begun. Lines that were wrapped are
// drawn by wrapping, so that a terminal that wraps them anew for another width does so.
func (s *Screen) Draw() []byte {
	return s.DrawUpTo(math.MaxInt)
}

// DrawUpTo is Draw if that has at most so many bytes, and nil otherwise. Links take no more than a quarter of them.
func (s *Screen) DrawUpTo(most int) []byte {
	d := &drawing{Screen: s, cur: newCursor(), b: make([]byte, 0, 1024), links: min(maxLinksDrawn, most/4), most: most}
	d.seq(afresh)
	if s.titled {
		d.seq("\x1b]2;" + s.title + "\a")
	}
	if s.shown == &s.normal && s.alternate.saved != newCursor() {
		d.seq("\x1b[?1049h")
		d.top, d.bottom = 0, s.rows-1
		d.save(s.alternate.saved)
		d.seq("\x1b[?1049l" + plain)
		d.cur = newCursor()
	}
	d.page(&s.normal)
	if s.shown == &s.alternate {
		d.seq("\x1b[?1049h")
		d.point(newCursor())
		d.seq("\x1b[r\x1b[2J")
		d.page(&s.alternate)
	}
	d.modes()
	d.finish()
	d.b = append(d.b, s.raw...)
	d.b = append(d.b, s.partial[:s.had]...)
	if len(d.b) > most {
		return nil
	}
	return d.b
}

// seq adds a sequence.
func (d *drawing) seq(text string) {
	d.b = append(d.b, text...)
	d.open = false
}

func (d *drawing) move(x, y int) {
	if x != d.x || y != d.y {
		d.b = append(d.b, "\x1b["...)
		d.b = strconv.AppendInt(d.b, int64(y+1), 10)
		d.b = append(d.b, ';')
		d.b = strconv.AppendInt(d.b, int64(x+1), 10)
		d.seq("H")
	}
	d.x, d.y = x, y
}

// page draws a page with its margins, tab stops and saved cursor, onto a blank one.
func (d *drawing) page(p *page) {
	d.tabs(p)
	d.x = -1
	for y := range p.rows {
		if len(d.b) <= d.most {
			d.row(p.rows, y)
		}
	}
	d.top, d.bottom = p.top, p.bottom
	if p.top != 0 || p.bottom != d.rows-1 {
		d.seq(fmt.Sprintf("\x1b[%d;%dr", p.top+1, p.bottom+1))
		d.x = -1
	}
	d.save(p.saved)
}

func (d *drawing) tabs(p *page) {
	d.seq("\x1b[3g")
	d.x = -1
	for x := range d.Screen.cols {
		if p.tabs[x] {
			d.move(x, 0)
			d.seq("\x1bH")
		}
	}
}

// row draws a row. If the next one continues it, the cursor is then where that begins by wrapping.
func (d *drawing) row(rows []row, y int) {
	r := &rows[y]
	x := 0
	if r.wrapped && y > 0 {
		x = d.wrapped(rows, y)
	}
	for x < d.cols {
		c := r.at(x)
		switch {
		case !c.blank():
			d.move(x, y)
			x += d.char(c)
		case c.shows():
			d.move(x, y)
			d.blank(c.pen)
			x++
		default:
			to := x + 1
			for to < d.cols && r.at(to).blank() && r.at(to).pen.erased() == c.erased() && !r.at(to).shows() {
				to++
			}
			if c.erased() != (pen{}) {
				d.erase(x, to, y, c.pen)
			}
			x = to
		}
	}
	if y+1 < d.rows && rows[y+1].wrapped && (d.x != d.cols || d.y != y) {
		if r.at(d.cols-1).blank() && rows[y+1].at(0).isWide() {
			d.move(d.cols-1, y) // where a wide character does not fit
		} else {
			d.end(r, y)
		}
	}
}

// end draws the last column of a row, or a space for a blank, whereby the next character begins a new line.
func (d *drawing) end(r *row, y int) {
	x := d.cols - 1
	c := r.at(x)
	if x > 0 && c.isHalf() {
		x--
		c = r.at(x)
	}
	if d.place(x, y); c.blank() {
		d.blank(c.pen)
	} else {
		d.char(c)
	}
}

// wrapped begins a row that continues the one above, behind which the cursor is. It returns how many columns it drew.
func (d *drawing) wrapped(rows []row, y int) int {
	first, before := rows[y].at(0), rows[y-1].at(d.cols-1)
	width := 1
	d.x, d.y = 0, y
	if first.blank() {
		d.blank(first.pen)
	} else {
		width = d.char(first)
	}
	if before.blank() && !before.shows() {
		d.erase(d.cols-1, d.cols, y-1, before.pen)
	}
	if first.blank() && !first.shows() {
		d.erase(0, 1, y, first.pen)
	}
	return width
}

// erase blanks cells with a background, from one column to before another.
func (d *drawing) erase(from, to, y int, p pen) {
	d.move(from, y)
	d.pen(p.erased(), 0)
	if from > 0 && to == d.cols {
		d.seq("\x1b[K")
		return
	}
	d.seq(fmt.Sprintf("\x1b[%dX", to-from))
}

// blank draws a space, which unlike an erased cell shows lines and the like.
func (d *drawing) blank(p pen) {
	d.char(cell{content: ' ', pen: p})
}

// char draws a character and returns its columns.
func (d *drawing) char(c cell) int {
	text, width := d.Screen.char(c), 1
	if c.isWide() {
		width = 2
	}
	d.pen(c.pen, uint8(c.content>>linkShift)) //nolint:gosec // 8 bits
	first, _ := utf8.DecodeRuneInString(text)
	if kind, _ := lookUp(first); d.open && joined(d.last, kind) {
		d.part()
	}
	d.b = append(d.b, text...)
	d.last, d.open = lastKind(text), true
	d.x += width
	if d.x < d.cols && (c.content&clustered != 0 || first >= 0x2000 && width == 1 || first >= 0x1f000) {
		d.x = -1 // terminals do not agree on its width
	}
	return width
}

// part keeps the next character from joining the last one.
func (d *drawing) part() { d.seq(d.cur.pen.after(d.cur.pen)) }

// lastKind is what a terminal has seen last of a character that was drawn.
func lastKind(text string) breakKind {
	kind := breakOther
	for _, r := range text {
		k, _ := lookUp(r)
		if k == breakRegional && kind == breakRegional {
			k = breakOther
		}
		kind = k
	}
	return kind
}

// pen selects how is drawn, and the link that characters lead to.
func (d *drawing) pen(p pen, link uint8) {
	if p != d.cur.pen {
		d.seq(p.after(d.cur.pen))
		d.cur.pen = p
	}
	target := ";"
	if link != 0 {
		target = d.Screen.links.entries[link]
	}
	if d.links < len(target) {
		link, target = 0, ";"
	}
	if link != d.cur.link {
		d.links -= len(target)
		d.seq("\x1b]8;" + target + "\x1b\\")
		d.cur.link = link
	}
}

func (d *drawing) save(c cursor) {
	d.point(c)
	d.x = -1
	d.place(c.x, c.y)
	d.seq("\x1b7")
}

// point gives the terminal all that belongs to a cursor but its place.
func (d *drawing) point(c cursor) {
	d.pen(c.pen, c.link)
	d.charsets(c)
	d.origin(c)
}

func (d *drawing) origin(c cursor) {
	if c.origin != d.cur.origin {
		d.seq("\x1b[?6" + string(onOff(c.origin)))
		d.cur.origin = c.origin
		d.x = -1
	}
}

// place moves the cursor, with regard to origin mode.
func (d *drawing) place(x, y int) {
	if d.cur.origin {
		y = min(max(y, d.top), d.bottom) - d.top
		d.x = -1
	}
	d.move(x, y)
}

func (d *drawing) charsets(c cursor) {
	for g, set := range c.charsets {
		if set != d.cur.charsets[g] {
			d.seq("\x1b" + string("()*+"[g]) + string(set))
		}
	}
	if c.gl != d.cur.gl {
		d.seq([...]string{"\x0f", "\x0e", "\x1bn", "\x1bo"}[c.gl])
	}
	d.cur.charsets, d.cur.gl = c.charsets, c.gl
}

func onOff(on bool) byte {
	if on {
		return 'h'
	}
	return 'l'
}

// modes sets what differs from a new terminal, but for what would disturb the last steps.
func (d *drawing) modes() {
	initial := newModes()
	for which, number := range modeNumbers {
		m := mode(which) //nolint:gosec // less than modeCount
		switch on := d.has(m); {
		case on == initial.has(m):
		case m == keypad:
			d.seq("\x1b=")
		default:
			d.seq("\x1b[?" + strconv.Itoa(number) + string(onOff(on)))
		}
	}
	for _, number := range []int{d.mouse, d.encoding} {
		if number != 0 {
			d.seq("\x1b[?" + strconv.Itoa(number) + "h")
		}
	}
	if d.blinking != 0 {
		d.seq("\x1b[?12" + string(d.blinking))
	}
	if d.style != 0 {
		d.seq("\x1b[" + strconv.Itoa(d.style) + " q")
	}
	if d.newline {
		d.seq("\x1b[20h")
	}
}

// finish puts the cursor to its place. A character that the next one may join, or that was written to the last
// column, is written once more, because nothing else puts a terminal into that state.
func (d *drawing) finish() {
	c := d.Screen.cur
	d.origin(c)
	d.x = -1
	r := d.line()
	again := d.joinWidth
	if again > 0 && (c.x < again || r.at(c.x-again).blank()) {
		again = 0
	}
	if again == 0 && c.x == d.cols {
		d.charsets(newCursor())
		d.end(r, c.y)
		d.part()
	} else {
		d.place(c.x-again, c.y)
	}
	d.charsets(c)
	if d.insert {
		d.seq("\x1b[4h")
	}
	d.pen(c.pen, c.link)
	if again > 0 {
		text := d.unmapped(d.Screen.char(r.at(c.x - again)))
		if d.insert { // the first of it moves to the right what is behind it
			first, _ := utf8.DecodeRuneInString(text)
			_, width := lookUp(first)
			d.seq("\x1b[" + strconv.Itoa(width) + "P")
		}
		d.b = append(d.b, text...)
	}
}

// after selects a pen where another was selected. Attributes are only ever added.
func (p pen) after(old pen) string {
	reset := p == old || p == (pen{}) || old.fg&^colorBits&^p.fg != 0 || old.bg&^colorBits&^p.bg != 0 ||
		p.line != old.line && old.line != 0
	b := []byte("\x1b[")
	add := func(n int) {
		if len(b) > 2 {
			b = append(b, ';')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	if reset {
		old = pen{}
		if p != old {
			add(0)
		}
	}
	for _, a := range []struct {
		is     bool
		number int
	}{
		{p.fg&^old.fg&bold != 0, 1},
		{p.bg&^old.bg&faint != 0, 2},
		{p.bg&^old.bg&italic != 0, 3},
		{p.fg&^old.fg&underlined != 0, 4},
		{p.fg&^old.fg&blink != 0, 5},
		{p.fg&^old.fg&inverse != 0, 7},
		{p.fg&^old.fg&hidden != 0, 8},
		{p.fg&^old.fg&struck != 0, 9},
		{p.bg&^old.bg&overlined != 0, 53},
	} {
		if a.is {
			add(a.number)
		}
	}
	var colors []int
	if p.fg&colorBits != old.fg&colorBits {
		colors = appendColor(colors, p.fg, 30)
	}
	if p.bg&colorBits != old.bg&colorBits {
		colors = appendColor(colors, p.bg, 40)
	}
	for _, n := range colors {
		add(n)
	}
	if len(b) > 2 || reset {
		b = append(b, 'm')
	} else {
		b = b[:0]
	}
	if p.line == old.line {
		return string(b)
	}
	// Terminals that know no colons drop the sequences that have them.
	if style := p.line >> lineShift; style != 0 {
		b = fmt.Appendf(b, "\x1b[4:%dm", style+1)
	}
	switch v := p.line & 0xffffff; p.line & (3 << 24) {
	case palette256:
		b = fmt.Appendf(b, "\x1b[58:5:%dm", v&0xff)
	case direct:
		b = fmt.Appendf(b, "\x1b[58:2::%d:%d:%dm", v>>16, v>>8&0xff, v&0xff)
	default:
	}
	return string(b)
}

// appendColor adds the parameters that select a color; the first of the foreground's are 30, of the background's 40.
func appendColor(to []int, c color, first int) []int {
	v := int(c & 0xffffff)
	switch c & (3 << 24) {
	case palette16:
		if v >= 8 {
			first += 60 - 8
		}
		return append(to, first+v)
	case palette256:
		return append(to, first+8, 5, v&0xff)
	case direct:
		return append(to, first+8, 2, v>>16, v>>8&0xff, v&0xff)
	default:
		return append(to, first+9)
	}
}
