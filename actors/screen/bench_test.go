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
