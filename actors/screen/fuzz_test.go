package screen

import (
	"bytes"
	"testing"
)

// maxBytes is the bound that the package's documentation gives.
func maxBytes(cols, rows int) int { return 2*rows*(cols*16+32) + 2*(cols+1) + 1<<20 }

func FuzzDrawingIsTheScreen(f *testing.F) {
	for _, c := range snippets {
		f.Add([]byte(c.output), uint8(20), uint8(6), uint16(len(c.output)/2), uint8(13), uint8(9))
	}
	f.Fuzz(func(t *testing.T, output []byte, cols, rows uint8, cut uint16, cols2, rows2 uint8) {
		whole, parts := New(int(cols), int(rows)), New(int(cols), int(rows))
		at := min(int(cut), len(output))
		_, _ = whole.Write(output[:at])
		for i := range at {
			_, _ = parts.Write(output[i : i+1])
		}
		same(t, "written byte by byte", whole, parts)
		drawn := New(int(cols), int(rows))
		_, _ = drawn.Write([]byte("\x1b[?1049h\x1b[31mold\x1b(0\x1b[?6h\x1b[2;3r"))
		_, _ = drawn.Write(whole.Draw())
		same(t, "drawn", whole, drawn)
		for _, s := range []*Screen{whole, drawn} {
			_, _ = s.Write(output[at:])
		}
		same(t, "drawn, and the rest", whole, drawn)
		for _, s := range []*Screen{whole, drawn} {
			s.Resize(int(cols2), int(rows2))
			_, _ = s.Write(output[:at])
		}
		same(t, "drawn, and resized", whole, drawn)
		if n := whole.Bytes(); n > maxBytes(256, 256) {
			t.Errorf("holds %d bytes", n)
		}
	})
}

// same compares by drawings: whatever a screen shows and does is in them.
func same(t *testing.T, what string, a, b *Screen) {
	t.Helper()
	for _, s := range []*Screen{a, b} {
		// Nothing puts a terminal's cursor behind the last column but a character in it.
		if c := s.line().at(s.cols - 1); s.cur.x == s.cols && c.blank() {
			s.line().extend(s.cols, s.cols)
			s.line().cells[s.cols-1].content |= ' '
		}
	}
	if x, y := a.Draw(), b.Draw(); !bytes.Equal(x, y) {
		t.Fatalf("%s: drawings differ:\n%q\n%q", what, x, y)
	}
}
