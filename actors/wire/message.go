package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// Message is what a server sends, as its client sees it: an answer (ID and
// Result or Err) or a notification (Method and Params).
type Message struct {
	// ID is the id of the request that this message answers. It is "null" for an error that belongs to
	// no request, and empty for a notification.
	ID     ID
	Result json.RawMessage // of an answer
	Err    *Error          // of an answer
	Method string          // of a notification
	Params json.RawMessage // of a notification other than process.output
	Output *Output         // params of process.output, decoded
}

// DecodeServerMessage decodes a frame that a server sent. Nothing in the
// message shares memory with frame. The common shape of process.output takes a
// fast path; every other frame is decoded by encoding/json, with the same result.
// Callers that read much output use DecodeOutput first.
func DecodeServerMessage(frame []byte) (Message, error) {
	if out, ok := parseOutput(frame); ok {
		return Message{Method: MethodOutput, Output: out}, nil
	}
	return decodeServerMessage(frame)
}

func decodeServerMessage(frame []byte) (Message, error) {
	var m struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Result  json.RawMessage `json:"result"`
		Error   *Error          `json:"error"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params"`
	}
	if err := json.Unmarshal(frame, &m); err != nil {
		return Message{}, fmt.Errorf("wire: decoding a server message: %w", err)
	}
	if m.JSONRPC != "2.0" {
		return Message{}, errors.New(`wire: a server message without "jsonrpc":"2.0"`)
	}
	switch {
	case m.Method == MethodOutput:
		var out Output
		if err := json.Unmarshal(m.Params, &out); err != nil {
			return Message{}, fmt.Errorf("wire: decoding process.output: %w", err)
		}
		return Message{Method: m.Method, Output: &out}, nil
	case m.Method != "":
		return Message{Method: m.Method, Params: m.Params}, nil
	case m.Error != nil || m.Result != nil:
		return Message{ID: ID(m.ID), Result: m.Result, Err: m.Error}, nil
	}
	return Message{}, errors.New("wire: a server message that is neither an answer nor a notification")
}

// Bytes returns the bytes of the piece. In EncodingBase64 they are exactly the command's; in
// EncodingUTF8 each byte that was not valid UTF-8 is replaced by U+FFFD.
func (o *Output) Bytes() ([]byte, error) {
	if o.Encoding != EncodingBase64 {
		return []byte(o.Data), nil
	}
	b, err := base64.StdEncoding.DecodeString(o.Data)
	if err != nil {
		return nil, fmt.Errorf("wire: process.output data: %w", err)
	}
	return b, nil
}

// The fixed parts of the message that AppendOutput writes, in order.
var (
	outputHead      = []byte(`{"jsonrpc":"2.0","method":"process.output","params":{"execution_id":"`)
	outputStdout    = []byte(`","type":"stdout","data":"`)
	outputStderr    = []byte(`","type":"stderr","data":"`)
	outputBase64    = []byte(`","encoding":"base64","truncated":`)
	outputUTF8      = []byte(`","truncated":`)
	outputFalse     = []byte(`false,"offset":`)
	outputTrue      = []byte(`true,"offset":`)
	outputGap       = []byte(`,"gap":`)
	outputTail      = []byte(`}}`)
	outputMaxDigits = 18 // any number of so many digits fits an int64
)

// DecodeOutput decodes process.output as servers write it, into the caller's buffer: payload holds
// the bytes of the piece, as Output.Bytes returns them, in buf if that is large enough. Output.Data
// stays empty. If ok is false the frame may still be valid, so call DecodeServerMessage.
func DecodeOutput(frame, buf []byte) (o Output, payload []byte, ok bool) {
	o, payload, raw, ok := parse(frame, buf[:0])
	if !ok || o.Encoding != EncodingBase64 {
		return o, payload, ok
	}
	if len(raw) != len(payload) { // an escape where base64 has none
		return o, nil, false
	}
	payload = payload[:cap(payload)]
	n, err := base64.StdEncoding.Decode(payload, raw)
	return o, payload[:n], err == nil
}

// parseOutput decodes exactly the messages that AppendOutput writes. If ok is false, frame is
// another message or an unusual form of this one, and may still be valid.
func parseOutput(frame []byte) (out *Output, ok bool) {
	if !bytes.HasPrefix(frame, outputHead) {
		return nil, false
	}
	o, data, _, ok := parse(frame, make([]byte, 0, len(frame))) // data is nearly all of it
	if !ok {
		return nil, false
	}
	o.Data = string(data)
	return &o, true
}

// parse appends the unescaped data to buf. raw is the data as it appears in frame.
func parse(frame, buf []byte) (o Output, data, raw []byte, ok bool) {
	rest, ok := bytes.CutPrefix(frame, outputHead)
	if !ok {
		return o, nil, nil, false
	}
	n := plainRun(rest)
	o.ExecutionID = string(rest[:n])
	rest = rest[n:]
	if after, ok := bytes.CutPrefix(rest, outputStdout); ok {
		o.Type, rest = Stdout, after
	} else if after, ok := bytes.CutPrefix(rest, outputStderr); ok {
		o.Type, rest = Stderr, after
	} else {
		return o, nil, nil, false
	}
	inside := rest
	if data, rest, ok = appendUnescaped(buf, rest); !ok {
		return o, nil, nil, false
	}
	raw = inside[:len(inside)-len(rest)]
	if after, ok := bytes.CutPrefix(rest, outputBase64); ok {
		o.Encoding, rest = EncodingBase64, after
	} else if rest, ok = bytes.CutPrefix(rest, outputUTF8); !ok {
		return o, nil, nil, false
	}
	if after, ok := bytes.CutPrefix(rest, outputTrue); ok {
		o.Truncated, rest = true, after
	} else if rest, ok = bytes.CutPrefix(rest, outputFalse); !ok {
		return o, nil, nil, false
	}
	if o.Offset, rest, ok = parseCount(rest); !ok {
		return o, nil, nil, false
	}
	if after, ok := bytes.CutPrefix(rest, outputGap); ok {
		if o.Gap, rest, ok = parseCount(after); !ok {
			return o, nil, nil, false
		}
	}
	if !bytes.Equal(rest, outputTail) {
		return o, nil, nil, false
	}
	return o, data, raw, true
}

// parseCount reads a non-negative integer in the one form that JSON and strconv share.
func parseCount(b []byte) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		n = n*10 + int64(b[i]-'0')
		if i++; i > outputMaxDigits {
			return 0, b, false
		}
	}
	if i == 0 || (b[0] == '0' && i > 1) {
		return 0, b, false
	}
	return n, b[i:], true
}
