package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/troupe-dev/troupe/actors"
)

// castType is the media type of an asciicast.
const castType = "application/x-asciicast"

// asciicast writes a recording as an asciicast of version 2
// (https://docs.asciinema.org/manual/asciicast/v2/): a line of JSON with the size of the terminal, and one for each
// event. Bytes that are not UTF-8 become U+FFFD, as asciinema makes them.
type asciicast struct {
	out        bytes.Buffer // what was not sent yet
	rune       []byte       // the beginning of a rune whose rest has not come
	cols, rows int
	last       float64 // the time of the last event
}

// begin writes the first line.
func (c *asciicast) begin(page *actors.RecordingPage) {
	c.cols, c.rows = page.Terminal.Cols, page.Terminal.Rows
	header := struct {
		Version   int               `json:"version"`
		Width     int               `json:"width"`
		Height    int               `json:"height"`
		Timestamp int64             `json:"timestamp"`
		Title     string            `json:"title,omitempty"`
		Env       map[string]string `json:"env,omitempty"`
	}{
		Version: 2, Width: c.cols, Height: c.rows, Timestamp: page.Started.Unix(), Title: page.Command,
	}
	if page.Terminal.Term != "" {
		header.Env = map[string]string{"TERM": page.Terminal.Term}
	}
	c.line(header)
}

// add writes the pieces from a time on, in seconds.
func (c *asciicast) add(pieces []actors.RecordingPiece, since float64) {
	const half = 0.0005 // since is the time of an event as it was written, in milliseconds
	for _, p := range pieces {
		c.last = max(c.last, p.At)
		code, data := "o", ""
		switch {
		case p.Gap > 0:
			code, data = "m", fmt.Sprintf("%d bytes are not kept", p.Gap)
		case p.Cols == 0:
			data = c.text(p.Data)
		case p.Cols != c.cols || p.Rows != c.rows:
			code, data = "r", fmt.Sprintf("%dx%d", p.Cols, p.Rows)
			c.cols, c.rows = p.Cols, p.Rows
		}
		if c.last >= since-half {
			c.event(code, data)
		}
	}
}

// finish writes what has no end.
func (c *asciicast) finish() {
	c.event("o", string(c.rune))
	c.rune = nil
}

// text returns the runes of b, behind what was left of the piece before. It leaves a rune that b does not end.
func (c *asciicast) text(b []byte) string {
	b = append(c.rune, b...)
	n := len(b)
	for i := n - 1; i >= 0 && n-i < utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				n = i
			}
			break
		}
	}
	c.rune = bytes.Clone(b[n:])
	return string(b[:n])
}

// event writes an event, unless it is empty.
func (c *asciicast) event(code, data string) {
	if data != "" {
		c.line([]any{json.Number(strconv.FormatFloat(c.last, 'f', 3, 64)), code, data})
	}
}

// line writes a value as a line. Of a string, it makes every byte that is not UTF-8 a U+FFFD.
func (c *asciicast) line(v any) {
	e := json.NewEncoder(&c.out)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // strings and numbers, into memory
}
