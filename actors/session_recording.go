package actors

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// RecordingPage is a part of what a terminal has shown, with the times. What was typed is not in it.
type RecordingPage struct {
	Subject    string           `json:"subject"` // whose session it is
	Started    time.Time        `json:"started"`
	Command    string           `json:"command,omitempty"` // empty: whoever asks may not see it
	Terminal   *wire.Terminal   `json:"terminal"`          // as it began
	Pieces     []RecordingPiece `json:"pieces"`
	NextOffset int64            `json:"next_offset"` // of the output, where the next page begins
	Offset     int64            `json:"offset"`      // how much output there is
	End        bool             `json:"end"`         // the execution is over, and nothing follows
}

// RecordingPiece is what the terminal showed at a time. Of Data, Cols and Gap one is set.
type RecordingPiece struct {
	At   float64 `json:"at"`             // seconds since Started
	Data []byte  `json:"data,omitempty"` // output
	Cols int     `json:"cols,omitempty"` // the size that the terminal has from here on
	Rows int     `json:"rows,omitempty"`
	Gap  int64   `json:"gap,omitempty"` // bytes that are not kept any more
}

// Bounds of a page, which is below MaxAnswer with both, and with a drawing of ScreenBytes.
const (
	maxRecordingBytes  = 16 << 10
	maxRecordingPieces = 256
)

// ErrNoTerminal: the execution has none, so there is no recording of it.
var ErrNoTerminal = errors.New("the execution has no terminal")

// recordingOf finds the transcript of a terminal. Whoever asked reads it.
func (s *session) recordingOf(q *sessionQuery) queryResult {
	x := s.executions[q.Output.Execution]
	switch {
	case x == nil:
		return queryResult{Error: queryNoExecution}
	case x.plan.terminal == nil:
		return queryResult{Error: queryNoTerminal}
	}
	x.recorded = time.Now()
	return x.recording(q)
}

func (x *execution) recording(q *sessionQuery) queryResult {
	page := &RecordingPage{Subject: x.subject, Started: x.requested, Terminal: x.plan.terminal}
	if x.subject == string(q.Subject) || q.Commands {
		page.Command = x.plan.shown
	}
	return queryResult{transcript: x.transcript, Recording: page}
}

// read reads a page, and returns a code of queryResult. It takes nothing from the terminal's viewers and holds
// nobody up.
func (page *RecordingPage) read(t *transcript.Transcript, offset int64) string {
	page.Pieces, page.NextOffset, page.Offset = []RecordingPiece{}, offset, t.End()
	c, err := t.Cursor(offset, nil)
	if err != nil {
		return queryBadOffset
	}
	defer c.Close()
	c.SplitTimes()
	// Changes of size, gaps, and the screens that stand behind these have no times of their own. They have that of the
	// output behind them, because programs answer a new size by drawing, and are left to the next page where there is
	// none.
	var before []RecordingPiece
	buf := make([]byte, maxRecordingBytes)
	for len(buf) > 0 && len(page.Pieces) < maxRecordingPieces {
		p, err := c.Next(buf)
		if errors.Is(err, io.EOF) {
			page.End, page.NextOffset = true, c.Offset()
			page.add(before, nil, page.lastTime())
			return ""
		}
		if err != nil { // nothing is there yet, or the transcript was removed
			return ""
		}
		switch m := p.Mark.(type) {
		case *wire.Resized:
			before = append(before, RecordingPiece{Cols: m.Cols, Rows: m.Rows})
		case *wire.Screen:
			before = append(before, RecordingPiece{Cols: m.Cols, Rows: m.Rows}, RecordingPiece{Data: m.Data})
		}
		if p.Gap > 0 && len(page.Pieces) > 0 {
			return "" // the screen behind it goes into a page of its own
		}
		if p.Gap > 0 {
			for _, b := range before { // which were let go of meanwhile
				p.Gap += b.Gap
			}
			before = slices.DeleteFunc(before, func(b RecordingPiece) bool { return b.Cols == 0 })
			before = append(before, RecordingPiece{Gap: p.Gap})
		}
		if p.Data == nil {
			continue
		}
		page.add(before, p.Data, max(page.lastTime(), p.At.Sub(page.Started).Round(time.Millisecond).Seconds()))
		before, page.NextOffset, buf = nil, p.Offset, buf[len(p.Data):]
	}
	return ""
}

// add adds what was before some output, and the output.
func (page *RecordingPage) add(before []RecordingPiece, data []byte, at float64) {
	if len(data) > 0 {
		before = append(before, RecordingPiece{Data: data})
	}
	for _, p := range before {
		p.At = at
		page.Pieces = append(page.Pieces, p)
	}
}

// lastTime returns the time of the last piece of the page, or 0.
func (page *RecordingPage) lastTime() float64 {
	if len(page.Pieces) == 0 {
		return 0
	}
	return page.Pieces[len(page.Pieces)-1].At
}
