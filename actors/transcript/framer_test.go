package transcript

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"testing"
)

// frameWith writes input, cut at the places given and flushed there if asked, to a transcript.
func frameWith(t testing.TB, s *Store, cfg WriterConfig, limit int64, input []byte, cuts []int,
	flush bool,
) *Transcript {
	t.Helper()
	tr := s.Create("test", Options{Limit: limit})
	w := tr.Writer(Stdout, cfg)
	scratch := make([]byte, 0, len(input))
	at := 0
	for _, cut := range append(cuts, len(input)) {
		scratch = append(scratch[:0], input[at:cut]...)
		if n, err := w.Write(scratch); n != len(scratch) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		clear(scratch) // The writer must not keep the caller's buffer.
		at = cut
		if flush && cut < len(input) {
			w.Flush()
			if w.Pending() {
				t.Fatal("Pending after Flush")
			}
		}
	}
	w.Close()
	tr.Seal()
	return tr
}

func referenceOf(cfg WriterConfig, limit int64, input []byte, cuts []int, flush bool) *reference {
	r := newReference(limit, cfg)
	at := 0
	for _, cut := range append(cuts, len(input)) {
		r.write(Stdout, input[at:cut])
		at = cut
		if flush && cut < len(input) {
			r.flush(Stdout, false)
		}
	}
	r.flush(Stdout, true)
	return r
}

func agree(t testing.TB, tr *Transcript, r *reference) {
	t.Helper()
	got, err := readFrom(t, tr, 0, 1+int(min(tr.End(), 32<<10)))
	if err != io.EOF {
		t.Fatalf("ended with %v", err)
	}
	sameRuns(t, got, r.runs)
	want := r.counts
	want.OutputBytes = r.size
	if want.DroppedBytes > 0 {
		want.DropReason = DropLimit
	}
	if got := tr.Counts(); got != want {
		t.Fatalf("counts\ngot  %+v\nwant %+v", got, want)
	}
	balance(t, tr, r.produced)
	if err := tr.Remove(); err != nil {
		t.Fatal(err)
	}
}

// This test holds the reference itself to what the design says in words.
func TestLineOfExactlyTheLimitIsWhole(t *testing.T) {
	s := openStore(t, 1<<30)
	for _, tc := range []struct {
		name, in, want string
		truncated      int64
		skipped        int64
	}{
		{"8191", fill(8191) + "\n", fill(8191) + "\n", 0, 0},
		{"8192", fill(8192) + "\n", fill(8192) + "\n", 0, 0},
		{"8193", fill(8193) + "\n", fill(8192) + "[TRUNCATED]\n", 1, 2},
		{"10MiB", fill(10<<20) + "\nnext\n", fill(8192) + "[TRUNCATED]\nnext\n", 1, 10<<20 - 8192 + 1},
		{"8191 unterminated", fill(8191), fill(8191), 0, 0},
		{"8192 unterminated", fill(8192), fill(8192), 0, 0},
		{"8193 unterminated", fill(8193), fill(8192) + "[TRUNCATED]\n", 1, 1},
		{"10MiB unterminated", fill(10 << 20), fill(8192) + "[TRUNCATED]\n", 1, 10<<20 - 8192},
		{"2 bytes across", fill(8191) + "é\n", fill(8191) + "[TRUNCATED]\n", 1, 3},
		{"3 bytes, 2 inside", fill(8190) + "€\n", fill(8190) + "[TRUNCATED]\n", 1, 4},
		{"4 bytes, 1 inside", fill(8191) + "𝄞\n", fill(8191) + "[TRUNCATED]\n", 1, 5},
		{"4 bytes fit", fill(8188) + "𝄞\n", fill(8188) + "𝄞\n", 0, 0},
		{"4 bytes fit, then more", fill(8188) + "𝄞.\n", fill(8188) + "𝄞[TRUNCATED]\n", 1, 2},
		{"not UTF-8", fill(8190) + "\xbf\xbf\xbf\n", fill(8190) + "\xbf\xbf[TRUNCATED]\n", 1, 2},
		{"not UTF-8 at the limit", fill(8191) + "\xff\xff\n", fill(8191) + "\xff[TRUNCATED]\n", 1, 2},
		{"empty lines", "\n\n\n", "\n\n\n", 0, 0},
		{"8192 and CRLF", fill(8192) + "\r\n", fill(8192) + "\r\n", 0, 0},
		{"8193 and CRLF", fill(8193) + "\r\nnext\r\n", fill(8192) + "[TRUNCATED]\nnext\r\n", 1, 3},
		{"8192 and CR", fill(8192) + "\r" + fill(8192) + "\r", fill(8192) + "\r" + fill(8192) + "\r", 0, 0},
		{"8193 and CR", fill(8193) + "\r" + fill(8192), fill(8192) + "[TRUNCATED]\n" + fill(8192), 1, 2},
		{"8193 and CR CR LF", fill(8193) + "\r\r\n", fill(8192) + "[TRUNCATED]\n\r\n", 1, 2},
		{"only CR", strings.Repeat("\r", 10_000), strings.Repeat("\r", 10_000), 0, 0},
		{"a form feed ends no line", fill(8192) + "\f\n", fill(8192) + "[TRUNCATED]\n", 1, 2},
		{"nothing", "", "", 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := frameWith(t, s, WriterConfig{Lines: true, MaxLine: 8192}, 1<<30, []byte(tc.in), nil, false)
			got, _ := readFrom(t, tr, 0, 64<<10)
			if text(got) != tc.want {
				t.Fatalf("got %s", show(got))
			}
			c := tr.Counts()
			if c.TruncatedLines != tc.truncated || c.TruncatedBytes != tc.skipped {
				t.Fatalf("got %+v", c)
			}
			agree(t, tr, referenceOf(WriterConfig{Lines: true, MaxLine: 8192}, 1<<30, []byte(tc.in), nil, false))
		})
	}
}

