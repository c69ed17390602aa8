package transcript

import (
	"bytes"
	"unicode/utf8"
)

// DefaultMaxLine is the MaxLine of a WriterConfig that does not set one.
const DefaultMaxLine = 8192

// A held line and what one write adds to it must fit in one record.
const (
	maxMaxLine = 1 << 27
	maxWrite   = 1 << 28
)

// marker ends a truncated line. Its newline keeps the line structure of joined output.
var marker = []byte("[TRUNCATED]\n")

var newline = []byte{'\n'}

// WriterConfig says how a stream is framed.
type WriterConfig struct {
	// Lines applies the line rule; see Writer. False: bytes pass unchanged as they arrive.
	Lines bool
	// MaxLine is the most bytes a line may have, what ends it excluded. 0: DefaultMaxLine. At most
	// 128 MiB.
	MaxLine int
	// WholeRunes holds back the bytes of an incomplete rune (at most 3) at the end of the deliverable
	// bytes, until more bytes arrive or Close is called. False: such bytes are delivered as they
	// arrive.
	WholeRunes bool
}

// Writer frames one stream of a transcript. It is used by one goroutine; the two writers of a
// transcript may run at the same time. It holds at most one line.
//
// In line mode a line of at most MaxLine bytes is delivered whole, once its end has arrived. Of a
// longer line, at most MaxLine bytes are delivered, then "[TRUNCATED]" and a newline, as soon as
// the line is known to be longer; the rest up to and including its end is skipped. Bytes at the
// limit that begin a rune which does not fit are left out; where the bytes are not UTF-8, the cut
// is at the limit. Bytes that Flush delivered count as part of their line.
//
// A line ends with a newline, with a carriage return, or with both in this order, which are one end
// also if they arrive in two writes. A progress bar that only returns the carriage is therefore
// delivered state by state, and no endless line. Nothing else ends a line: form feed, vertical tab,
// backspace and escape sequences move a cursor, and programs that draw with them do so on terminals
// alone. [Counts] counts dropped lines by their newlines.
type Writer struct {
	t      *Transcript
	stream Stream
	cfg    WriterConfig

	held      []byte // Not delivered yet: in line mode the current line, else an incomplete rune.
	sent      int    // Bytes of the current line that Flush delivered.
	skipping  bool   // Inside the rest of a truncated line.
	skippedCR bool   // The rest of a truncated line ended with a carriage return; a newline belongs to it.
	dropMid   bool   // The last dropped byte was not a newline: its line has been counted.
	closed    bool
}

// Writer returns the writer of one stream. There must be one for each stream.
func (t *Transcript) Writer(stream Stream, cfg WriterConfig) *Writer {
	if cfg.MaxLine <= 0 {
		cfg.MaxLine = DefaultMaxLine
	}
	cfg.MaxLine = min(cfg.MaxLine, maxMaxLine)
	return &Writer{t: t, stream: stream, cfg: cfg}
}

// Write consumes all of p and does not retain it. It waits for the reader of an Unread transcript,
// as UnreadWindow says, and for no reader of another. It fails only after Close, with ErrClosed.
// Bytes that cannot be stored are dropped, counted and reported through OnDrop.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, ErrClosed
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxWrite)
		w.write(rest[:n])
		rest = rest[n:]
	}
	return len(p), nil
}

func (w *Writer) write(p []byte) {
	for len(p) > 0 {
		switch {
		case w.skipping:
			p = w.skip(p)
		case w.skippedCR:
			w.skippedCR = false
			if p[0] == '\n' {
				w.t.count(Counts{TruncatedBytes: 1})
				p = p[1:]
			}
		case w.Dropping():
			w.dropHeld()
			w.drop(p)
			return
		case w.cfg.Lines:
			p = w.frame(p)
		default:
			w.pass(p)
			return
		}
	}
}

// Pending reports whether Flush would deliver anything.
func (w *Writer) Pending() bool {
	return !w.Dropping() && w.flushable() > 0
}

// Flush delivers the held bytes: a partial line, such as a prompt. The caller decides how long to
// wait for the rest of the line.
func (w *Writer) Flush() {
	w.deliverHeld(w.flushable())
}

// Close delivers all held bytes. It does not seal the transcript. Idempotent.
func (w *Writer) Close() {
	w.closed = true
	w.deliverHeld(len(w.held))
	w.held = nil
}

func (w *Writer) flushable() int {
	n := len(w.held)
	if w.cfg.WholeRunes {
		n -= partialRune(nil, w.held)
	}
	return n
}

// deliverHeld delivers the first n held bytes, although they are not a whole line.
func (w *Writer) deliverHeld(n int) {
	if n == 0 {
		return
	}
	c := chunk{stream: w.stream, split: splitNever, held: w.held[:n]}
	if !w.cfg.Lines {
		c.split = splitBytes
	}
	if done := w.t.append(c); done < n {
		w.dropAfter(done, nil)
		return
	}
	w.sent += n
	if w.cfg.Lines && w.held[n-1] == '\r' {
		w.sent = 0
	}
	w.hold(w.held[n:])
}

// hold replaces the held bytes.
func (w *Writer) hold(p []byte) {
	w.held = append(w.held[:0], p...)
}

