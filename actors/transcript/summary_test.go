package transcript

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// whole is all that a transcript has had up to some place.
type whole string

// everything is a Summary that forgets nothing.
type everything struct {
	text    strings.Builder
	full    int // Bytes at which it gives up; 0: never.
	dropped int
}

func (e *everything) Extend(next func([]byte) (Piece, error)) bool {
	buf := make([]byte, 7000)
	for {
		p, err := next(buf)
		if errors.Is(err, io.EOF) {
			return e.full == 0 || e.text.Len() < e.full
		}
		if err != nil {
			return false
		}
		if p.Mark != nil {
			fmt.Fprintf(&e.text, "<%v>", p.Mark)
		}
		e.text.Write(p.Data)
	}
}

func (e *everything) Marks() []any { return []any{whole(e.text.String())} }
func (e *everything) Drop()        { e.dropped++ }

// story reads from a cursor until there is nothing to read, and returns what it came to: what stands
// for missing bytes takes the place of all that came before.
func story(t *testing.T, c *Cursor, buf []byte, before string) (text string, gaps int) {
	t.Helper()
	text = before
	missing := false
	for {
		p, err := c.Next(buf)
		switch {
		case errors.Is(err, ErrWait), errors.Is(err, io.EOF):
			if missing {
				t.Error("nothing stands for a gap")
			}
			return text, gaps
		case err != nil:
			t.Fatal(err)
		}
		all, isAll := p.Mark.(whole)
		switch {
		case p.Gap > 0:
			missing = true
			gaps++
		case isAll:
			text, missing = string(all), false
		case missing:
			t.Fatalf("%+v comes before what stands for the gap", p)
		case p.Mark != nil:
			text += fmt.Sprintf("<%v>", p.Mark)
		default:
			text += string(p.Data)
		}
	}
}

// A reader that comes back after it lost a part of what stands for a gap gets it again.
func TestASummaryIsRepeatedAtItsPlace(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 100, Summary: &everything{}})
	w := tr.Writer(Stdout, WriterConfig{})
	_, _ = w.Write([]byte(strings.Repeat("a", 1000)))
	c, _ := tr.Cursor(0, nil)
	p, err := c.Next(make([]byte, 10))
	c.Close()
	if p.Gap == 0 || err != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	c, _ = tr.Cursor(p.Offset, nil)
	defer c.Close()
	if got, gaps := story(t, c, make([]byte, 10), "nonsense"); got != strings.Repeat("a", 1000) || gaps != 0 {
		t.Errorf("%d bytes, %d gaps", len(got), gaps)
	}
	w.Close()
}

// TestASummaryStandsForWhatIsGone: a reader who comes at any byte, or is overtaken at any, comes to
// the same as one who saw everything.
func TestASummaryStandsForWhatIsGone(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := openStore(t, 1<<30)
		tr := s.Create("t", Options{Retain: Last, Scrollback: 1 + r.Int64N(300<<10), Summary: &everything{}})
		w := tr.Writer(Stdout, WriterConfig{})
		want, gaps, marks := "", 0, 0
		slow, _ := tr.Cursor(0, nil)
		seen := ""
		for i := range 200 {
			piece := strings.Repeat(string(rune('a'+i%26)), 1+r.IntN(9000))
			_, _ = w.Write([]byte(piece))
			want += piece
			if r.IntN(2) == 0 {
				tr.Restate(i)
				want += fmt.Sprintf("<%d>", i)
			}
			marks = max(marks, len(tr.marks))
			if r.IntN(10) == 0 {
				var n int
				seen, n = story(t, slow, make([]byte, 1+r.IntN(20_000)), seen)
				gaps += n
				if seen != want {
					t.Fatalf("seed %d: %d bytes are not the %d of the output", seed, len(seen), len(want))
				}
			}
		}
		late, _ := tr.Cursor(0, nil)
		if got, _ := story(t, late, make([]byte, 4096), ""); got != want {
			t.Errorf("seed %d: whoever comes late sees %d bytes of %d", seed, len(got), len(want))
		}
		if most := maxMarks + 4; marks > most {
			t.Errorf("seed %d: %d marks, want at most %d", seed, marks, most)
		}
		slow.Close()
		late.Close()
		w.Close()
		_ = tr.Remove()
		if seed == 0 && gaps == 0 {
			t.Error("the slow reader was never overtaken")
		}
	}
}