// Only the truncated line is marked, never its neighbours.
func TestTruncatedLineStandsAlone(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := frameWith(t, s, WriterConfig{Lines: true, MaxLine: 4}, 1<<20, []byte("one\ntwo22\ntri33\nfour\n"), nil, false)
	got, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, got, []run{
		{data: "one\n"},
		{truncated: true, data: "two2[TRUNCATED]\n"},
		{truncated: true, data: "tri3[TRUNCATED]\n"},
		{data: "four\n"},
	})
}

// A client must see that a line was cut before the command ends it, which may be never.
func TestMarkerDoesNotWaitForTheNewline(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 20})
	w := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 4})
	write(t, w, "1234")
	if tr.End() != 0 || !w.Pending() {
		t.Fatal("a line that may still be whole was delivered")
	}
	write(t, w, "5")
	if got, _ := readFrom(t, tr, 0, 100); text(got) != "1234[TRUNCATED]\n" {
		t.Fatalf("got %s", show(got))
	}
	if w.Pending() {
		t.Fatal("Pending while skipping")
	}
	w.Close()
}

// The framer agrees with the reference for every rune width at every alignment to the limit, cut
// into two writes at every place, and into three that leave one byte alone at every place.
func TestFramerAgreesWithReferenceAtEverySplit(t *testing.T) {
	s := openStore(t, 1<<30)
	for _, char := range []string{"x", "é", "€", "𝄞", "\xe2\x82", "\xff", "\xf0\x9f\x98"} {
		for pad := range 5 {
			for _, end := range []string{"", "é\n€", "\r\n\r", "\rab\r\r\n"} {
				input := []byte("ab\n" + fill(4+pad) + char + end)
				for _, whole := range []bool{false, true} {
					cfg := WriterConfig{Lines: true, MaxLine: 8, WholeRunes: whole}
					everySplit(t, s, cfg, input)
				}
			}
		}
		for _, lines := range []bool{false, true} {
			everySplit(t, s, WriterConfig{Lines: lines, MaxLine: 3, WholeRunes: true}, []byte("a"+char+char+"b\n"+char))
		}
	}
}

