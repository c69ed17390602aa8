package screen

// What a screen keeps whose text alone is asked for.
const (
	plainClusters     = 64
	plainClusterBytes = 4 << 10
)

// NewText is New for a screen that is only asked for its Text. It takes 20 KiB and 32 bytes for each cell at
// most: it keeps no links, and marks of 64 different characters.
func NewText(cols, rows int) *Screen {
	s := New(cols, rows)
	s.plain = true
	s.clusters.most, s.clusters.room = plainClusters, plainClusterBytes
	return s
}

// Title is what the program has called the window last.
func (s *Screen) Title() string { return s.title }

// CursorKeys reports whether the cursor keys send what they do in application mode (DECCKM).
func (s *Screen) CursorKeys() bool { return s.has(cursorKeys) }
