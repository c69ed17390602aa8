package transcript

import (
	"errors"
	"math/rand"
	"testing"
	"testing/synctest"
	"time"
)

// Every byte that is kept has its time, whether it came in a flood or alone, wherever a cursor begins,
// and after the records before it gave way.
func TestTimesAreThoseOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, 1<<30)
		tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20, Times: true})
		w := tr.Writer(Stdout, WriterConfig{})
		random := rand.New(rand.NewSource(5))
		var arrived []time.Time // of each byte
		for len(arrived) < 3<<20 {
			size := 1
			switch random.Intn(3) {
			case 0:
				time.Sleep(time.Duration(random.Intn(300)) * time.Millisecond)
				size = 1 + random.Intn(70)
			case 1:
				time.Sleep(time.Duration(random.Intn(3000)) * time.Microsecond)
			case 2:
				size = 1 + random.Intn(100<<10)
			}
			_, _ = w.Write(numbered(int64(len(arrived)), size))
			for range size {
				arrived = append(arrived, time.Now())
			}
		}
		end := int64(len(arrived))
		for from := end - 1<<20; from < end; from += 1 + random.Int63n(32<<10) {
			checkTimes(t, tr, from, arrived)
		}
		if err := tr.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func checkTimes(t *testing.T, tr *Transcript, from int64, arrived []time.Time) {
	t.Helper()
	c, err := tr.Cursor(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SplitTimes()
	buf := make([]byte, 8<<10)
	for {
		p, err := c.Next(buf)
		if errors.Is(err, ErrWait) {
			return
		}
		if err != nil || p.Gap > 0 {
			t.Fatalf("from %d: %+v, %v", from, p, err)
		}
		first := p.Offset - int64(len(p.Data))
		for at := first; at < p.Offset; at++ {
			if late := arrived[at].Sub(p.At); late < 0 || late > (timeStep+1)*time.Millisecond {
				t.Fatalf("from %d: byte %d of a piece at %d is told to have arrived %v earlier than it did", from, at, first, late)
			}
		}
		if string(p.Data) != string(numbered(first, len(p.Data))) {
			t.Fatalf("from %d: other bytes at %d", from, first)
		}
	}
}

// A reader who does not ask for times gets pieces as long as those of a transcript without.
func TestTimesCutNoPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, 1<<30)
		tr := s.Create("t", Options{Retain: Last, Scrollback: 1 << 20, Times: true})
		w := tr.Writer(Stdout, WriterConfig{})
		for i := range int64(100) {
			_, _ = w.Write(numbered(40*i, 40))
			time.Sleep(20 * time.Millisecond)
		}
		c, err := tr.Cursor(0, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Next(make([]byte, 64<<10))
		if err != nil || len(p.Data) != 4000 || string(p.Data) != string(numbered(0, 4000)) {
			t.Errorf("got a piece of %d bytes, %v", len(p.Data), err)
		}
		c.Close()
		if err := tr.Remove(); err != nil {
			t.Error(err)
		}
	})
}
