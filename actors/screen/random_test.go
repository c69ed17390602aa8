package screen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// anything returns sequences at random, most of which programs use. It leaves out where xterm.js 6 is alone with
// what it does: RIS leaves the cursor hidden and LNM on; DECRC restores neither character sets nor underlines; a
// wide character that does not fit without autowrap is not shown and yet can be joined; links may be lost when
// lines scroll; what the alternate screen has saved outlives it; and half a wide character remains when
// something is inserted into it.
func anything(r *rand.Rand, n int, inserts bool) string {
	const ascii = "\x1b(B\x1b)B\x0f"
	texts := []string{
		"a", "\x1b[4:3;58:2::1:2:3mu\x1b[4;21mv\x1b[59;24m", "text ", "0123456789", "漢字", "e\u0301", "👩\u200d👧", "🇩🇪", "❤\ufe0f", "\u0301", "각", "ひらがな and more text", " ", "qqq",
	}
	plain := []string{
		"\r\n", "\n", "\r", "\b", "\t", "\x0e", "\x0f", "\x1bM", "\x1bD", "\x1bE", ascii + "\x1b7", ascii + "\x1b8", "\x1bH", "\x1b(0", "\x1b(B", "\x1b)0", "\x1b=", "\x1b>",
		"\x1b[!p", "\x1b[1K\x1b[?7l01234567890123456789\x1b[?7h", "\x1b[?25l", ascii + "\x1b[?1049h\x1b7", ascii + "\x1b[?1049l", ascii + "\x1b[?47h\x1b7", "\x1b[?1047l", "\x1b[?1h", "\x1b[?1000h",
		"\x1b[?1003h", "\x1b[?1006h", "\x1b[?1016l", "\x1b[?2004h", "\x1b[20h", "\x1b[20l", "\x1b[?45h", "\x1b[3g", "\x1b[r", "\x1b[0 q", "\x1b[4 q",
		"\x1b]2;title\a", "\x1bPq#1\x1b\\", "\x1b[?2026h", "\x1b[?2026l", "\x1b[?25h\x1b[20l\x1bc", "\x1b[2J", "\x1b[H",
	}
	styles := []string{
		"0", "1", "2", "3", "5", "7", "8", "9", "22", "27", "31", "42", "93", "104", "38;5;9", "48;5;200", "38;2;1;2;3", "48:2::4:5:6", "39", "49", "53",
	}
	counted := "ABCDEFGIJKLMPSTXZ`abdeg"
	if inserts {
		texts = []string{"a", "text ", "e\u0301", "0123456789"}
		plain = append(plain, "\x1b[4h", "\x1b[4h", "\x1b[4l")
		counted += "@@@"
	}
	var b strings.Builder
	for range n {
		switch r.IntN(10) {
		case 0, 1, 2:
			b.WriteString(texts[r.IntN(len(texts))])
		case 3, 4:
			b.WriteString(plain[r.IntN(len(plain))])
		case 5:
			fmt.Fprintf(&b, "\x1b[%s;%sm", styles[r.IntN(len(styles))], styles[r.IntN(len(styles))])
		case 6:
			fmt.Fprintf(&b, "\x1b[%d;%dH", r.IntN(9), r.IntN(22))
		case 7:
			fmt.Fprintf(&b, "\x1b[%d;%dr", r.IntN(7), r.IntN(8))
		default:
			fmt.Fprintf(&b, "\x1b[%d%c", r.IntN(5), counted[r.IntN(len(counted))])
		}
	}
	return b.String()
}

func TestDrawingsOfAnythingAgreeWithXtermJS(t *testing.T) {
	j := newJudge(t)
	for seed := range uint64(32) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			output := anything(rand.New(rand.NewPCG(seed, 1)), 100, seed%4 == 3)
			j.compare(t, recording{cols: 20, rows: 6, pieces: []piece{{output: []byte(output)}}}, 5, 6)
			if t.Failed() {
				t.Logf("output %q", output)
			}
		})
	}
}
