package transcript

import "unicode/utf8"

// reference says what a transcript must hold. It is written for being obvious: one byte at a time,
// nothing shared with the real thing.
type reference struct {
	limit    int64
	runs     []run
	size     int64
	dropping bool
	counts   Counts
	produced int64
	streams  [2]refStream
}

type refStream struct {
	cfg     WriterConfig
	line    []byte // In raw mode, the incomplete rune.
	sent    int
	ended   bool // The line ends with a carriage return, and a newline may follow.
	skip    bool
	skipEnd bool // What was skipped ends with a carriage return, and a newline may follow.
	dropMid bool
}

func newReference(limit int64, cfg WriterConfig) *reference {
	return &reference{limit: limit, streams: [2]refStream{{cfg: cfg}, {cfg: cfg}}}
}

func (r *reference) write(s Stream, p []byte) {
	st := &r.streams[s]
	r.produced += int64(len(p))
	if st.cfg.Lines {
		for _, b := range p {
			r.lineByte(s, b)
		}
		return
	}
	st.line = append(st.line, p...)
	r.flushRaw(s, !st.cfg.WholeRunes)
}

func (r *reference) lineByte(s Stream, b byte) {
	st := &r.streams[s]
	if st.skipEnd {
		st.skipEnd = false
		if b == '\n' {
			r.counts.TruncatedBytes++
			return
		}
	}
	if st.ended && b != '\n' && !r.dropping {
		r.deliver(s, st.line[st.sent:], false)
		st.line, st.sent, st.ended = nil, 0, false
	}
	switch {
	case st.skip:
		r.counts.TruncatedBytes++
		st.skip, st.skipEnd = b != '\n' && b != '\r', b == '\r'
	case r.dropping:
		r.drop(s, st.line[st.sent:])
		r.drop(s, []byte{b})
		st.line, st.sent, st.ended = nil, 0, false
	case b == '\n':
		r.deliver(s, append(st.line[st.sent:], b), false)
		st.line, st.sent, st.ended = nil, 0, false
	case b == '\r':
		st.line, st.ended = append(st.line, b), true
	case len(st.line) == st.cfg.MaxLine:
		rest := st.line[st.sent:]
		cut := startsRune(rest)
		if r.fits(len(rest) - cut + 12) {
			r.deliver(s, append(append([]byte(nil), rest[:len(rest)-cut]...), "[TRUNCATED]\n"...), true)
			r.counts.TruncatedLines++
			r.counts.TruncatedBytes += int64(cut) + 1
			st.skip = true
		} else {
			r.dropping = true
			r.drop(s, append(append([]byte(nil), rest...), b))
		}
		st.line, st.sent = nil, 0
	default:
		st.line = append(st.line, b)
	}
}

// flushRaw delivers what cannot become a rune, or all.
func (r *reference) flushRaw(s Stream, all bool) {
	st := &r.streams[s]
	n := len(st.line)
	if !all && !r.dropping {
		n -= startsRune(st.line)
	}
	fit := n
	if r.dropping {
		fit = 0
	} else if !r.fits(n) {
		fit = int(r.limit - r.size)
	}
	if fit > 0 {
		r.deliver(s, st.line[:fit], false)
	}
	if fit < n {
		r.dropping = true
		r.drop(s, st.line[fit:])
		n = len(st.line)
	}
	st.line = append([]byte(nil), st.line[n:]...)
}

func (r *reference) flush(s Stream, all bool) {
	st := &r.streams[s]
	if !st.cfg.Lines {
		r.flushRaw(s, all)
		return
	}
	rest := st.line[st.sent:]
	if st.cfg.WholeRunes && !all {
		rest = rest[:len(rest)-startsRune(rest)]
	}
	if len(rest) == 0 {
		return
	}
	if r.dropping || !r.fits(len(rest)) {
		r.dropping = true
		r.drop(s, st.line[st.sent:])
		st.line, st.sent, st.ended = nil, 0, false
		return
	}
	r.deliver(s, rest, false)
	st.sent += len(rest)
	if st.ended {
		st.line, st.sent, st.ended = nil, 0, false
	}
}

func (r *reference) fits(n int) bool { return r.size+int64(n) <= r.limit }

func (r *reference) deliver(s Stream, p []byte, truncated bool) {
	if len(p) == 0 {
		return
	}
	if r.dropping || !r.fits(len(p)) {
		r.dropping = true
		r.drop(s, p)
		return
	}
	r.size += int64(len(p))
	r.runs = join(r.runs, run{stream: s, truncated: truncated, data: string(p)})
}

func (r *reference) drop(s Stream, p []byte) {
	st := &r.streams[s]
	for _, b := range p {
		if !st.dropMid {
			r.counts.DroppedLines++
		}
		st.dropMid = b != '\n'
		r.counts.DroppedBytes++
	}
}

// startsRune returns how many bytes at the end of p begin a rune without completing it, by trying
// whether any bytes complete them.
func startsRune(p []byte) int {
	for n := 1; n <= 3 && n <= len(p); n++ {
		tail := p[len(p)-n:]
		if utf8.RuneStart(tail[0]) && completable(tail) {
			return n
		}
	}
	return 0
}

func completable(tail []byte) bool {
	edges := []byte{0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf}
	for _, a := range edges {
		for _, b := range edges {
			for _, c := range edges {
				for n := 1; n <= 3; n++ {
					try := append(append([]byte(nil), tail...), []byte{a, b, c}[:n]...)
					if r, size := utf8.DecodeRune(try); size == len(try) && (r != utf8.RuneError || size == 3) {
						return true
					}
				}
			}
		}
	}
	return false
}

// scroll forgets all but the newest n bytes.
func (r *reference) scroll(n int64) {
	gone := max(r.size-n, 0)
	if gone == 0 {
		return
	}
	old := r.runs
	r.runs = []run{{gap: gone}}
	for _, run := range old {
		k := min(int64(len(run.data)), gone)
		gone -= k
		if run.data = run.data[k:]; run.data != "" {
			r.runs = append(r.runs, run)
		}
	}
}
