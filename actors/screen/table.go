package screen

// What a screen keeps of the characters that consist of several, and of the links that its cells lead to.
const (
	maxClusters  = 2048
	maxCluster   = 64  // bytes; what joins beyond is left out
	maxLinks     = 255 // as many as a cell can tell apart
	maxLinkBytes = 64 << 10
)

// table numbers texts, which cells then refer to. It forgets those that no cell refers to when it is full.
type table struct {
	most, room int // entries and their bytes, at most

	entries []string // 0 is none
	index   map[string]uint32
	free    []uint32
	size    int // of the entries, in bytes
	since   int // how many texts were new since it was searched for what can be forgotten
}

// bytes is the memory that the table holds, with what a map and a string need beside their contents.
func (t *table) bytes() int { return t.size + 64*len(t.entries) + 4*cap(t.free) }

// add returns the number of a text, or 0 if there is no room.
func (s *Screen) add(t *table, text string, used func(mark []bool)) uint32 {
	if n, ok := t.index[text]; ok {
		return n
	}
	t.since++
	if t.full(text) && t.since > s.cols*s.rows/512 { // a new text costs no more than a few lines do
		t.sweep(used)
		t.since = 0
	}
	if t.full(text) {
		return 0
	}
	if t.index == nil {
		t.index, t.entries = map[string]uint32{}, []string{""}
	}
	var n uint32
	if last := len(t.free) - 1; last >= 0 {
		n, t.free = t.free[last], t.free[:last]
		t.entries[n] = text
	} else {
		n = uint32(len(t.entries)) //nolint:gosec // at most t.most
		t.entries = append(t.entries, text)
	}
	t.index[text] = n
	t.size += len(text)
	return n
}

func (t *table) full(text string) bool {
	return len(t.index) >= t.most || t.size+len(text) > t.room
}

func (t *table) sweep(used func(mark []bool)) {
	mark := make([]bool, len(t.entries))
	used(mark)
	for n, text := range t.entries {
		if n > 0 && !mark[n] && text != "" {
			delete(t.index, text)
			t.size -= len(text)
			t.entries[n] = ""
			t.free = append(t.free, uint32(n)) //nolint:gosec // at most t.most
		}
	}
}

func (s *Screen) everyCell(do func(cell)) {
	for _, p := range []*page{&s.normal, &s.alternate} {
		for y := range p.rows {
			for _, c := range p.rows[y].cells {
				do(c)
			}
		}
	}
}

func (s *Screen) usedClusters(mark []bool) {
	s.everyCell(func(c cell) {
		if c.content&clustered != 0 {
			mark[c.content&charBits] = true
		}
	})
}

func (s *Screen) usedLinks(mark []bool) {
	s.everyCell(func(c cell) { mark[c.content>>linkShift] = true })
	mark[s.cur.link] = true
}
