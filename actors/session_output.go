package actors

import (
	"encoding/base64"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// OutputRange says which output of which execution to read.
type OutputRange struct {
	Execution string `json:"execution"`
	Offset    int64  `json:"offset,omitempty"` // of the first byte
	Limit     int    `json:"limit,omitempty"`  // bytes; 0: DefaultOutput, at most MaxOutput
}

// Bounds of a page of output, in bytes. A page may have less, and yet not be the last.
const (
	DefaultOutput = 16 << 10
	MaxOutput     = 64 << 10
)

const (
	// maxOutputAnswer ends a page whose JSON has so many bytes. With the longest piece behind it, each byte of
	// which takes six at most, it is below MaxAnswer.
	maxOutputAnswer = 64 << 10
	// maxOutputPiece bounds a piece, in bytes.
	maxOutputPiece = 8 << 10
)

var (
	// ErrNoExecution: the session has no such execution, or has forgotten it.
	ErrNoExecution = errors.New("no such execution")
	// ErrBadOffset: the output has not come so far.
	ErrBadOffset = errors.New("offset is past the end of the output")
)

// outputOf finds the transcript of an execution. Whoever asked reads it.
func (s *session) outputOf(execution string) queryResult {
	x := s.executions[execution]
	if x == nil {
		return queryResult{Error: queryNoExecution}
	}
	return queryResult{transcript: x.transcript, Output: &wire.OutputPage{
		SessionID: s.id, Subject: s.subject, ExecutionID: x.id,
	}}
}

// readOutput reads a page, and returns a code of queryResult. It takes nothing from the execution's readers and
// holds nobody up.
func readOutput(t *transcript.Transcript, r OutputRange, page *wire.OutputPage) string {
	page.Pieces, page.NextOffset = []wire.OutputPiece{}, r.Offset
	c, err := t.Cursor(r.Offset, nil)
	if err != nil {
		return queryBadOffset
	}
	defer func() { c.Close() }()
	left, size := r.limit(), 0
	buf := make([]byte, maxOutputPiece)
	// A rune that does not fit is left to the next page, unless the page would be empty.
	for size < maxOutputAnswer && (left >= utf8.UTFMax || left > 0 && len(page.Pieces) == 0) {
		p, err := c.Next(buf[:min(left, len(buf))])
		switch {
		case errors.Is(err, io.EOF):
			page.End = true
			return ""
		case err != nil: // nothing is there yet, or the transcript was removed
			return ""
		case p.Data == nil && p.Gap == 0: // a mark
			continue
		}
		page.NextOffset = p.Offset
		if data := wholeRunes(p.Data); len(data) < len(p.Data) {
			page.NextOffset -= int64(len(p.Data) - len(data))
			p.Data = data
			c.Close()
			if c, err = t.Cursor(page.NextOffset, nil); err != nil {
				return queryFailed
			}
		}
		piece := outputPiece(p)
		b, err := encodeJSON(piece)
		if err != nil {
			return queryFailed
		}
		left, size = left-len(p.Data), size+len(b)
		page.Pieces = append(page.Pieces, piece)
	}
	return ""
}

func (r OutputRange) limit() int {
	if r.Limit <= 0 {
		return DefaultOutput
	}
	return min(r.Limit, MaxOutput)
}

// wholeRunes leaves out what the end of b has of a rune that goes on behind it, unless there is nothing else.
func wholeRunes(b []byte) []byte {
	for i := len(b) - 1; i > 0 && len(b)-i < utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return b
			}
			return b[:i]
		}
	}
	return b
}

func outputPiece(p transcript.Piece) wire.OutputPiece {
	if p.Gap > 0 {
		return wire.OutputPiece{Gap: p.Gap}
	}
	piece := wire.OutputPiece{Stream: p.Stream.String(), Data: string(p.Data), Truncated: p.Truncated}
	if !utf8.Valid(p.Data) {
		piece.Data, piece.Encoding = base64.StdEncoding.EncodeToString(p.Data), wire.EncodingBase64
	}
	return piece
}
