package transcript

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// model says what a transcript of any kind holds. Like reference, it shares nothing with the real
// thing: it keeps every byte, and knows where the kept ones begin.
type model struct {
	retain     Retain
	scrollback int
	all        []byte
	record     []int  // Of each byte.
	kinds      []byte // Of each record: bit 0 the stream, bit 1 truncated.
	acked      int
	marks      []int // Offsets.
}

func (m *model) start() int {
	switch m.retain {
	case Unread:
		return m.acked
	case Last:
		return max(0, len(m.all)-m.scrollback)
	}
	return 0
}

func (m *model) append(c chunk) {
	kind := byte(c.stream)
	if c.truncated {
		kind |= 2
	}
	m.kinds = append(m.kinds, kind)
	for _, part := range [][]byte{c.held, c.body, c.marker} {
		for range part {
			m.record = append(m.record, len(m.kinds)-1)
		}
		m.all = append(m.all, part...)
	}
}

// follower is a cursor and what it must return next.
type follower struct {
	c    *Cursor
	at   int
	mark int
}

func (m *model) follow(t *testing.T, tr *Transcript, after int) *follower {
	t.Helper()
	c, err := tr.Cursor(int64(after), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{c: c, at: after}
	for f.mark < len(m.marks) && m.marks[f.mark] < after {
		f.mark++
	}
	return f
}

// next takes one piece and checks it. It returns false at the end.
func (m *model) next(t *testing.T, f *follower, buf []byte, sealed bool) bool {
	t.Helper()
	p, err := f.c.Next(buf)
	f.mark = max(f.mark, len(m.marks)-maxMarks)
	wantMark := f.mark < len(m.marks) && m.marks[f.mark] <= f.at
	switch {
	case wantMark:
		if err != nil || p.Mark != f.mark || int(p.Offset) != f.at {
			t.Fatalf("at %d: %+v %v, want mark %d", f.at, p, err, f.mark)
		}
		f.mark++
		return true
	case f.at == len(m.all):
		if want := map[bool]error{false: ErrWait, true: io.EOF}[sealed]; err != want {
			t.Fatalf("at the end: %+v %v, want %v", p, err, want)
		}
		return false
	case f.at < m.start():
		if err != nil || int(p.Gap) != m.start()-f.at || int(p.Offset) != m.start() {
			t.Fatalf("at %d: gap %d to %d, %v, want one to %d", f.at, p.Gap, p.Offset, err, m.start())
		}
		f.at = m.start()
		return true
	}
	if err != nil || p.Gap != 0 || len(p.Data) == 0 || !bytes.HasPrefix(m.all[f.at:], p.Data) {
		t.Fatalf("at %d: gap %d, %d bytes, %v: not what was written", f.at, p.Gap, len(p.Data), err)
	}
	first := m.record[f.at]
	for i := range p.Data {
		r := m.record[f.at+i]
		if m.kinds[r]&1 != byte(p.Stream) || m.kinds[r]&2 != 0 != p.Truncated || p.Truncated && r != first {
			t.Fatalf("at %d: a piece of %s, truncated %v, holds a byte of another kind", f.at, p.Stream, p.Truncated)
		}
	}
	f.at += len(p.Data)
	if int(p.Offset) != f.at || f.mark < len(m.marks) && f.at > m.marks[f.mark] {
		t.Fatalf("a piece ends at %d, says %d, or crosses a mark", f.at, p.Offset)
	}
	return true
}

// FuzzRetain appends records, acknowledges, marks and reads as script says, to a transcript of any
// kind, and compares what one reader sees meanwhile, and another one afterwards, with the model.
func FuzzRetain(f *testing.F) {
	f.Add(byte(1), uint32(0), uint16(100), uint32(5), []byte("abcdefgh\xff\xfe\xf9\xfa\xfd\xfe\xff"))
	f.Add(byte(2), uint32(70_000), uint16(60_000), uint32(0), bytes.Repeat([]byte{248, 255, 241, 9, 7, 250, 6}, 20))
	f.Add(byte(1), uint32(0), uint16(9000), uint32(1<<20), bytes.Repeat([]byte{248, 253, 249, 7, 250, 29}, 30))
	f.Add(byte(2), uint32(1), uint16(1), uint32(99), bytes.Repeat([]byte{0, 1, 7, 2, 6}, 40))
	s := openFuzzStore(f)
	f.Fuzz(func(t *testing.T, kind byte, scrollback uint32, size uint16, after uint32, script []byte) {
		m := &model{retain: Retain(kind % 3), scrollback: int(scrollback % (2 << 20))}
		tr := s.Create("t", Options{
			Retain: m.retain, Limit: 1 << 30, Scrollback: int64(m.scrollback), Times: m.scrollback%2 > 0,
		})
		defer func() { _ = tr.Remove() }()
		reader, buf := m.follow(t, tr, 0), make([]byte, 1+int(size))
		defer func() { reader.c.Close() }()
		for i, op := range script[:min(len(script), 200)] {
			switch n := int(op >> 3); op % 8 {
			case 5:
				m.acked += (len(m.all) - m.acked) * n / 31
				tr.Ack(int64(m.acked))
			case 6:
				tr.Mark(len(m.marks))
				m.marks = append(m.marks, len(m.all))
			case 7:
				for range n + 1 {
					m.next(t, reader, buf, false)
				}
			default:
				text := strings.Repeat(fmt.Sprint(i, " "), n*n*n+1)
				if m.retain == Unread && len(m.all)-m.acked+len(text) > UnreadWindow {
					continue // It would wait, perhaps in its middle.
				}
				c := chunk{stream: Stream(op & 1), held: []byte(text[:1]), body: []byte(text[1:])}
				if op&2 != 0 {
					c.truncated, c.marker = true, marker
				}
				if got := tr.append(c); got != c.size() {
					t.Fatalf("%d of %d bytes were taken", got, c.size())
				}
				m.append(c)
			}
			if size := tr.recycled; size != nil && m.retain == Unread && size.size >= 4<<20 {
				t.Fatalf("%d bytes of file", size.size)
			}
		}
		for m.next(t, reader, buf, false) {
		}
		tr.Seal()
		late := m.follow(t, tr, int(after)%(len(m.all)+1))
		defer late.c.Close()
		for m.next(t, late, buf, true) {
		}
		for m.next(t, reader, buf, true) {
		}
		addsUp(t, s)
	})
}
