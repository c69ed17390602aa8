package transcript

import (
	"slices"
	"sort"
)

// maxMarks bounds the marks of a transcript: the oldest give way, with the output before them if they
// are summarized.
const maxMarks = 32

// mark is an event between two bytes.
type mark struct {
	offset int64
	seq    int // Its number among all marks.
	value  any
	state  bool // Restate made it.
}

// Mark puts an event at the current end. Every cursor that passes the place sees it once; it stays
// readable when the bytes around it are gone. v is kept as long as the transcript, or until maxMarks
// newer ones have been made, or until a Summary has taken it in. A nil v is ignored, and so is a mark
// after Seal or Remove, since a cursor may have ended before it.
func (t *Transcript) Mark(v any) { t.mark(v, false) }

// Restate is Mark for an event that makes one void that Restate put at the same place.
func (t *Transcript) Restate(v any) { t.mark(v, true) }

func (t *Transcript) mark(v any, state bool) {
	var local [8]*Cursor
	t.mu.Lock()
	woken := t.addMark(v, state, local[:0])
	t.mu.Unlock()
	wake(woken)
}

// addMark is called with mu held.
func (t *Transcript) addMark(v any, state bool, woken []*Cursor) []*Cursor {
	if v == nil || t.sealed {
		return woken
	}
	if state {
		t.marks = slices.DeleteFunc(t.marks, func(m mark) bool { return m.state && m.offset == t.end })
	}
	if extra := len(t.marks) + 1 - maxMarks; extra > 0 && t.summary == nil {
		t.marks = slices.Delete(t.marks, 0, extra)
	}
	t.marks = append(t.marks, mark{t.end, t.nextMark, v, state})
	t.nextMark++
	return t.takeWaiting(woken)
}

// markFrom returns the first mark that is not before seq, or nil. Called with mu held.
func (t *Transcript) markFrom(seq int) *mark {
	i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].seq >= seq })
	if i == len(t.marks) {
		return nil
	}
	return &t.marks[i]
}

// firstMarkAt returns the number of the first mark that is not before offset. Called with mu held.
func (t *Transcript) firstMarkAt(offset int64) int {
	i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].offset >= offset })
	if i == len(t.marks) {
		return t.nextMark
	}
	return t.marks[i].seq
}

// forgetMarks drops the states before offset, which a Summary has taken in. The other marks stay readable, as far
// as there is room. Called with mu held.
func (t *Transcript) forgetMarks(offset int64) {
	t.marks = slices.DeleteFunc(t.marks, func(m mark) bool { return m.state && m.offset < offset })
	others := 0
	for others < len(t.marks) && t.marks[others].offset < offset {
		others++
	}
	if extra := min(len(t.marks)-maxMarks, others); extra > 0 {
		t.marks = slices.Delete(t.marks, 0, extra)
	}
}