func everySplit(t *testing.T, s *Store, cfg WriterConfig, input []byte) {
	t.Helper()
	plain := referenceOf(cfg, 1<<20, input, nil, false)
	for i := range len(input) {
		for _, j := range []int{i, i + 1} {
			if j > len(input) {
				continue
			}
			cuts := []int{i, j}
			if cfg.Lines && !cfg.WholeRunes { // Which only matters to Flush; and raw mode may cut anywhere.
				agree(t, frameWith(t, s, cfg, 1<<20, input, cuts, false), plain)
			}
			agree(t, frameWith(t, s, cfg, 1<<20, input, cuts, true), referenceOf(cfg, 1<<20, input, cuts, true))
		}
	}
}

// The test splits lines around the real limit at every place that matters, and at every 61st in
// between.
func TestRealLimitSplitAnywhere(t *testing.T) {
	s := openStore(t, 1<<30)
	cfg := WriterConfig{Lines: true, MaxLine: DefaultMaxLine}
	for _, n := range []int{8191, 8192, 8193, 8189} {
		input := []byte("first\n" + fill(n) + "€\nlast")
		want := referenceOf(cfg, 1<<20, input, nil, false)
		for cut := 0; cut <= len(input); cut++ {
			if cut > 20 && cut < 8180 && cut%61 != 0 {
				continue
			}
			agree(t, frameWith(t, s, cfg, 1<<20, input, []int{cut}, false), want)
		}
	}
}

func TestFramerAgreesWithReferenceOnRandomInput(t *testing.T) {
	s := openStore(t, 1<<30)
	rng := rand.New(rand.NewSource(1))
	for i := range 90 {
		input := randomText(rng, rng.Intn(200_000))
		cuts := randomCuts(rng, len(input))
		cfg := WriterConfig{Lines: i%4 != 0, MaxLine: []int{0, 1, 80, 8192}[rng.Intn(4)], WholeRunes: i%2 == 0}
		if cfg.MaxLine == 0 {
			cfg.MaxLine = DefaultMaxLine
		}
		limit := int64(1 << 30)
		if i%3 == 0 {
			limit = rng.Int63n(int64(len(input)) + 1)
		}
		t.Run(fmt.Sprintf("%d %+v limit %d", i, cfg, limit), func(t *testing.T) {
			agree(t, frameWith(t, s, cfg, limit, input, cuts, i%5 == 0), referenceOf(cfg, limit, input, cuts, i%5 == 0))
		})
	}
}

func randomText(rng *rand.Rand, n int) []byte {
	var b bytes.Buffer
	words := []string{"word ", "é", "€", "𝄞", "\n", "\n\n", "\r\n", "\r", "\xff", "\xe2\x82", strings.Repeat("long ", 400)}
	for b.Len() < n {
		b.WriteString(words[rng.Intn(len(words))])
		if rng.Intn(3) == 0 {
			b.WriteString(fill(rng.Intn(100)) + "\n")
		}
	}
	return b.Bytes()
}

func randomCuts(rng *rand.Rand, n int) []int {
	var cuts []int
	for at := 0; ; {
		step := 1 + rng.Intn(20)
		if rng.Intn(3) != 0 {
			step = 1 + rng.Intn(70_000)
		}
		if at += step; at > n {
			return cuts
		}
		cuts = append(cuts, at)
	}
}

// Flush delivers a prompt, but the flushed part still counts towards the length of the line, so
// that the line cannot grow without bound.
func TestFlushedPartCountsAsPartOfItsLine(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 20})
	w := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 8})
	write(t, w, "name: ")
	if !w.Pending() {
		t.Fatal("not pending")
	}
	w.Flush()
	write(t, w, "ab\n")
	write(t, w, "name: ")
	w.Flush()
	write(t, w, "abc\n")
	write(t, w, "12345678")
	w.Flush()
	write(t, w, "9\nend")
	w.Close()
	got, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, got, []run{
		{data: "name: ab\nname: "},
		{truncated: true, data: "ab[TRUNCATED]\n"},
		{data: "12345678"},
		{truncated: true, data: "[TRUNCATED]\n"},
		{data: "end"},
	})
	balance(t, tr, 9+10+10+3)
}

