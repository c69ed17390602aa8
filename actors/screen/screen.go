package screen

import (
	"strings"
	"unsafe"
)

// cursor is where and how the next character is drawn. DECSC saves it.
type cursor struct {
	x, y     int // x is the number of columns if the last one was written and a character begins a new line
	pen      pen
	link     uint8
	charsets [4]byte // G0 to G3: 'B' ASCII, '0' line drawing, …
	gl       int     // the one in use
	origin   bool    // DECOM
}

func newCursor() cursor { return cursor{charsets: [4]byte{'B', 'B', 'B', 'B'}} }

// page is the normal or the alternate screen.
type page struct {
	rows        []row
	top, bottom int    // the rows of the scrolling region, both in it
	tabs        []bool // the columns with a stop
	saved       cursor
}

func newPage(cols, rows int) page {
	p := page{rows: make([]row, rows), bottom: rows - 1, tabs: make([]bool, cols), saved: newCursor()}
	for x := 0; x < cols; x += tabWidth {
		p.tabs[x] = true
	}
	return p
}

const tabWidth = 8

// Screen is the state of a terminal. It is used by one goroutine at a time.
type Screen struct {
	cols, rows int
	normal     page
	alternate  page // without rows while it is not shown
	shown      *page
	cur        cursor
	modes

	plain    bool // see NewText
	title    string
	titled   bool
	clusters table // of characters that consist of several
	links    table // of OSC 8

	joinWidth int       // of the character before the cursor, if the next one may join it; else 0
	joinKind  breakKind // of what was written of it last

	parser
}

// New returns an empty screen.
func New(cols, rows int) *Screen {
	s := &Screen{
		cols: max(cols, 1), rows: max(rows, 1),
		clusters: table{most: maxClusters, room: maxClusters * maxCluster},
		links:    table{most: maxLinks, room: maxLinkBytes},
	}
	s.normal = newPage(s.cols, s.rows)
	s.reset()
	return s
}

// reset is RIS: the state of a new terminal, which keeps its title.
func (s *Screen) reset() {
	rows := s.normal.rows
	for y := range rows {
		rows[y].clear(0)
	}
	s.normal, s.alternate = newPage(s.cols, 0), page{saved: newCursor()}
	s.normal.rows, s.normal.bottom = rows, s.rows-1
	s.shown, s.cur, s.modes, s.joinWidth = &s.normal, newCursor(), newModes(), 0
}

// Size is the number of columns and rows.
func (s *Screen) Size() (cols, rows int) { return s.cols, s.rows }

// Cursor is the column and row of the cursor, both from 0.
func (s *Screen) Cursor() (x, y int) { return min(s.cur.x, s.cols-1), s.cur.y }

// Text is the rows as they are shown, without attributes and without blanks at their ends.
func (s *Screen) Text() []string {
	lines := make([]string, s.rows)
	var b strings.Builder
	for y := range lines {
		b.Reset()
		r := &s.shown.rows[y]
		for x := range s.cols {
			c := r.at(x)
			switch {
			case c.isHalf():
			case c.blank():
				b.WriteByte(' ')
			default:
				b.WriteString(s.char(c))
			}
		}
		lines[y] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// char is the character of a cell, which may consist of several.
func (s *Screen) char(c cell) string {
	if c.content&clustered != 0 {
		return s.clusters.entries[c.content&charBits]
	}
	return string(rune(c.content & charBits))
}

// Bytes is how much memory the screen holds at most. See the package's documentation for what bounds it.
func (s *Screen) Bytes() int {
	n := int(unsafe.Sizeof(*s)) + cap(s.raw) + len(s.title) + s.clusters.bytes() + s.links.bytes()
	for _, p := range []*page{&s.normal, &s.alternate} {
		n += cap(p.rows)*int(unsafe.Sizeof(row{})) + cap(p.tabs)
		for y := range p.rows {
			n += cap(p.rows[y].cells) * int(unsafe.Sizeof(cell{}))
		}
	}
	return n
}

func (s *Screen) line() *row { return &s.shown.rows[s.cur.y] }
