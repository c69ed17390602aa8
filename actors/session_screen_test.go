package actors

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troupe-dev/troupe/actors/screen"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// pieces returns a reader of what a terminal shows.
func pieces(all ...any) func([]byte) (transcript.Piece, error) {
	return func(buf []byte) (transcript.Piece, error) {
		if len(all) == 0 {
			return transcript.Piece{}, io.EOF
		}
		switch v := all[0].(type) {
		case string:
			n := copy(buf, v)
			if all[0] = v[n:]; n == len(v) {
				all = all[1:]
			}
			return transcript.Piece{Data: buf[:n]}, nil
		default:
			all = all[1:]
			return transcript.Piece{Mark: v}, nil
		}
	}
}

// A panic costs the screen, and not the pod.
func TestScreensThatPanicAreDropped(t *testing.T) {
	b := newScreenBefore(ScreenBytes)
	b.shared.log = slog.New(slog.DiscardHandler)
	if b.Extend(func([]byte) (transcript.Piece, error) { panic("a mistake") }) {
		t.Error("it is kept")
	}
	if !b.Extend(pieces("x")) {
		t.Error("no other is followed")
	}
}

func newScreenBefore(room int64) *screenBefore {
	b := &screenBefore{shared: new(screens), room: new(atomic.Int64), execution: "x", cols: 80, rows: 24}
	b.room.Store(room)
	return b
}

// TestScreensAreBoundedForASession: a drawing that does not fit is not kept, and one that is dropped makes
// room again.
func TestScreensAreBoundedForASession(t *testing.T) {
	a := newScreenBefore(ScreenBytes)
	b := newScreenBefore(0)
	b.room = a.room
	text := strings.Repeat("many words ", 40)
	if !a.Extend(pieces(&wire.Resized{Cols: 200, Rows: 50}, text, text)) || !b.Extend(pieces(text)) {
		t.Fatal("two small screens are not kept")
	}
	if held := int64(len(a.drawing) + len(b.drawing)); a.room.Load() != ScreenBytes-held || held == 0 {
		t.Errorf("%d left beside %d bytes of drawings", a.room.Load(), held)
	}
	var colours strings.Builder
	for i := range 200 * 50 {
		fmt.Fprintf(&colours, "\x1b[38;2;%d;%d;%dm#", i%256, i/256, i%7)
	}
	if a.Extend(pieces(colours.String())) {
		t.Errorf("a drawing of %d bytes is kept", len(a.drawing))
	}
	most := strings.Repeat("many words ", ScreenBytes*2/3/11)
	if big := pieces(&wire.Resized{Cols: 200, Rows: 100}, most); !a.Extend(big) {
		t.Error("two thirds of the bound are not kept")
	}
	if big := pieces(&wire.Resized{Cols: 200, Rows: 100}, most); b.Extend(big) {
		t.Errorf("two screens have %d bytes together", len(a.drawing)+len(b.drawing))
	}
	a.Drop()
	b.Drop()
	if a.room.Load() != ScreenBytes {
		t.Errorf("%d of %d are free at the end", a.room.Load(), ScreenBytes)
	}
	if large := newScreenBefore(ScreenBytes); large.Extend(pieces(&wire.Resized{Cols: 1000, Rows: 500}, "x")) {
		t.Error("a screen of 500,000 cells is followed")
	}
}

// TestScreenLayoutIsBounded: what the largest screen holds is within its budget, whatever is drawn on it.
func TestScreenLayoutIsBounded(t *testing.T) {
	s := screen.New(256, maxScreenCells/256)
	var colours strings.Builder
	for i := range maxScreenCells {
		fmt.Fprintf(&colours, "\x1b[38;2;%d;%d;%d;48;2;%d;%d;%dme\u0301", i%256, i/256, i%7, i%256, i/256, i%11)
	}
	for range 2 {
		_, _ = io.WriteString(s, colours.String()+"\x1b[?1049h")
	}
	if held := s.Bytes() + screenBuffer + cap(s.DrawUpTo(ScreenBytes)); held > ScreenLayout {
		t.Errorf("%d bytes, of which %d are the screen, want at most %d", held, s.Bytes(), ScreenLayout)
	}
}

// A screen comes in parts that fit into small messages.
func TestScreensComeInParts(t *testing.T) {
	b := newScreenBefore(ScreenBytes)
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "%0100d\r\n", i)
	}
	if !b.Extend(pieces(&wire.Resized{Cols: 120, Rows: 100}, text.String())) {
		t.Fatal("it is not kept")
	}
	s, marks := screen.New(120, 100), b.Marks()
	for _, m := range marks {
		part, ok := m.(*wire.Screen)
		if !ok || len(part.Data) > screenPart || part.Cols != 120 || part.Rows != 100 || part.ExecutionID != "x" {
			t.Errorf("%+v", m)
		}
		_, _ = s.Write(part.Data)
	}
	if len(marks) < 3 || s.Text()[0] != fmt.Sprintf("%0100d", 1) {
		t.Errorf("%d parts draw %q", len(marks), s.Text()[0])
	}
}
