package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

type readInput struct {
	executionInput
	Offset   *int64 `json:"offset"`
	Tail     int    `json:"tail"`
	Grep     string `json:"grep"`
	MaxBytes int    `json:"max_bytes"`
}

// piece is the result of read_output.
type piece struct {
	Session    string     `json:"session"`
	Execution  string     `json:"execution"`
	State      wire.State `json:"state"`
	Output     string     `json:"output"`
	Offset     int64      `json:"offset"`
	NextOffset int64      `json:"next_offset"`
	Size       int64      `json:"size"` // of the output so far
	Matches    *int       `json:"matches,omitempty"`
	Message    string     `json:"message,omitempty"`
}

// readTime bounds a read_output, which reads up to the whole of an output.
const readTime = 30 * time.Second

// readOutput returns a part of what an execution has printed.
func (d *Door) readOutput(ctx context.Context, req *sdk.CallToolRequest, in readInput) (*piece, error) {
	var grep *regexp.Regexp
	var err error
	switch {
	case in.Tail > 0 && (in.Offset != nil || in.Grep != ""):
		return nil, errors.New("tail excludes offset and grep: give one of them")
	case in.Grep != "":
		if grep, err = regexp.Compile(in.Grep); err != nil {
			return nil, fmt.Errorf("grep must be a regular expression of RE2: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	limit := bounds{MaxBytes: in.MaxBytes}.output()
	f, err := d.follow(ctx, req, in.executionInput, func(status wire.ExecutionStatus) int64 {
		switch {
		case in.Offset != nil:
			return *in.Offset
		case in.Tail > 0:
			return max(0, status.Offset-int64(limit))
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	defer f.close()
	p := &piece{
		Session: f.client.ID(), Execution: f.execution.ID(), State: f.status.State,
		Offset: f.offset, Size: f.status.Offset,
	}
	switch {
	case grep != nil:
		err = f.grep(ctx, p, grep, limit)
	case in.Tail > 0:
		err = f.tail(ctx, p, in.Tail, limit)
	default:
		err = f.next(ctx, p, limit)
	}
	return p, explain(err)
}

// each passes on what the execution has printed up to now, until take returns false.
func (f *following) each(ctx context.Context, take func(data []byte, end int64) bool) (lost int64, err error) {
	for at := f.offset; at < f.status.Offset; {
		ev, err := f.execution.Next(ctx)
		if errors.Is(err, io.EOF) {
			return lost, nil
		}
		if err != nil {
			return lost, err
		}
		switch ev := ev.(type) {
		case *troupe.Output:
			at = ev.Offset
			more := take(ev.Data, ev.Offset)
			ev.Release()
			if !more {
				return lost, nil
			}
		case *troupe.Gap:
			at = ev.Offset
			lost += ev.Bytes
		}
	}
	return lost, nil
}

// next reads as much as fits from the offset on.
func (f *following) next(ctx context.Context, p *piece, limit int) error {
	var data []byte
	start := f.offset
	lost, err := f.each(ctx, func(b []byte, end int64) bool {
		if len(data) == 0 {
			start = end - int64(len(b)) // it may begin after a gap
		} else if start+int64(len(data)) != end-int64(len(b)) {
			return false // a gap: the next call begins after it
		}
		data = append(data, b...)
		return len(data) < limit
	})
	if err != nil {
		return err
	}
	data = data[:min(int64(len(data)), f.status.Offset-start)]
	part := first(data, limit)
	p.Output, p.Offset, p.NextOffset = text(part), start, start+int64(len(part))
	if len(data) == 0 {
		p.NextOffset = f.status.Offset
	}
	p.missing(lost)
	return nil
}

// tail reads the last lines that fit.
func (f *following) tail(ctx context.Context, p *piece, lines, limit int) error {
	x := newExcerpt(limit, f.offset)
	lost, err := f.each(ctx, func(b []byte, end int64) bool { x.write(b, end); return true })
	if err != nil {
		return err
	}
	all := append(x.head, x.tail...) //nolint:gocritic // x ends here
	part := last(all, limit)
	for i := len(part) - 1; i > 0; i-- {
		if part[i-1] == '\n' {
			if lines--; lines == 0 {
				part = part[i:]
				break
			}
		}
	}
	p.Output, p.Offset, p.NextOffset = text(part), x.end-int64(len(part)), x.end
	p.missing(lost)
	return nil
}

// Lines of grep.
const (
	maxGrepLine = 64 << 10 // of a longer line the beginning is searched
	maxShown    = 400      // bytes of a line that are shown
)

// grep collects the lines that match, each with its offset.
func (f *following) grep(ctx context.Context, p *piece, re *regexp.Regexp, limit int) error {
	var line, shown []byte
	at, matches := f.offset, 0 // of the beginning of line
	search := func() {
		if re.Match(line) {
			matches++
			hit := fmt.Appendf(nil, "%d: %s\n", at, cutAtRune(line, maxShown))
			if cost(shown)+cost(hit) <= limit {
				shown = append(shown, hit...)
				p.NextOffset = at + int64(len(line))
			}
		}
	}
	lost, err := f.each(ctx, func(b []byte, end int64) bool {
		pos := end - int64(len(b))
		for len(b) > 0 {
			if len(line) == 0 {
				at = pos
			}
			i := bytes.IndexByte(b, '\n')
			n := i + 1
			if i < 0 {
				n = len(b)
			}
			line = append(line, b[:min(n, max(0, maxGrepLine-len(line)))]...)
			if i >= 0 {
				line = bytes.TrimRight(line, "\r\n")
				search()
				line = line[:0]
			}
			b, pos = b[n:], pos+int64(n)
		}
		return true
	})
	if err != nil {
		return err
	}
	if len(line) > 0 {
		search()
	}
	p.Output, p.Matches = text(shown), &matches
	if p.NextOffset == 0 || strings.Count(p.Output, "\n") == matches {
		p.NextOffset = f.status.Offset
	} else {
		p.Message = fmt.Sprintf("%d of %d matches shown; more from offset %d",
			bytes.Count(shown, []byte("\n")), matches, p.NextOffset)
	}
	p.missing(lost)
	return nil
}

func (p *piece) missing(lost int64) {
	if lost > 0 {
		p.Message = joinSentences(p.Message, fmt.Sprintf("%d bytes are no longer on the server", lost))
	}
}

func (p *piece) result() *sdk.CallToolResult {
	head := fmt.Sprintf("bytes %d to %d of %d, %s", p.Offset, p.NextOffset, p.Size, p.State)
	if p.Matches != nil {
		head = fmt.Sprintf("%d matches (offset: line) in bytes %d to %d, %s", *p.Matches, p.Offset, p.NextOffset, p.State)
	}
	if p.Message != "" {
		head += "; " + p.Message
	}
	return textResult(head + "\n" + p.Output)
}