// Flush holds back an incomplete rune. Otherwise a client that decodes each piece would show U+FFFD
// for a rune that arrives in two writes.
func TestFlushHoldsBackAnIncompleteRune(t *testing.T) {
	s := openStore(t, 1<<30)
	for _, lines := range []bool{true, false} {
		tr := s.Create("t", Options{Limit: 1 << 20})
		w := tr.Writer(Stdout, WriterConfig{Lines: lines, WholeRunes: true})
		write(t, w, "a\xf0\x9d")
		w.Flush()
		if tr.End() != 1 || w.Pending() {
			t.Fatalf("lines %v: end %d, pending %v", lines, tr.End(), w.Pending())
		}
		write(t, w, "\x84\x9e")
		w.Flush()
		if tr.End() != 5 {
			t.Fatalf("lines %v: end %d", lines, tr.End())
		}
		write(t, w, "\xe2")
		w.Flush()
		w.Close()
		if got, _ := readFrom(t, tr, 0, 100); text(got) != "a𝄞\xe2" {
			t.Fatalf("lines %v: got %q", lines, text(got))
		}
		w.Close()
		if _, err := w.Write([]byte("x")); err != ErrClosed {
			t.Fatalf("Write after Close: %v", err)
		}
	}
}

// A progress bar that only returns the carriage is no endless line: each state is delivered before
// the next one, however long it goes on and however it is cut into writes.
func TestProgressBarIsSeenStateByState(t *testing.T) {
	s := openStore(t, 1<<30)
	for name, format := range map[string]string{"CR behind": "%3d%% done\r", "CR in front": "\r%3d%% done"} {
		t.Run(name, func(t *testing.T) {
			tr := s.Create("t", Options{Limit: 1 << 20})
			w := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 100})
			all := ""
			for i := range 1000 {
				state := fmt.Sprintf(format, i)
				write(t, w, state)
				if end := tr.End(); end < int64(len(all)-len(state)) || end > int64(len(all)+1) {
					t.Fatalf("state %d: %d bytes delivered, %d written before", i, end, len(all))
				}
				all += state
			}
			w.Flush()
			if tr.End() != int64(len(all)) || w.Pending() {
				t.Error("the last state waits for the next one")
			}
			write(t, w, "\n")
			w.Close()
			runs, _ := readFrom(t, tr, 0, 64<<10)
			if text(runs) != all+"\n" || tr.Counts().TruncatedLines != 0 {
				t.Errorf("%+v", tr.Counts())
			}
		})
	}
}

// Both bytes of a CRLF reach a reader in one record, also when they arrive in two writes: a client
// that takes each piece for whole lines sees no empty line.
func TestSplitCRLFIsOneLineEnd(t *testing.T) {
	s := openStore(t, 1<<30)
	tr := s.Create("t", Options{Limit: 1 << 20})
	w := tr.Writer(Stdout, WriterConfig{Lines: true, MaxLine: 4})
	for _, line := range []string{"", "a", "1234"} {
		before := tr.End()
		write(t, w, line+"\r")
		if tr.End() != before || !w.Pending() {
			t.Fatalf("%q was delivered without its newline", line)
		}
		write(t, w, "\n")
		if tr.End() != before+int64(len(line))+2 || w.Pending() {
			t.Fatalf("%q was not delivered with its newline", line)
		}
	}
	write(t, w, "12345")
	write(t, w, "6\r")
	write(t, w, "\n")
	w.Close()
	runs, _ := readFrom(t, tr, 0, 100)
	sameRuns(t, runs, []run{{data: "\r\na\r\n1234\r\n"}, {truncated: true, data: "1234[TRUNCATED]\n"}})
	balance(t, tr, 2+3+6+8)
}

// The output limit keeps whole states of a progress bar, and neither half a state nor half a CRLF.
func TestLimitCutsAtCarriageReturns(t *testing.T) {
	s := openStore(t, 1<<30)
	input := []byte("10%\r20%\r\n30%\r\r40%\r")
	cfg := WriterConfig{Lines: true, MaxLine: 100}
	for limit := range int64(len(input) + 1) {
		for cut := range input {
			tr := frameWith(t, s, cfg, limit, input, []int{cut}, false)
			r := referenceOf(cfg, limit, input, []int{cut}, false)
			if r.dropping { // Nothing was set to mark it.
				r.dropping = false
			}
			agree(t, tr, r)
		}
	}
}
