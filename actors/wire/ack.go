package wire

import (
	"bytes"
	"strconv"
)

// The fixed parts of an ack as AppendRequest writes it, in order.
var (
	ackHead      = []byte(`{"jsonrpc":"2.0","method":"ack","params":{"execution_id":"`)
	ackOffset    = []byte(`","offset":`)
	ackCompleted = []byte(`,"completed":true}}`)
	ackTail      = []byte(`}}`)
)

// parseAck reads the notification as clients write it. They send one for every part of a window, so
// that encoding/json's garbage would make most of what a server collects while a large file passes.
// If ok is false, frame is another message or another form of this one, and may still be valid.
func parseAck(frame []byte) (p *AckParams, ok bool) {
	rest, ok := bytes.CutPrefix(frame, ackHead)
	if !ok {
		return nil, false
	}
	id, rest, ok := bytes.Cut(rest, ackOffset)
	if !ok || bytes.ContainsAny(id, `"\`) {
		return nil, false
	}
	digits := 0
	for digits < len(rest) && digits < outputMaxDigits && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	offset, err := strconv.ParseInt(string(rest[:digits]), 10, 64)
	tail := rest[digits:]
	completed := bytes.Equal(tail, ackCompleted)
	if err != nil || digits > 1 && rest[0] == '0' || !completed && !bytes.Equal(tail, ackTail) {
		return nil, false
	}
	p = &AckParams{ExecutionID: string(id), Offset: offset, Completed: completed}
	return p, needExecutionID(p.ExecutionID) == nil
}