// The end of a command whose survivors go on, and warnings, reach a reader that comes when the bytes around them are
// gone; and only so many of them are kept.
func TestASummaryLeavesTheOtherMarks(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 100, Summary: new(resized)})
	w := tr.Writer(Stdout, WriterConfig{})
	for i := range 2 * maxMarks {
		_, _ = w.Write(make([]byte, 300))
		tr.Restate(i)
		if i%2 == 0 {
			tr.Mark("other")
		}
	}
	tr.Mark("completed")
	_, _ = w.Write(make([]byte, 1000))
	runs, _ := readFrom(t, tr, 0, 100)
	others, completed := 0, 0
	for _, r := range runs {
		switch r.mark {
		case "other":
			others++
		case "completed":
			completed++
		}
	}
	if completed != 1 || others < maxMarks/2 || len(tr.marks) > maxMarks+2 {
		t.Errorf("%d other marks, %d ends of %d marks", others, completed, len(tr.marks))
	}
	w.Close()
	_ = tr.Remove()
}

// resized is a Summary of nothing, which counts how often it is extended.
type resized struct{ extended int }

func (r *resized) Extend(next func([]byte) (Piece, error)) bool {
	r.extended++
	buf := make([]byte, 4096)
	for {
		if _, err := next(buf); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

func (r *resized) Marks() []any { return []any{whole("")} }
func (r *resized) Drop()        {}

// Marks that give way do so several at a time, because a Summary may cost the same for one as for many.
func TestManyMarksAreSummarizedTogether(t *testing.T) {
	s := openStore(t, 1<<30)
	sum := new(resized)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20, Summary: sum})
	w := tr.Writer(Stdout, WriterConfig{})
	for i := range 1000 {
		tr.Restate(i)
		_, _ = w.Write([]byte("x"))
	}
	if sum.extended > 1000/3 {
		t.Errorf("it was extended %d times", sum.extended)
	}
	w.Close()
	_ = tr.Remove()
}

// A Summary that gives up in the middle leaves no reader behind, which would keep the file open.
func TestASummaryThatGivesUpHoldsNoFile(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 100, Summary: new(halfway)})
	w := tr.Writer(Stdout, WriterConfig{})
	_, _ = w.Write(make([]byte, 10_000))
	w.Close()
	tr.Seal()
	if tr.readers != 0 || tr.file != nil {
		t.Errorf("%d readers, file %v", tr.readers, tr.file)
	}
	_ = tr.Remove()
}

// halfway gives up after the first piece.
type halfway struct{ resized }

func (*halfway) Extend(next func([]byte) (Piece, error)) bool {
	_, _ = next(make([]byte, 10))
	return false
}

// A reader that is overtaken in the middle of what stands for a gap begins anew.
func TestASummaryIsReplacedByALaterOne(t *testing.T) {
	s := openStore(t, 1<<30)
	sum := &everything{}
	tr := s.Create("t", Options{Retain: Last, Scrollback: 100, Summary: sum})
	w := tr.Writer(Stdout, WriterConfig{})
	_, _ = w.Write([]byte(strings.Repeat("a", 1000)))
	c, _ := tr.Cursor(0, nil)
	if p, err := c.Next(make([]byte, 10)); p.Gap == 0 || err != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	_, _ = w.Write([]byte(strings.Repeat("b", 1000)))
	if got, _ := story(t, c, make([]byte, 10), ""); got != strings.Repeat("a", 1000)+strings.Repeat("b", 1000) {
		t.Errorf("%d bytes", len(got))
	}
	c.Close()
	w.Close()
	_ = tr.Remove()
	if sum.dropped != 1 {
		t.Errorf("it was dropped %d times", sum.dropped)
	}
}

