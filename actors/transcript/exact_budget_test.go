package transcript

import "testing"

// TestBudgetIsUsedToTheLastByte: a record that fills it exactly is kept, one that is a byte longer
// is not.
func TestBudgetIsUsedToTheLastByte(t *testing.T) {
	const size = 100
	for more, kept := range map[int]bool{0: true, 1: false} {
		s := openStore(t, size+longHeader)
		tr := s.Create("t", Options{Limit: 1 << 20})
		w := tr.Writer(Stdout, WriterConfig{Lines: true})
		write(t, w, fill(size+more-1)+"\n")
		w.Close()
		tr.Seal()
		if c := tr.Counts(); (c.DroppedLines == 0) != kept {
			t.Errorf("a line of %d bytes: dropped %d lines, want it kept: %v", size+more, c.DroppedLines, kept)
		}
		addsUp(t, s)
	}
}

// TestSealedTwiceCountsOnce: a transcript that is sealed again can still be evicted only once.
func TestSealedTwiceCountsOnce(t *testing.T) {
	s := openStore(t, 300)
	tr := sealedWith(t, s, "t", fill(200))
	tr.Seal()
	addsUp(t, s)
	sealedWith(t, s, "next", fill(250))
	if st := s.Stats(); st.Evicted != 1 || st.Bytes != 250+longHeader {
		t.Errorf("%+v", st)
	}
	addsUp(t, s)
}
