package transcript

import (
	"bytes"
	"runtime"
	"testing"
	"unsafe"
)

// Output is written and read without allocating, whatever it looks like.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	line := append(bytes.Repeat([]byte("x"), 79), '\n')
	lines64k := bytes.Repeat(line, 820)[:64<<10] // Ends inside a line.
	for name, tc := range map[string]struct {
		cfg    WriterConfig
		limit  int64
		input  []byte
		retain Retain
	}{
		"4 KiB of lines":    {WriterConfig{Lines: true}, 1 << 40, lines64k[:4096], First},
		"64 KiB of lines":   {WriterConfig{Lines: true}, 1 << 40, lines64k, First},
		"single lines":      {WriterConfig{Lines: true}, 1 << 40, line, First},
		"truncated lines":   {WriterConfig{Lines: true, MaxLine: 10}, 1 << 40, lines64k[:4096], First},
		"raw, parts of é":   {WriterConfig{WholeRunes: true}, 1 << 40, []byte("\xa9é\xc3"), First},
		"past the limit":    {WriterConfig{Lines: true}, 1000, lines64k, First},
		"flushed each time": {WriterConfig{Lines: true, WholeRunes: true}, 1 << 40, []byte("\xa9 prompt \xc3"), First},
		"a progress bar":    {WriterConfig{Lines: true}, 1 << 40, []byte("\r10%\r20%\r"), First},
		"unread":            {WriterConfig{}, 0, lines64k, Unread},
		"unread, one byte":  {WriterConfig{}, 0, line[:1], Unread},
		"last":              {WriterConfig{}, 1 << 20, lines64k, Last},
		"last, lines":       {WriterConfig{Lines: true}, 1 << 20, line, Last},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, 1<<40)
			tr := s.Create("t", Options{Retain: tc.retain, Limit: tc.limit, Scrollback: tc.limit})
			tr.index.items = make([]indexEntry, 0, 4096) // Grows by 16 bytes per 64 KiB: amortised, but not nothing.
			w := tr.Writer(Stdout, tc.cfg)
			woken := 0
			c, _ := tr.Cursor(0, func() { woken++ })
			defer c.Close()
			buf := make([]byte, 64<<10)
			step := func() {
				_, _ = w.Write(tc.input)
				if w.Pending() {
					w.Flush()
				}
				for {
					if _, err := c.Next(buf); err != nil {
						break
					}
				}
				tr.Ack(c.Offset())
			}
			for range 20 {
				step()
			}
			if n := testing.AllocsPerRun(200, step); n != 0 {
				t.Errorf("%v allocations per write and read", n)
			}
			if tc.limit != 1000 && woken == 0 {
				t.Error("no reader was woken")
			}
		})
	}
}

// A transcript needs the memory that the package comment promises: some hundred bytes, and 16 for
// each 64 KiB.
func TestMemoryOfATranscript(t *testing.T) {
	s := openStore(t, 1<<40)
	if n := unsafe.Sizeof(Transcript{}); n > 600 {
		t.Errorf("a transcript is %d bytes", n)
	}
	if n := unsafe.Sizeof(Cursor{}); n > 500 {
		t.Errorf("a cursor is %d bytes", n)
	}
	if n := unsafe.Sizeof(recycler{}); n > 350 {
		t.Errorf("an Unread or Last transcript has %d bytes more", n)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // The second one empties the pools, which would be counted as freed later.
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	piece := bytes.Repeat(append(bytes.Repeat([]byte("x"), 79), '\n'), 800)
	all := make([]*Transcript, 20)
	before := heap()
	for i := range all {
		all[i] = s.Create("t", Options{Limit: 10 << 20})
		w := all[i].Writer(Stdout, WriterConfig{Lines: true})
		for range 170 {
			_, _ = w.Write(piece)
		}
		w.Close()
		all[i].Seal()
	}
	each := (heap() - before) / int64(len(all))
	t.Logf("%d bytes of heap for each sealed transcript of 10 MiB", each)
	index := int64(cap(all[0].index.items)) * int64(unsafe.Sizeof(indexEntry{}))
	t.Logf("of a transcript %d bytes, of a cursor %d, of an index %d", unsafe.Sizeof(Transcript{}),
		unsafe.Sizeof(Cursor{}), index)
	if each > 4<<10 || index > 3<<10 {
		t.Errorf("%d bytes of heap for each transcript of 10 MiB, %d of index", each, index)
	}
	// The worst case: a record for each byte has two bytes of file.
	tr := s.Create("t", Options{Limit: 1 << 20})
	w := tr.Writer(Stdout, WriterConfig{})
	for range 100_000 {
		_, _ = w.Write(piece[:1])
	}
	if want := int(tr.fileEnd/indexEvery) + 1; tr.fileEnd != 200_000 || tr.index.len() > want {
		t.Errorf("%d index entries for %d bytes of file", tr.index.len(), tr.fileEnd)
	}
	runtime.KeepAlive(all)
}