// A size that is void makes no reader see two, and one who has seen it sees the new one.
func TestRestateReplaces(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 100})
	c, _ := tr.Cursor(0, nil)
	defer c.Close()
	tr.Mark("warning")
	tr.Restate(1)
	if got, _ := story(t, c, make([]byte, 10), ""); got != "<warning><1>" {
		t.Errorf("%s", got)
	}
	for i := range 10_000 {
		tr.Restate(i)
	}
	if got, _ := story(t, c, make([]byte, 10), ""); got != "<9999>" {
		t.Errorf("%s", got)
	}
	late, _ := tr.Cursor(0, nil)
	defer late.Close()
	if got, _ := story(t, late, make([]byte, 10), ""); got != "<warning><9999>" || len(tr.marks) != 2 {
		t.Errorf("%s, %d marks", got, len(tr.marks))
	}
}

// A Summary that gives up leaves its readers with a gap, and is not asked again.
func TestASummaryMayGiveUp(t *testing.T) {
	s := openStore(t, 1<<30)
	sum := &everything{full: 5000}
	tr := s.Create("t", Options{Retain: Last, Scrollback: 1000, Summary: sum})
	w := tr.Writer(Stdout, WriterConfig{})
	for range 10 {
		_, _ = w.Write(make([]byte, 1000))
		for i := range 2 * maxMarks {
			tr.Mark(i)
		}
	}
	w.Close()
	tr.Seal()
	runs, _ := readFrom(t, tr, 0, 100)
	if sum.dropped != 1 || sum.text.Len() > 7000 || len(runs) == 0 || len(tr.marks) > maxMarks {
		t.Errorf("dropped %d times, %d bytes, %d marks", sum.dropped, sum.text.Len(), len(tr.marks))
	}
}

// A disk that is full makes a transcript keep less; what stands for that is right, too.
func TestASummaryTakesInWhatAFullDiskCosts(t *testing.T) {
	s := openStore(t, 1<<30)
	full := false
	s.fallocate = func(fd int, offset, size int64) error {
		if full {
			return unix.ENOSPC
		}
		return unix.Fallocate(fd, 0, offset, size)
	}
	tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20, Summary: &everything{}})
	w := tr.Writer(Stdout, WriterConfig{})
	var want strings.Builder
	for i := range 100 {
		full = i > 20
		piece := strings.Repeat(string(rune('a'+i%26)), 10_000)
		_, _ = w.Write([]byte(piece))
		want.WriteString(piece)
	}
	c, _ := tr.Cursor(0, nil)
	defer c.Close()
	if got, gaps := story(t, c, make([]byte, 4096), ""); got != want.String() || gaps == 0 {
		t.Errorf("%d of %d bytes, %d gaps", len(got), want.Len(), gaps)
	}
	w.Close()
}

// Readers of any pace beside a writer that never waits.
func TestASummaryIsRightBesideAFastWriter(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Retain: Last, Scrollback: 64 << 10, Summary: &everything{}})
	w := tr.Writer(Stdout, WriterConfig{})
	var want strings.Builder
	for i := range 400 {
		want.WriteString(strings.Repeat(string(rune('a'+i%26)), 5000))
	}
	var all sync.WaitGroup
	for n := range 4 {
		arrived := make(chan struct{}, 1)
		c, _ := tr.Cursor(0, func() {
			select {
			case arrived <- struct{}{}:
			default:
			}
		})
		all.Go(func() {
			defer c.Close()
			got := ""
			for len(got) < want.Len() {
				got, _ = story(t, c, make([]byte, 100<<n), got)
				if len(got) < want.Len() {
					<-arrived
				}
			}
			if got != want.String() {
				t.Error("a reader sees something else")
			}
		})
	}
	text := want.String()
	for len(text) > 0 {
		n := min(len(text), 5000)
		_, _ = w.Write([]byte(text[:n]))
		text = text[n:]
	}
	all.Wait()
	w.Close()
}
