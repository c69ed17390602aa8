package screen

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// judge is xterm.js, as the console has it, without a browser.
type judge struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if _, err := exec.LookPath("node"); err != nil {
		skip("needs Node: %v", err)
	}
	if _, err := os.Stat("../../gateway/console/web/node_modules/@xterm/headless"); err != nil {
		skip("needs `npm ci --prefix gateway/console/web`: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/compare.mjs")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	return &judge{in: in, out: lines}
}

func (j *judge) say(t *testing.T, step map[string]any) {
	t.Helper()
	line, err := json.Marshal(step)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// compare draws the screen every stride bytes, and before and behind each change of the size.
func (j *judge) compare(t *testing.T, r recording, stride, lives int) {
	t.Helper()
	s := New(r.cols, r.rows)
	j.say(t, map[string]any{"cols": r.cols, "rows": r.rows})
	draw := func() {
		j.say(t, map[string]any{"drawing": s.Draw(), "text": s.Text(), "lives": lives})
	}
	draw()
	for _, p := range r.pieces {
		if p.cols > 0 {
			draw()
			s.Resize(p.cols, p.rows)
			j.say(t, map[string]any{"resize": []int{p.cols, p.rows}})
			draw()
			continue
		}
		for rest := p.output; len(rest) > 0; {
			n := min(stride, len(rest))
			_, _ = s.Write(rest[:n])
			j.say(t, map[string]any{"output": rest[:n]})
			draw()
			rest = rest[n:]
		}
	}
	j.say(t, map[string]any{"end": true})
	if !j.out.Scan() {
		t.Fatalf("no answer: %v", j.out.Err())
	}
	var answer struct {
		Differences int
		Report      []string
	}
	if err := json.Unmarshal(j.out.Bytes(), &answer); err != nil {
		t.Fatalf("answer %q: %v", j.out.Text(), err)
	}
	if answer.Differences > 0 {
		t.Errorf("%d differences from xterm.js:\n%s", answer.Differences, strings.Join(answer.Report, "\n"))
	}
}

// snippets each show one thing.
var snippets = []struct{ name, output string }{
	{"text", "hello\r\nworld\r\n$ "},
	{"wrapped", strings.Repeat("0123456789", 5) + "\r\nafter"},
	{"margin", strings.Repeat("x", 20) + "\x1b[31m\x1b[1my\r\n" + strings.Repeat("x", 18) + "漢\x1b[0m字"},
	{"back", "\x1b[?45h" + strings.Repeat("x", 20) + "\b\by" + strings.Repeat("\b", 19) + "\bz\r\n" + strings.Repeat("x", 22) + "\b\b\b\by"},
	{"attributes", "\x1b[1mb\x1b[2md\x1b[3mi\x1b[4mu\x1b[5mk\x1b[7mr\x1b[8mh\x1b[9ms\x1b[53mo\x1b[0mn\x1b[21mU\x1b[4:3mc\x1b[58:5:9mx\x1b[58;2;1;2;3my\x1b[59mz"},
	{"colors", "\x1b[31;42ma\x1b[91;102mb\x1b[38;5;200;48;5;17mc\x1b[38;2;1;2;3;48;2;4;5;6md\x1b[38:2::9:8:7me\x1b[39;49mf"},
	{"erasing", "\x1b[44mabc\x1b[K\r\ndef\x1b[1K\r\nxyz\x1b[2;2H\x1b[X\x1b[0m\x1b[3;1Htext\x1b[2@\x1b[3P"},
	{"wide", "漢字かなカナ漢字かな漢字\r\n漢字\b\bx\x1b[1;2Hy\x1b[1;4H\x1b[K\x1b[4;19H漢字x"},
	{"clusters", "e\u0301a\u0308o👩\u200d👩\u200d👧x🇩🇪🇫🇷🇬❤\ufe0fx한글 각 नमस्ते\r\n\u0301x 👍🏽 z\r\n" + strings.Repeat("👨\u200d👩\u200d👧", 14)},
	{"modes", "\x1b[?1h\x1b=\x1b[?1002h\x1b[?1006h\x1b[?2004h\x1b[?1004h\x1b[?25l\x1b[4h\x1b[?7l\x1b[?45h\x1b[5 q" + strings.Repeat("x", 30) + "\x1b[3Dyy\x1b[!p"},
	{"region", "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4;1Ha\nb\nc\x1bM\x1bM\x1b[2;1H\x1bM\x1b[L\x1b[2M\x1b[S\x1b[T\x1b[?6hx\x1b[9;9Hy"},
	{"charsets", "\x1b(0lqqk\x1b(Bx\x1b)0\x0elqk\x0fx\x1b7\x0eq\x1b8q\x1b*0\x1bnq\x1bo"},
	{"alternate", "normal\x1b[31m\x1b[?1049h\x1b[2Jalt\x1b[3;5Hx\x1b7\x1b[2;4rz\x1b8y\x1b[?1049lback"},
	{"title", "\x1b]0;one\x07a\x1b]2;two\x1b\\b\x1b]1;three\x07\x1b]8;;http://x/\x07link\x1b]8;;\x07 no"},
	{"tabs", "a\tb\tc\r\n\x1b[3g\x1b[4G\x1bHx\r\ty\x1b[2I\x1b[Z\x1b[0g"},
	{"saved", "\x1b[3;4H\x1b[33m\x1b7\x1b[H\x1b[0mx\x1b8y\x1b[s\x1b[uz"},
	{"repeated", "a\x1b[5b漢\x1b[3be\u0301\x1b[2b\x1b[b"},
	{"lines", "a\nb\x1b[20hc\nd\x1b[20le\x0bf\x0cg\x1bEh\x1bDi\bj\b\b\b\b\bk"},
	{"aligned", "\x1b#8\x1b[2;2H\x1b[31mx\x1b[1J\x1b[J"},
	{"strings", "\x1bPq#0;2;0\x1b\\a\x1b_hidden\x1b\\b\x1b^x\x1b\\c\x1bXy\x1b\\d\x1b[?25\x18e\x1b[1;\x1b[32mf\x1b]0;t\x18g\x1b[3\x07;1mh\x1b[<ui\x1b[1<mj"},
	{"invalid", "a\xffb\xc3c\xe2\x82d\xf0\x9f\x98e\xed\xa0\x80f\xef\xbb\xbfg\xc0\x80h\xc2\x9b31mi\xc2\x85j"},
	{"deleted wide", "漢字漢字漢字\x1b[2G\x1b[P\x1b[4G\x1b[@\x1b[6G\x1b[X\x1b[1;20H\x1b[1;19H漢\x1b[1G\x1b[@"},
}

func TestDrawingsAgreeWithXtermJS(t *testing.T) {
	j := newJudge(t)
	for _, c := range snippets {
		t.Run(c.name, func(t *testing.T) {
			j.compare(t, recording{cols: 20, rows: 6, pieces: []piece{{output: []byte(c.output)}}}, 1, 8)
		})
	}
}

func TestDrawingsOfProgramsAgreeWithXtermJS(t *testing.T) {
	j := newJudge(t)
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			j.compare(t, r, max(r.size()/300, 1), 3)
		})
	}
}

func TestEveryCharacterHasTheWidthOfTheConsole(t *testing.T) {
	newJudge(t) // says what is missing
	made, err := exec.CommandContext(t.Context(), "node", "testdata/widths.mjs").Output()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("widths.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, have) {
		t.Error("widths.go is not what `go generate ./actors/screen` makes")
	}
}
