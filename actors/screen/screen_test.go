package screen

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTextIsWhatTheRowsShow(t *testing.T) {
	s := New(10, 3)
	_, _ = s.Write([]byte("one\r\n\x1b[44m \x1b[31m漢字 x\x1b[K\r\n\x1b[7me\u0301  "))
	if got, want := s.Text(), []string{"one", " 漢字 x", "e\u0301"}; !slices.Equal(got, want) {
		t.Errorf("text %q, want %q", got, want)
	}
	if x, y := s.Cursor(); x != 3 || y != 2 {
		t.Errorf("cursor at %d, %d", x, y)
	}
	_, _ = s.Write([]byte("\x1b#8\x1b[2;2H\x1b[K"))
	if got, want := s.Text(), []string{"EEEEEEEEEE", "E", "EEEEEEEEEE"}; !slices.Equal(got, want) {
		t.Errorf("text %q, want %q", got, want)
	}
}

func TestCursorBehindTheLastColumnIsInIt(t *testing.T) {
	s := New(4, 2)
	_, _ = s.Write([]byte("1234"))
	if x, y := s.Cursor(); x != 3 || y != 0 {
		t.Errorf("cursor at %d, %d", x, y)
	}
}

func TestUnfinishedSequenceIsBoundedInBytes(t *testing.T) {
	for _, c := range []struct{ begin, end string }{
		{"\x1b]2;", "\a"},
		{"\x1b]2;", "\x1b\\"},
		{"\x1bP$q", "\x1b\\"},
		{"\x1b_", "\x1b\\"},
		{"\x1b[1;", "m"},
		{"\x1b(", "0"},
	} {
		s := New(20, 3)
		_, _ = s.Write([]byte("\x1b]2;before\aA" + c.begin))
		fill := "1"
		if c.begin == "\x1b(" {
			fill = " "
		}
		_, _ = s.Write(bytes.Repeat([]byte(fill), 1<<20))
		if n := len(s.raw); n > maxSequence {
			t.Errorf("%q: keeps %d bytes", c.begin, n)
		}
		drawn := New(20, 3)
		_, _ = drawn.Write(s.Draw())
		for _, s := range []*Screen{s, drawn} {
			_, _ = s.Write([]byte(fill + c.end + "B"))
			if got := s.Text()[0]; got != "AB" {
				t.Errorf("%q: text %q behind the end", c.begin, got)
			}
			if s.title != "before" || s.cur.pen != (pen{}) {
				t.Errorf("%q: has an effect: title %.20q, pen %v", c.begin, s.title, s.cur.pen)
			}
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const cols, rows = 200, 50
	s := New(cols, rows)
	var b bytes.Buffer
	for _, page := range []string{"", "\x1b[?1049h"} {
		b.WriteString(page)
		for i := range cols * rows * 2 { // every cell with marks and a link of its own
			fmt.Fprintf(&b, "\x1b]8;;http://%d%s/\a\x1b[38;2;%d;0;%dm%c%s", i, strings.Repeat("x", 200), i>>8&255, i&255, 'a'+i%26,
				string(rune(0x300+i%64))+string(rune(0x300+i/64%64))+string(rune(0x300+i/4096%64)))
		}
	}
	_, _ = s.Write(b.Bytes())
	if n := s.Bytes(); n > maxBytes(cols, rows) || n < 2*cols*rows*16 {
		t.Errorf("%d bytes, of at most %d", n, maxBytes(cols, rows))
	}
	if n := len(s.clusters.entries); n > maxClusters+1 {
		t.Errorf("%d clusters", n)
	}
	if n := len(s.Draw()); n > 2*cols*rows*150+maxLinksDrawn {
		t.Errorf("a drawing of %d bytes", n)
	}
	_, _ = s.Write([]byte("\x1b[?1049l\x1b[2J\x1b[3J"))
	before := s.Bytes()
	for i := range cols { // not every text that is new is worth a search for what can be forgotten
		fmt.Fprintf(s, "a%c\x1b]8;;http://other/%d\a", 0x300+i%0x60, i)
	}
	_, _ = s.Write([]byte("\x1b[He\u0301\x1b]8;;http://new/\alink"))
	if drawn := s.Draw(); !strings.HasPrefix(s.Text()[0], "e\u0301link") || !bytes.Contains(drawn, []byte("http://new/\x1b\\link")) {
		t.Errorf("no room for marks and links when those on the screen have gone: %q", drawn)
	}
	if after := s.Bytes(); after > before {
		t.Errorf("%d bytes have become %d", before, after)
	}
}

func TestLinksOfADrawingAreBounded(t *testing.T) {
	s := New(200, 50)
	for i := range 200 * 50 {
		fmt.Fprintf(s, "\x1b]8;;http://%d/%s\a%c", i%2, strings.Repeat("x", 2000), 'a'+i%26)
	}
	drawn := s.Draw()
	if n := len(drawn); n > maxLinksDrawn+200*50*20 {
		t.Errorf("%d bytes", n)
	}
	if n := len(s.DrawUpTo(24 << 10)); n == 0 {
		t.Error("what fits without the links is not drawn")
	}
	again := New(200, 50)
	_, _ = again.Write(drawn)
	if !slices.Equal(again.Text(), s.Text()) {
		t.Error("the text is another")
	}
}

func TestDrawingStandsAtAnyByte(t *testing.T) {
	for _, c := range snippets {
		whole := New(20, 6)
		for i := range len(c.output) {
			_, _ = whole.Write([]byte(c.output[i : i+1]))
			drawn := New(20, 6)
			_, _ = drawn.Write(whole.Draw())
			same(t, fmt.Sprintf("%s at %d", c.name, i+1), whole, drawn)
			rest := New(20, 6)
			_, _ = rest.Write([]byte(c.output[:i+1]))
			for _, s := range []*Screen{rest, drawn} {
				_, _ = s.Write([]byte(c.output[i+1:]))
			}
			same(t, fmt.Sprintf("%s at %d, and the rest", c.name, i+1), rest, drawn)
		}
	}
}

func TestMarksOnTheScreenStay(t *testing.T) {
	s := New(20, 5)
	_, _ = s.Write([]byte("\x1b]8;;http://stays/\ae\u0301\x1b]8;;\a"))
	for i := range 3 * maxClusters {
		fmt.Fprintf(s, "\x1b]8;;http://%d/\a\x1b[2;1Ha%c%c", i, 0x300+i%64, 0x300+i/64%64)
	}
	if drawn := s.Draw(); s.Text()[0] != "e\u0301" || !bytes.Contains(drawn, []byte("http://stays/\x1b\\e")) {
		t.Errorf("forgotten: %q", drawn)
	}
}

func TestHalvesOfWideCharactersAreBlank(t *testing.T) {
	for _, c := range []struct{ output, want string }{
		{"漢字\x1b[2Gx", " x字"},
		{"漢字\x1b[3Gx", "漢x"},
		{"漢字\x1b[1Gx", "x 字"},
		{"漢字\x1b[2G\x1b[X", "  字"},
		{"漢字\x1b[2G\x1b[K", ""},
		{"漢字\x1b[3G\x1b[1K", ""},
		{"漢字\x1b[2G\x1b[P", " 字"},
		{"漢字\x1b[2G\x1b[@x", " x 字"},
		{"\x1b[19G漢\x1b[1G\x1b[@", ""},
	} {
		s := New(20, 1)
		_, _ = s.Write([]byte(c.output))
		if got := s.Text()[0]; got != c.want {
			t.Errorf("%q: %q, want %q", c.output, got, c.want)
		}
	}
}

func TestBlankScreenTakesLittle(t *testing.T) {
	s := New(1000, 500)
	_, _ = s.Write([]byte("\x1b[44m\x1b[2J\x1b[?1049h\x1b[2J\x1b#8"))
	if n := s.Bytes(); n > 128<<10 {
		t.Errorf("%d bytes", n)
	}
}

func TestMarksOfACharacterAreBounded(t *testing.T) {
	s := New(20, 2)
	_, _ = s.Write([]byte("a" + strings.Repeat("\u0301", 100000)))
	if n := len(s.Text()[0]); n > maxCluster {
		t.Errorf("a character of %d bytes", n)
	}
}

func TestRepetitionIsBoundedByALine(t *testing.T) {
	s := New(20, 5)
	_, _ = s.Write([]byte("a\x1b[2147483647b"))
	if got := strings.Join(s.Text(), ""); len(got) != 21 {
		t.Errorf("%d characters", len(got))
	}
}

func TestLinesAreWrappedAnewForAnotherWidth(t *testing.T) {
	for _, c := range []struct {
		output     string
		cols, rows int
		want       []string
		x, y       int
	}{
		{"0123456789abc\r\n$ ", 20, 4, []string{"0123456789abc", "$", "", ""}, 2, 1},
		{"0123456789abc\r\n$ ", 5, 4, []string{"01234", "56789", "abc", "$"}, 2, 3},
		{"0123456789abc\r\n$ ", 4, 3, []string{"89ab", "c", "$"}, 2, 2},
		{"漢字漢字漢x\r\n$ ", 5, 4, []string{"漢字", "漢字", "漢x", "$"}, 2, 3},
		{"$ 0123456789abc", 20, 4, []string{"$ 01234567", "89abc", "", ""}, 5, 1}, // programs draw the line with the cursor again
		{"a\r\nb\r\nc\r\nd", 10, 2, []string{"c", "d"}, 1, 1},
		{"a\r\nb\r\nc\r\nd\x1b[H", 10, 2, []string{"a", "b"}, 0, 0},
		{"\x1b[?1049h0123456789abc", 5, 4, []string{"01234", "abc", "", ""}, 3, 1},
	} {
		s := New(10, 4)
		_, _ = s.Write([]byte(c.output))
		s.Resize(c.cols, c.rows)
		x, y := s.Cursor()
		if got := s.Text(); !slices.Equal(got, c.want) || x != c.x || y != c.y {
			t.Errorf("%q at %dx%d: %q, not %q, with the cursor at %d, %d", c.output, c.cols, c.rows, got, c.want, x, y)
		}
		if cols, rows := s.Size(); cols != c.cols || rows != c.rows {
			t.Errorf("size %d, %d", cols, rows)
		}
	}
}
