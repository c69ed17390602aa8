package transcript

import (
	"errors"
	"io"
)

// Summary stands for the bytes and marks that a Last transcript has let go of, so that a reader who
// comes too late for them gets what they came to: of a terminal, what its screen showed. Its methods
// are called one at a time, and must not call the transcript.
type Summary interface {
	// Extend takes in what follows next: every byte and mark in order, which next returns piece by
	// piece until io.EOF. next fills its argument. Marks of Restate are gone then; readers still get the
	// others. If Extend returns false, nothing stands for what is gone from now on, and the Summary is
	// dropped. It runs on the goroutine that appends.
	Extend(next func([]byte) (Piece, error)) bool
	// Marks returns what a reader gets between its gap and what is kept. The caller does not change it.
	Marks() []any
	// Drop says that the Summary is not used any more. It is called once.
	Drop()
}

// summaryShare is the part of what a transcript with a Summary keeps that gives way at once, since a
// Summary may cost the same for few bytes as for many.
const summaryShare = 8

var errUnread = errors.New("the transcript cannot read what it lets go of")

// keepNewest lets go of the oldest bytes of a Last transcript, so that it keeps no more than its
// limit. Called with writeMu held.
func (t *Transcript) keepNewest() {
	t.mu.Lock()
	limit := max(t.limit, 0)
	to := t.end - limit
	if t.summary != nil {
		if to > t.start {
			to += limit / summaryShare
		}
		if extra := len(t.marks) - maxMarks; extra > 0 {
			to = max(to, t.marks[extra+maxMarks/summaryShare].offset)
		}
	}
	t.mu.Unlock()
	t.letGo(to)
}

// letGo lets go of the bytes of a Last transcript before offset. Called with writeMu held.
func (t *Transcript) letGo(offset int64) {
	if offset <= t.start { // which nobody else changes
		return
	}
	kept := false
	if t.summary != nil {
		next, done := t.read(t.start, offset)
		kept = t.summary.Extend(next)
		done()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keepFrom(offset)
	if kept {
		t.stands = t.summary.Marks()
		t.forgetMarks(offset)
	} else {
		t.dropSummary()
	}
}

// dropSummary is called with mu held.
func (t *Transcript) dropSummary() {
	if t.summary != nil {
		t.summary.Drop()
		t.summary, t.stands = nil, nil
	}
}

// read returns a function that reads from one offset to another.
func (t *Transcript) read(from, to int64) (next func([]byte) (Piece, error), done func()) {
	t.mu.Lock()
	c := &Cursor{t: t, offset: from, mark: t.firstMarkAt(from), ahead: maxAhead, at: noTime}
	t.mu.Unlock()
	return func(buf []byte) (Piece, error) {
		if c.offset == to {
			return Piece{}, io.EOF
		}
		p, err := c.Next(buf[:min(int64(len(buf)), to-c.offset)])
		if err == nil && p.Gap > 0 {
			err = errUnread
		}
		return p, err
	}, c.Close
}
