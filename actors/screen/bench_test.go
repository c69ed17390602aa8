package screen

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkWrite is the cost of following output, per second of one processor, beside that of copying it.
func BenchmarkWrite(b *testing.B) {
	var plain, listing, wide bytes.Buffer
	for i := range 4000 {
		fmt.Fprintf(&plain, "%6d  The quick brown fox jumps over the lazy dog, %d times.\r\n", i, i%97)
		fmt.Fprintf(&listing, "-rw-r--r-- 1 root root %6d 2026-01-02 03:04 \x1b[0m\x1b[01;3%dmfile-%d.tar.gz\x1b[0m\r\n", i*7, i%7, i)
		fmt.Fprintf(&wide, "%6d 漢字かな交じり文と ASCII の混ざった行、한국어 텍스트\r\n", i)
	}
	for _, c := range []struct {
		name   string
		output []byte
	}{{"plain", plain.Bytes()}, {"listing", listing.Bytes()}, {"wide", wide.Bytes()}, {"tmux", recorded(b, "tmux")}} {
		b.Run(c.name, func(b *testing.B) {
			s := New(120, 40)
			b.SetBytes(int64(len(c.output)))
			for b.Loop() {
				_, _ = s.Write(c.output)
			}
		})
	}
	b.Run("copy", func(b *testing.B) {
		to := make([]byte, plain.Len())
		b.SetBytes(int64(plain.Len()))
		for b.Loop() {
			copy(to, plain.Bytes())
		}
	})
}

// BenchmarkDraw draws a full screen.
func BenchmarkDraw(b *testing.B) {
	s := New(120, 40)
	_, _ = s.Write(recorded(b, "colors"))
	var n int
	for b.Loop() {
		n = len(s.Draw())
	}
	b.ReportMetric(float64(n), "bytes")
}

func recorded(t testing.TB, name string) []byte {
	var all []byte
	for _, p := range readRecording(t, "testdata/"+name+".cast.gz").pieces {
		all = append(all, p.output...)
	}
	return all
}

// BenchmarkHostile is the cost of output that makes as much work as it can, on a large screen that is full.
func BenchmarkHostile(b *testing.B) {
	marks := make([]byte, 0, 1<<16)
	for i := range 4000 {
		marks = fmt.Appendf(marks, "a%c%c", 0x300+i%64, 0x300+i/64)
	}
	for _, c := range []struct{ name, output string }{
		{"scroll", "\x1b[9S"},
		{"lines", "\x1b[H\x1b[9L"},
		{"index", "\x1bM"},
		{"feed", "\n"},
		{"erase", "\x1b[41m\x1b[2J\x1b[m\x1b[1J"},
		{"align", "\x1b#8"},
		{"align and touch", "\x1b#8\x1b[999;999Hx"},
		{"insert", "\x1b[H\x1b[@"},
		{"delete", "\x1b[H\x1b[P"},
		{"insert mode", "\x1b[4h\x1b[Hxxxxxxxxxxxxxxxxx"},
		{"erase to the left", "\x1b[999G\x1b[1K"},
		{"repeat", "\x1b[Hx\x1b[9999b"},
		{"repeat marks", "\x1b[He\u0301\x1b[9999b"},
		{"marks", string(marks)},
		{"alternate", "\x1b[?47h\x1b[?47l"},
		{"reset", "\x1bc"},
		{"soft reset", "\x1b[!p"},
		{"tabs", "\x1b[3g\x1b[9999I\x1b[9999Z"},
		{"links", "\x1b]8;;http://a/\ax\x1b]8;;\a"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := New(256, 128)
			for y := range 128 {
				_, _ = fmt.Fprintf(s, "\x1b[%d;1H%s", y+1, bytes.Repeat([]byte("\x1b[31mx\x1b[32my"), 128))
			}
			output := bytes.Repeat([]byte(c.output), 1<<14/len(c.output)+1)
			b.SetBytes(int64(len(output)))
			for b.Loop() {
				_, _ = s.Write(output)
			}
		})
	}
}
