package transcript

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// FuzzFramer writes text to both streams in pieces that script chooses, and compares with the
// reference.
func FuzzFramer(f *testing.F) {
	f.Add(byte(0), byte(8), uint16(1000), []byte{0, 9, 18, 255},
		[]byte("line\na line that is too long\n\nand €uro and 𝄞 "))
	f.Add(byte(3), byte(1), uint16(20), []byte{8, 9, 6, 7}, []byte("ab\ncd\n\xff\xe2\x82"))
	f.Add(byte(4), byte(8), uint16(5), []byte{0, 9, 18, 255}, []byte("raw and unread, of both streams"))
	f.Add(byte(9), byte(8), uint16(9), []byte{0, 9, 18, 255}, []byte("line\na line that is too long\nlast\n"))
	f.Add(byte(1), byte(3), uint16(90), []byte{12, 13, 18, 8, 9}, []byte("10%\r20%\r\n12345\r\n\r\r\n12345\r6\r"))
	f.Add(byte(2), byte(0), uint16(7), []byte{16, 17, 40}, []byte("\xf0\x9d\x84\x9e\xf0\x9d\x84"))
	s := openFuzzStore(f)
	f.Fuzz(func(t *testing.T, flags, maxLine byte, limit uint16, script, text []byte) {
		cfg := WriterConfig{Lines: flags&1 != 0, WholeRunes: flags&2 != 0, MaxLine: int(maxLine) + 1}
		text = text[:min(len(text), 64<<10)] // An Unread transcript takes all of it without an Ack.
		o := Options{Retain: Retain(flags >> 2 % 3), Limit: int64(limit), Scrollback: int64(limit)}
		ref := newReference(1<<30, cfg)
		if o.Retain == First {
			ref.limit = o.Limit
		}
		tr := s.Create("t", o)
		calls := dropMarks(tr)
		writers := [2]*Writer{tr.Writer(Stdout, cfg), tr.Writer(Stderr, cfg)}
		for _, op := range script {
			stream, n := Stream(op&1), min(int(op>>2), len(text))
			if op&2 != 0 {
				writers[stream].Flush()
				ref.flush(stream, false)
				if writers[stream].Pending() {
					t.Fatal("Pending after Flush")
				}
			}
			write(t, writers[stream], string(text[:n]))
			ref.write(stream, text[:n])
			text = text[n:]
		}
		write(t, writers[0], string(text))
		ref.write(Stdout, text)
		for i, w := range writers {
			w.Close()
			ref.flush(Stream(i), true)
		}
		tr.Seal()
		if ref.dropping {
			ref.runs = append(ref.runs, run{mark: dropped{DropLimit, ref.size}})
		}
		if want := len(ref.runs) > 0 && ref.dropping; (*calls == 1) != want {
			t.Fatalf("OnDrop called %d times", *calls)
		}
		if o.Retain == Last {
			ref.scroll(o.Scrollback)
		}
		agree(t, tr, ref)
	})
}

// FuzzCursor appends records of both streams that script chooses, with marks between them, and
// reads them from an offset with a buffer of any size, before and after Seal.
func FuzzCursor(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, uint32(3), uint16(5))
	f.Add([]byte{255, 255, 0, 254, 6, 255, 251, 247}, uint32(70_000), uint16(60_000))
	f.Add([]byte{9, 13, 9, 13, 7, 11, 3}, uint32(0), uint16(1))
	s := openFuzzStore(f)
	f.Fuzz(func(t *testing.T, script []byte, after uint32, size uint16) {
		tr := s.Create("t", Options{Limit: 1 << 30})
		defer func() { _ = tr.Remove() }()
		var all strings.Builder
		var marks []int64
		script = script[:min(len(script), 200)]
		for i, op := range script {
			if op%16 == 7 {
				tr.Mark(i)
				marks = append(marks, int64(all.Len()))
				continue
			}
			n := 1 + int(op>>2)*int(op>>2)*int(op>>2)/8
			data := strings.Repeat(fmt.Sprint(i, " "), n/2+1)[:n]
			c := chunk{stream: Stream(op & 1), body: []byte(data)}
			if op&2 != 0 {
				c.truncated, c.marker = true, marker
			}
			tr.append(c)
			all.WriteString(data + string(c.marker))
		}
		for _, sealed := range []bool{false, true} {
			if sealed {
				tr.Seal()
			}
			from := int64(after) % int64(all.Len()+1)
			checkReplay(t, tr, from, 1+int(size), all.String(), marks[max(0, len(marks)-maxMarks):], sealed)
		}
	})
}

func checkReplay(t *testing.T, tr *Transcript, from int64, size int, all string, marks []int64, sealed bool) {
	t.Helper()
	for len(marks) > 0 && marks[0] < from {
		marks = marks[1:]
	}
	c, err := tr.Cursor(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, size)
	for {
		p, err := c.Next(buf)
		if err != nil {
			if (err == io.EOF) != sealed || from != int64(len(all)) || len(marks) != 0 {
				t.Fatalf("%v at %d of %d with %d marks left", err, from, len(all), len(marks))
			}
			return
		}
		if p.Mark != nil {
			if len(marks) == 0 || marks[0] != from {
				t.Fatalf("mark %v at %d", p.Mark, from)
			}
			marks = marks[1:]
			continue
		}
		if p.Gap != 0 || !strings.HasPrefix(all[from:], string(p.Data)) {
			t.Fatalf("at %d: gap %d, or not what was written", from, p.Gap)
		}
		from += int64(len(p.Data))
		if len(marks) > 0 && from > marks[0] {
			t.Fatalf("a piece crosses the mark at %d", marks[0])
		}
	}
}

func openFuzzStore(f *testing.F) *Store {
	s, err := Open(Config{Dir: f.TempDir(), Budget: 1 << 30})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	return s
}
