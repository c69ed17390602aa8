package main

import (
	"bytes"
	"encoding/json"
)

// castEvent is a line of an asciicast behind the first.
type castEvent struct {
	time, code, data string
}

func parseCastEvent(line []byte) (e castEvent, err error) {
	var parts []json.RawMessage
	if json.Unmarshal(line, &parts) != nil || len(parts) != 3 ||
		json.Unmarshal(parts[1], &e.code) != nil || json.Unmarshal(parts[2], &e.data) != nil {
		return e, errNotCast
	}
	e.time = string(parts[0])
	return e, nil
}

func (e castEvent) line() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode([]any{json.Number(e.time), e.code, e.data}) // strings
	return b.Bytes()
}

// again begins to read from the last time on. What came again before, of what is written, counts in at already.
func (r *recorder) again() {
	r.skip = progressAt{r.at.runes + r.skip.runes, r.at.others + r.skip.others}
	r.at = progressAt{}
}

// continued returns the part of a line that was not written yet, and notes that it is.
//
// After a lost connection the server repeats the events of the last time, maybe cut at other places, and the first
// line.
func (r *recorder) continued(line []byte) ([]byte, error) {
	if len(line) > 0 && line[0] == '{' {
		if r.begun {
			return nil, nil
		}
		r.begun = true
		return line, nil
	}
	if !r.begun {
		return nil, errNotCast
	}
	e, err := parseCastEvent(line)
	if err != nil {
		return nil, err
	}
	if e.time != r.last {
		r.last, r.at, r.skip = e.time, progressAt{}, progressAt{}
	}
	if e.code != "o" {
		r.at.others++
		if r.skip.others > 0 {
			r.skip.others--
			return nil, nil
		}
		return line, nil
	}
	runes := []rune(e.data)
	r.at.runes += len(runes)
	known := min(r.skip.runes, len(runes))
	if known == 0 {
		return line, nil
	}
	r.skip.runes -= known
	if e.data = string(runes[known:]); e.data == "" {
		return nil, nil
	}
	return e.line(), nil
}