// frame delivers the whole lines at the front of p, then truncates a line that is too long or holds
// an incomplete one. It returns the rest of p.
func (w *Writer) frame(p []byte) []byte {
	have := w.sent + len(w.held)
	if n := len(w.held); n > 0 && w.held[n-1] == '\r' {
		if p[0] != '\n' {
			w.deliverHeld(n)
			return p
		}
		have = 0 // Its end is complete with p[0].
	}
	whole, tooLong := wholeLines(p, have, w.cfg.MaxLine)
	if whole > 0 {
		held := len(w.held)
		done := w.t.append(chunk{stream: w.stream, split: splitLines, held: w.held, body: p[:whole]})
		w.sent = 0
		if done < held+whole {
			w.dropAfter(done, p)
			return nil
		}
		w.held = w.held[:0]
		p = p[whole:]
	}
	if tooLong {
		return w.truncate(p)
	}
	w.held = append(w.held, p...)
	return nil
}

// wholeLines returns the length of the longest prefix of p that consists of whole lines none of
// which is longer than limit. The first line began have bytes before p. tooLong says that the line
// after them exceeds limit. A carriage return at the end of p is left: a newline may follow.
//
// From the start of a line, any end of a line within the next limit+1 bytes ends only lines that
// fit. It is therefore enough to find the last one in each such window: for typical lines the search
// looks at about a hundred bytes in 8 KiB.
func wholeLines(p []byte, have, limit int) (n int, tooLong bool) {
	size := len(p)
	if size > 0 && p[size-1] == '\r' {
		size--
	}
	for {
		full := n + limit + 1 - have
		tooLong = size >= full
		end := lastLineEnd(p, n, min(size, full))
		if end < 0 {
			return n, tooLong
		}
		n, have = end, 0
	}
}

// lastLineEnd returns where the last line ends of which the end begins in p[from:to], or -1. Beyond
// a carriage return there must be a byte.
func lastLineEnd(p []byte, from, to int) int {
	end := from + bytes.LastIndexByte(p[from:max(from, to)], '\n') + 1
	if cr := bytes.LastIndexByte(p[end:max(end, to)], '\r') + 1; cr > 0 {
		end += cr
		if p[end] == '\n' {
			end++
		}
	}
	if end == from {
		return -1
	}
	return end
}

// truncate delivers the front of a line that is too long: the held bytes, and p up to the limit.
func (w *Writer) truncate(p []byte) []byte {
	room := w.cfg.MaxLine - w.sent - len(w.held)
	cut := partialRune(w.held, p[:room])
	c := chunk{stream: w.stream, split: splitNever, truncated: true, marker: marker}
	c.body = p[:max(room-cut, 0)]
	c.held = w.held[:len(w.held)-max(cut-room, 0)]
	if done := w.t.append(c); done < c.size() {
		w.dropAfter(done, p)
		return nil
	}
	w.held, w.sent, w.skipping = w.held[:0], 0, true
	w.t.count(Counts{TruncatedLines: 1, TruncatedBytes: int64(cut)})
	return p[room:]
}

// skip passes over the rest of a truncated line and returns what follows it.
func (w *Writer) skip(p []byte) []byte {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		n = len(p)
	}
	if cr := bytes.IndexByte(p[:n], '\r') + 1; cr > 0 {
		n = cr
	}
	last := p[n-1]
	w.skippedCR = last == '\r'
	w.skipping = !w.skippedCR && last != '\n'
	w.t.count(Counts{TruncatedBytes: int64(n)})
	return p[n:]
}

// pass delivers p unchanged, except for an incomplete rune at its end.
func (w *Writer) pass(p []byte) {
	keep := 0
	if w.cfg.WholeRunes {
		keep = partialRune(w.held, p)
	}
	body := len(p) - keep
	if body < 0 {
		// The rune began in the held bytes. All of them belong to it, or they would not be held.
		w.held = append(w.held, p...)
		return
	}
	if len(w.held)+body == 0 {
		w.hold(p)
		return
	}
	held := len(w.held)
	done := w.t.append(chunk{stream: w.stream, split: splitBytes, held: w.held, body: p[:body]})
	if done < held+body {
		w.dropAfter(done, p)
		return
	}
	w.hold(p[body:])
}

// Dropping reports whether what is written from now on is only counted.
func (w *Writer) Dropping() bool { return w.t.dropping.Load() != 0 }

func (w *Writer) dropHeld() {
	w.drop(w.held)
	w.held = w.held[:0]
}

// dropAfter drops the held bytes and p, except for the first done of them.
func (w *Writer) dropAfter(done int, p []byte) {
	held := min(done, len(w.held))
	w.drop(w.held[held:])
	w.held = w.held[:0]
	w.drop(p[done-held:])
}

// drop counts p as dropped. A line is counted with the first of its bytes that is dropped.
func (w *Writer) drop(p []byte) {
	if len(p) == 0 {
		return
	}
	lines := bytes.Count(p, newline)
	mid := p[len(p)-1] != '\n'
	if mid {
		lines++
	}
	if w.dropMid {
		lines--
	}
	w.dropMid = mid
	w.t.count(Counts{DroppedLines: int64(lines), DroppedBytes: int64(len(p))})
}

// partialRune returns the length of the incomplete rune at the end of a followed by b: the bytes,
// at most 3, that begin a rune but do not complete it. Bytes that cannot be UTF-8 are not
// incomplete.
func partialRune(a, b []byte) int {
	var last [utf8.UTFMax - 1]byte
	tail := last[:0]
	if len(b) >= len(last) {
		tail = b[len(b)-len(last):]
	} else {
		a = a[len(a)-min(len(a), len(last)-len(b)):]
		tail = append(append(tail, a...), b...)
	}
	for n := 1; n <= len(tail); n++ {
		if start := tail[len(tail)-n:]; utf8.RuneStart(start[0]) {
			if utf8.FullRune(start) {
				return 0
			}
			return n
		}
	}
	return 0
}
