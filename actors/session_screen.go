package actors

import (
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/troupe-dev/troupe/actors/screen"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is about what a terminal showed before the output that is kept of it. Whoever comes later,
// or is too slow, is given that screen, and the output that follows leads to the same as if it had all
// been seen.

// Bounds of screens.
const (
	// ScreenBytes bounds the bytes that draw the screens of one session's terminals. One that does not
	// fit is not kept.
	ScreenBytes = 24 << 10
	// maxScreenCells bounds a screen, because it is laid out to be followed.
	maxScreenCells = 32 << 10
	// ScreenLayout is what the one screen costs that is laid out at a time: its cells, normal and
	// alternate, the tables of what they refer to, the output that it takes in, and a drawing.
	ScreenLayout = 2*maxScreenCells*16 + 600<<10 + screenBuffer + 4*ScreenBytes
	screenBuffer = 64 << 10
	// screenPart is how much of a drawing one notification has.
	screenPart = 4 << 10
)

// screens lays out one screen at a time: in between, only the bytes are kept that draw it.
type screens struct {
	log *slog.Logger
	mu  sync.Mutex
	buf []byte // Of screenBuffer bytes.
}

// screenBefore is the summary of a terminal's transcript: it draws the screen as it was where the kept
// output begins.
type screenBefore struct {
	shared     *screens
	room       *atomic.Int64 // what is left of the session's ScreenBytes
	execution  string
	cols, rows int
	drawing    []byte
}

var _ transcript.Summary = (*screenBefore)(nil)

// Extend implements transcript.Summary.
func (b *screenBefore) Extend(next func([]byte) (transcript.Piece, error)) (kept bool) {
	b.shared.mu.Lock()
	defer b.shared.mu.Unlock()
	defer func() {
		if r := recover(); r != nil { // what commands print must not end the pod
			b.shared.log.Error("a screen cannot be followed", "execution", b.execution, "panic", r, "stack", string(debug.Stack()))
			kept = false
		}
	}()
	if b.cols*b.rows > maxScreenCells {
		return false
	}
	if b.shared.buf == nil {
		b.shared.buf = make([]byte, screenBuffer)
	}
	s := screen.New(b.cols, b.rows)
	_, _ = s.Write(b.drawing) // it takes everything
	for {
		p, err := next(b.shared.buf)
		if errors.Is(err, io.EOF) {
			return b.keep(s)
		}
		if err != nil {
			return false
		}
		if size, ok := p.Mark.(*wire.Resized); ok {
			if size.Cols*size.Rows > maxScreenCells {
				return false
			}
			s.Resize(size.Cols, size.Rows)
		}
		_, _ = s.Write(p.Data)
	}
}

// keep draws a screen, and reports whether the drawing may be kept.
func (b *screenBefore) keep(s *screen.Screen) bool {
	drawing := s.DrawUpTo(ScreenBytes)
	grown := int64(len(drawing) - len(b.drawing))
	if drawing == nil {
		return false
	}
	if b.room.Add(-grown) < 0 {
		b.room.Add(grown)
		return false
	}
	b.cols, b.rows = s.Size()
	b.drawing = append(make([]byte, 0, len(drawing)), drawing...)
	return true
}

// Marks implements transcript.Summary.
func (b *screenBefore) Marks() (marks []any) {
	for left := b.drawing; len(left) > 0; {
		n := min(len(left), screenPart)
		marks = append(marks, &wire.Screen{ExecutionID: b.execution, Cols: b.cols, Rows: b.rows, Data: left[:n:n]})
		left = left[n:]
	}
	return marks
}

// Drop implements transcript.Summary.
func (b *screenBefore) Drop() {
	b.room.Add(int64(len(b.drawing)))
	b.drawing = nil
}

// screenOf returns the summary of an execution's transcript. It is nil without a terminal.
func (s *session) screenOf(p *plan) transcript.Summary {
	if p.terminal == nil {
		return nil
	}
	return &screenBefore{
		shared: &s.engine.screens, room: &s.screenRoom, execution: p.id, cols: p.terminal.Cols, rows: p.terminal.Rows,
	}
}
