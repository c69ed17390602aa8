package transcript

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var benchLines = bytes.Repeat(append(bytes.Repeat([]byte("x"), 79), '\n'), 1000)

// benchTotal is written to one file before the next is begun, so that all of it stays in the page
// cache.
const benchTotal = 10 << 20

// BenchmarkAppend writes 80-byte lines, beside the same bytes written to a plain file.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10} {
		piece := benchLines[:size]
		b.Run(fmt.Sprintf("lines/%dKiB", size>>10), func(b *testing.B) {
			s := openStore(b, 1<<40)
			benchWrites(b, piece, func() (io.Writer, func()) {
				tr := s.Create("t", Options{Limit: 1 << 40})
				return tr.Writer(Stdout, WriterConfig{Lines: true}), func() { tr.Seal(); _ = tr.Remove() }
			})
		})
		b.Run(fmt.Sprintf("raw/%dKiB", size>>10), func(b *testing.B) {
			s := openStore(b, 1<<40)
			benchWrites(b, piece, func() (io.Writer, func()) {
				tr := s.Create("t", Options{Limit: 1 << 40})
				return tr.Writer(Stdout, WriterConfig{WholeRunes: true}), func() { tr.Seal(); _ = tr.Remove() }
			})
		})
		b.Run(fmt.Sprintf("file/%dKiB", size>>10), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "f")
			benchWrites(b, piece, func() (io.Writer, func()) {
				f, err := os.Create(path)
				if err != nil {
					b.Fatal(err)
				}
				return f, func() { _ = f.Close(); _ = os.Remove(path) }
			})
		})
	}
}

// BenchmarkFlow writes raw pieces of 64 KiB, reads them back and acknowledges them: what a pipeline
// costs. The file of a Last transcript is used again in the same way, without acknowledgements.
func BenchmarkFlow(b *testing.B) {
	for _, retain := range []Retain{Unread, Last} {
		b.Run(retain.String(), func(b *testing.B) {
			s := openStore(b, 1<<40)
			tr := s.Create("t", Options{Retain: retain, Scrollback: 1 << 20})
			w := tr.Writer(Stdout, WriterConfig{})
			c, _ := tr.Cursor(0, nil)
			defer c.Close()
			piece, buf := benchLines[:64<<10], make([]byte, 64<<10)
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = w.Write(piece)
				for {
					if _, err := c.Next(buf); err != nil {
						break
					}
				}
				tr.Ack(c.Offset())
			}
		})
	}
}

func benchWrites(b *testing.B, piece []byte, open func() (io.Writer, func())) {
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	w, done := open()
	n := 0
	for b.Loop() {
		if n += len(piece); n > benchTotal {
			done()
			w, done = open()
			n = len(piece)
		}
		if _, err := w.Write(piece); err != nil {
			b.Fatal(err)
		}
	}
	done()
}

// BenchmarkFrame is the search for lines alone.
func BenchmarkFrame(b *testing.B) {
	for _, line := range []int{1, 80, 4000, 8193} {
		piece := bytes.Repeat(append(bytes.Repeat([]byte("x"), line-1), '\n'), 64<<10/line)
		b.Run(fmt.Sprintf("line=%d", line), func(b *testing.B) {
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				wholeLines(piece, 0, DefaultMaxLine)
			}
		})
	}
}

// BenchmarkDropped is what a command past its limit costs.
func BenchmarkDropped(b *testing.B) {
	s := openStore(b, 1<<30)
	tr := s.Create("t", Options{Limit: 0})
	w := tr.Writer(Stdout, WriterConfig{Lines: true})
	b.SetBytes(64 << 10)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = w.Write(benchLines[:64<<10])
	}
}

// BenchmarkRead reads 10 MiB with a 64 KiB buffer, beside plain ReadAt of the same file. record is
// the length of the records; alternating ones change the stream each time.
func BenchmarkRead(b *testing.B) {
	for _, tc := range []struct {
		record    int
		alternate bool
	}{{64 << 10, false}, {4 << 10, false}, {80, false}, {4 << 10, true}, {80, true}} {
		name := fmt.Sprintf("record=%d", tc.record)
		if tc.alternate {
			name += ",alternating"
		}
		s := openStore(b, 1<<40)
		tr := s.Create("t", Options{Limit: 1 << 40})
		out, err := tr.Writer(Stdout, WriterConfig{}), tr.Writer(Stderr, WriterConfig{})
		for tr.End() < benchTotal {
			_, _ = out.Write(benchLines[:tc.record])
			if tc.alternate {
				out, err = err, out
			}
		}
		buf := make([]byte, 64<<10)
		b.Run("cursor/"+name, func(b *testing.B) {
			b.SetBytes(tr.End())
			b.ReportAllocs()
			for b.Loop() {
				c, _ := tr.Cursor(0, nil)
				for {
					if _, err := c.Next(buf); err != nil {
						break
					}
				}
				c.Close()
			}
		})
		b.Run("file/"+name, func(b *testing.B) {
			b.SetBytes(tr.fileEnd)
			b.ReportAllocs()
			for b.Loop() {
				for at := int64(0); at < tr.fileEnd; at += int64(len(buf)) {
					if _, err := tr.file.ReadAt(buf, at); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
