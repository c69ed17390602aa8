package screen

import (
	"fmt"
	"strings"
	"testing"
)

// TestTextTakesWhatItSays: 20 KiB and 32 bytes for each cell, whatever is drawn, on both pages.
func TestTextTakesWhatItSays(t *testing.T) {
	const cols, rows = 80, 24
	s := NewText(cols, rows)
	fill := func(from int) {
		fmt.Fprintf(s, "\x1b]2;%s\a", strings.Repeat("t", 5000))
		for i := range cols * rows {
			fmt.Fprintf(s, "\x1b]8;;http://x/%d\aa%s\x1b]8;;\a", i, strings.Repeat(string(rune(0x300+(from+i)%100)), 1+i%60))
		}
	}
	fill(0)
	fmt.Fprint(s, "\x1b[?1049h")
	fill(50)
	fmt.Fprintf(s, "\x1b]2;%s", strings.Repeat("u", 5000))
	if n, most := s.Bytes(), 20<<10+32*cols*rows; n > most {
		t.Errorf("%d bytes, want %d at most", n, most)
	}
	fmt.Fprint(s, "\a\x1bc\x1b]2;name\aplain \x1b]8;;http://x\alink\x1b]8;;\a e\u0301")
	if got := s.Text()[0]; got != "plain link e\u0301" || s.Title() != "name" {
		t.Errorf("%q, title %q", got, s.Title())
	}
	if fmt.Fprint(s, "\x1b[?1h"); !s.CursorKeys() {
		t.Error("the cursor keys are not in application mode")
	}
}
