package screen

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// TestResizeInTheMiddleOfACharacter: a mark that comes behind a new size joins no character that is not there.
func TestResizeInTheMiddleOfACharacter(t *testing.T) {
	s := New(10, 2)
	_, _ = s.Write([]byte("木"))
	s.Resize(1, 2)
	_, _ = s.Write([]byte("\u0301\x1b[mxyyyyyyyy"))
	s.Resize(10, 2)
	_, _ = s.Write([]byte("\u0301z"))
	_ = s.Draw()
}

// TestSizesMayChangeAtAnyByte: no order of output and sizes ends the program.
func TestSizesMayChangeAtAnyByte(t *testing.T) {
	parts := []string{
		"木", "a", "\u0301", "👨‍👩‍👧", "\u200d", "ㅎ", "ㅏ", "ㄴ", "\x1b[m", "\r", "\n", "\b", "\t", "\x1b[4h", "\x1b[?7l", "\x1b[?7h",
		"\x1b[?1049h", "\x1b[?1049l", "\x1b7", "\x1b8", "\x1b[5b", "\x1b[2;3H", "\x1b[K", "\x1b[3P", "\x1b[2@", "\x1b[?45h", "xxxxxx",
	}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := New(1+r.IntN(9), 1+r.IntN(4))
		for range 40 {
			if r.IntN(4) == 0 {
				s.Resize(1+r.IntN(9), 1+r.IntN(4))
			} else {
				_, _ = s.Write([]byte(parts[r.IntN(len(parts))]))
			}
		}
		_, _ = New(s.Size()).Write(s.Draw())
	}
}

// TestResizeIsBounded: a screen full of text that is wrapped anew to single columns takes little memory.
func TestResizeIsBounded(t *testing.T) {
	for _, to := range [][2]int{{1, 500}, {1, 32}, {7, 100}} {
		s := New(1000, 32)
		_, _ = s.Write([]byte(strings.Repeat("x", 32_000-2000) + "\r\n\r\n" + strings.Repeat("y", 1500)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.Resize(to[0], to[1])
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%v: %d bytes", to, used)
		}
	}
}
