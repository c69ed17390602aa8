// Package conformance is the test suite that every client of troupe passes: scripts of what a server
// does and of what the client must send and report, a server that plays them, and a proxy that cuts
// connections. README.md describes the format of the scripts and how to run them from any language.
package conformance

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
)

//go:embed *.json
var files embed.FS

// Script is one file of the suite. README.md says what its members mean.
type Script struct {
	Name   string          `json:"name"` // that of the file
	About  string          `json:"about"`
	Needs  []string        `json:"needs,omitempty"`
	Client json.RawMessage `json:"client"` // actions, which the client's runner reads
	Server []Connection    `json:"server"` // in the order in which the client makes them

	Options json.RawMessage `json:"options,omitempty"`
}

// Connection is what the server does with one connection of the client.
type Connection struct {
	Query  map[string]*string `json:"query,omitempty"` // nil: must be absent
	Token  *string            `json:"token,omitempty"`
	Refuse *Refusal           `json:"refuse,omitempty"`
	Drop   bool               `json:"drop,omitempty"`
	Repeat bool               `json:"repeat,omitempty"` // of the last: it may be made any number of times
	Steps  []Step             `json:"steps,omitempty"`
}

// Refusal is an HTTP answer to the handshake.
type Refusal struct {
	Status int    `json:"status"`
	Body   string `json:"body,omitempty"`
}

// Step is one thing that the server does, or expects, on a connection. Exactly one of the members that
// README.md lists as steps is set.
type Step struct {
	Greet  json.RawMessage `json:"greet,omitempty"`
	Send   json.RawMessage `json:"send,omitempty"`
	Raw    *string         `json:"raw,omitempty"`
	Output *Output         `json:"output,omitempty"`
	Frame  *Frame          `json:"frame,omitempty"`
	Answer string          `json:"answer,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`

	Expect string           `json:"expect,omitempty"`
	Params json.RawMessage  `json:"params,omitempty"`
	As     string           `json:"as,omitempty"`
	Input  *Input           `json:"input,omitempty"`
	Taken  *wire.InputTaken `json:"taken,omitempty"`
	Acked  *Acked           `json:"acked,omitempty"`
	Pong   bool             `json:"pong,omitempty"`
	Quiet  int              `json:"quiet_ms,omitempty"`
	Closed int              `json:"closed,omitempty"`
	End    bool             `json:"end,omitempty"`

	Mark   string `json:"mark,omitempty"`
	Await  string `json:"await,omitempty"`
	Close  int    `json:"close,omitempty"`
	Cut    bool   `json:"cut,omitempty"`
	Vanish bool   `json:"vanish,omitempty"`

	Started   *Started        `json:"started,omitempty"`
	Completed json.RawMessage `json:"completed,omitempty"`
	Resumed   *Resumed        `json:"resumed,omitempty"`
}

// Started expects execute and answers it.
type Started struct {
	ExecutionID string          `json:"execution_id"`
	Stream      uint16          `json:"stream,omitempty"` // 0: output will be text
	Params      json.RawMessage `json:"params,omitempty"`
}

// Resumed expects resume at exactly these offsets and answers it: what is not unknown is running.
type Resumed struct {
	Executions map[string]int64  `json:"executions"`
	Streams    map[string]uint16 `json:"streams,omitempty"`
	Unknown    []string          `json:"unknown,omitempty"`
}

// Output is a run of bytes that Fill makes, sent in pieces: as binary messages if Stream is set, else as
// process.output.
type Output struct {
	ExecutionID string `json:"execution_id"`
	Stream      uint16 `json:"stream,omitempty"`
	From        int64  `json:"from"`
	To          int64  `json:"to"`
	Piece       int64  `json:"piece,omitempty"` // 0: 32,768 bytes
}

// Frame is one binary message with output.
type Frame struct {
	ExecutionID string   `json:"execution_id"`
	Stream      uint16   `json:"stream"`
	Flags       []string `json:"flags,omitempty"` // of stderr, truncated
	Offset      int64    `json:"offset"`          // after the piece
	Gap         int64    `json:"gap,omitempty"`
	Data        string   `json:"data,omitempty"`
	Base64      string   `json:"base64,omitempty"`
}

// Input is what the client must send to the stdin of an execution: as a binary message on Stream, or as
// the request input.
type Input struct {
	ExecutionID string    `json:"execution_id"`
	Stream      uint16    `json:"stream"`
	Offset      int64     `json:"offset"`
	EOF         bool      `json:"eof,omitempty"`
	Data        string    `json:"data,omitempty"`
	Fill        *[2]int64 `json:"fill,omitempty"`
}

// Acked is the progress that the client's acks must reach.
type Acked struct {
	ExecutionID string `json:"execution_id"`
	Offset      int64  `json:"offset"`
	Completed   bool   `json:"completed,omitempty"`
	Most        int64  `json:"most,omitempty"` // an ack beyond it fails; 0: any
}

// Scripts returns the suite in the order of its files' names.
func Scripts() ([]*Script, error) {
	names, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil, err
	}
	scripts := make([]*Script, 0, len(names))
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s, err := parse(strings.TrimSuffix(name, ".json"), text)
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// parse refuses members that do not exist, so that a misspelt step fails instead of passing.
func parse(name string, text []byte) (*Script, error) {
	s := &Script{Name: name}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("script %s: %w", name, err)
	}
	switch {
	case s.About == "":
		return nil, fmt.Errorf(`script %s: "about" must say what the client must do`, name)
	case len(s.Server) == 0 || len(s.Client) == 0:
		return nil, fmt.Errorf(`script %s: "server" and "client" must have elements`, name)
	}
	for i, c := range s.Server {
		if c.Repeat && i < len(s.Server)-1 {
			return nil, fmt.Errorf("script %s: only the last connection may repeat", name)
		}
		for j, step := range c.Steps {
			if n := len(step.set()); n != 1 {
				return nil, fmt.Errorf("script %s: connection %d, step %d: it must have one kind, not %d", name, i+1, j+1, n)
			}
		}
	}
	return s, nil
}

// set names the kinds of step that s has.
func (s *Step) set() (kinds []string) {
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"greet", s.Greet != nil},
		{"send", s.Send != nil},
		{"raw", s.Raw != nil},
		{"output", s.Output != nil},
		{"frame", s.Frame != nil},
		{"answer", s.Answer != ""},
		{"expect", s.Expect != ""},
		{"input", s.Input != nil},
		{"taken", s.Taken != nil},
		{"acked", s.Acked != nil},
		{"pong", s.Pong},
		{"quiet_ms", s.Quiet > 0},
		{"closed", s.Closed != 0},
		{"end", s.End},
		{"mark", s.Mark != ""},
		{"await", s.Await != ""},
		{"close", s.Close != 0},
		{"cut", s.Cut},
		{"vanish", s.Vanish},
		{"started", s.Started != nil},
		{"completed", s.Completed != nil},
		{"resumed", s.Resumed != nil},
	} {
		if k.set {
			kinds = append(kinds, k.name)
		}
	}
	return kinds
}

// Fill makes the bytes of the range [from, to) of the suite's transcript: each depends on its position,
// so that a byte that is missing, repeated or out of place is noticed.
func Fill(from, to int64) []byte {
	b := make([]byte, 0, to-from)
	for p := from; p < to; p++ {
		b = append(b, byte(33+(p+p/256*7)%94))
	}
	return b
}
