package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
)

// MaxOutputMessage is the maximum size of a process.output message on the wire, framing excluded.
// It is small enough that executions which share a connection take turns often, and large enough
// that the cost per message is negligible.
const MaxOutputMessage = 64 << 10

// minOutputMessage leaves room for the envelope with the longest execution_id and a little payload.
const minOutputMessage = 1 << 10

// base64Quantum is the unit at which base64 payload is cut, so that only the last message has
// padding.
const base64Quantum = 3

// AppendOutput appends one process.output message to dst and returns how much
// of payload it took: as much as keeps the message within maxMessage bytes
// (values below 1,024 count as 1,024). It cuts after a newline where a late
// one is near, else between runes, so call it again with the rest.
//
// o describes the whole of payload; its Data is ignored. o.Offset is the
// position after all of payload, and the message carries the position after
// what it took. Gap belongs to the first message of a payload and Truncated to
// the last: the caller clears o.Gap after the first call, and a message that
// does not take all of payload says truncated false.
//
// In EncodingUTF8 each byte that is not part of valid UTF-8 becomes U+FFFD.
// It does not allocate when dst has maxMessage bytes to spare.
func AppendOutput(dst []byte, o *Output, payload []byte, maxMessage int) (msg []byte, consumed int) {
	maxMessage = max(maxMessage, minOutputMessage)
	base := len(dst)
	dst = append(dst, `{"jsonrpc":"2.0","method":"process.output","params":{"execution_id":`...)
	dst = AppendString(dst, o.ExecutionID)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, o.Type...)
	dst = append(dst, `","data":"`...)

	room := maxMessage - (len(dst) - base) - outputTailMax
	if o.Encoding == EncodingBase64 {
		consumed = min(len(payload), room/4*base64Quantum)
		dst = base64.StdEncoding.AppendEncode(dst, payload[:consumed])
		dst = append(dst, `","encoding":"base64"`...)
	} else {
		dst, consumed = appendEscaped(dst, payload, room)
		if consumed < len(payload) {
			dst, consumed = cutAtNewline(dst, payload, consumed)
		}
		dst = append(dst, '"')
	}

	if o.Truncated && consumed == len(payload) {
		dst = append(dst, `,"truncated":true,"offset":`...)
	} else {
		dst = append(dst, `,"truncated":false,"offset":`...)
	}
	dst = strconv.AppendInt(dst, o.Offset-int64(len(payload)-consumed), 10)
	if o.Gap != 0 {
		dst = append(dst, `,"gap":`...)
		dst = strconv.AppendInt(dst, o.Gap, 10)
	}
	return append(dst, "}}"...), consumed
}

// outputTailMax is the longest text that AppendOutput writes after data.
const outputTailMax = len(`","encoding":"base64","truncated":false,"offset":-9223372036854775808,"gap":-9223372036854775808}}`)

// cutAtNewline removes the text after the last newline if that is less than half, so that a client
// that prints pieces as they arrive does not show partial lines.
func cutAtNewline(dst, payload []byte, consumed int) (msg []byte, taken int) {
	// It searches in blocks, because IndexByte is vectorized and LastIndexByte is not.
	const block = 1 << 10
	for end := consumed; end > consumed/2; end -= block {
		start := max(consumed/2, end-block)
		if bytes.IndexByte(payload[start:end], '\n') < 0 {
			continue
		}
		taken = start + bytes.LastIndexByte(payload[start:end], '\n') + 1
		return dst[:len(dst)-escapedLen(payload[taken:consumed])], taken
	}
	return dst, consumed
}

// AppendResponse appends the answer to the request with the given id: err if it is set, else
// result.
func AppendResponse(dst []byte, id ID, result any, err *Error) ([]byte, error) {
	if len(id) == 0 {
		id = NullID
	}
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	dst = append(dst, id...)
	body := result
	if err != nil {
		dst = append(dst, `,"error":`...)
		body = err
	} else {
		dst = append(dst, `,"result":`...)
	}
	return appendJSON(dst, body)
}

// AppendNotification appends a notification. Nil params are left out.
func AppendNotification(dst []byte, method string, params any) ([]byte, error) {
	dst = append(dst, `{"jsonrpc":"2.0","method":`...)
	dst = AppendString(dst, method)
	if params == nil {
		return append(dst, '}'), nil
	}
	dst = append(dst, `,"params":`...)
	return appendJSON(dst, params)
}

// AppendRequest appends a request of a client, or a notification if id is empty. Nil params are
// left out. It fails if a string in params is not UTF-8, see CheckText.
func AppendRequest(dst []byte, id ID, method string, params any) ([]byte, error) {
	if err := CheckText(params); err != nil {
		return dst, err
	}
	dst = append(dst, `{"jsonrpc":"2.0","method":`...)
	dst = AppendString(dst, method)
	if len(id) > 0 {
		dst = append(dst, `,"id":`...)
		dst = append(dst, id...)
	}
	if params == nil {
		return append(dst, '}'), nil
	}
	dst = append(dst, `,"params":`...)
	return appendJSON(dst, params)
}

// appendJSON appends v and the brace that closes the envelope.
func appendJSON(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	dst = append(dst, b...)
	return append(dst, '}'), nil
}
