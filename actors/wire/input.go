package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
)

// NewInput returns the params for bytes that did not travel as JSON. It keeps data.
func NewInput(executionID string, data []byte, offset int64, eof bool) *InputParams {
	return &InputParams{ExecutionID: executionID, EOF: eof, Offset: &offset, decoded: data}
}

// Bytes returns the decoded Data. It cannot fail for params that Decode or DecodeParams returned,
// because they have decoded base64 already. The caller must not modify the result.
func (p *InputParams) Bytes() ([]byte, error) {
	if p.decoded != nil {
		return p.decoded, nil
	}
	if p.Encoding != EncodingBase64 {
		return []byte(p.Data), nil
	}
	return base64.StdEncoding.DecodeString(p.Data)
}

// dataHead and dataTail enclose the data that MarshalJSON writes.
const (
	dataHead = `{"data":"`
	dataTail = `","encoding":"base64",`
)

// MarshalJSON writes what NewInput made in EncodingBase64, with the data first: encoding/json would look at each
// byte of it several times.
func (p *InputParams) MarshalJSON() ([]byte, error) {
	type members InputParams
	var rest bytes.Buffer
	e := json.NewEncoder(&rest)
	e.SetEscapeHTML(false) // as the caller's encoder decides, which would not take it back
	if err := e.Encode(members(*p)); err != nil {
		return nil, err
	}
	if p.Data != "" || len(p.decoded) == 0 {
		return rest.Bytes(), nil
	}
	size := len(dataHead) + base64.StdEncoding.EncodedLen(len(p.decoded)) + len(dataTail) + rest.Len()
	out := append(make([]byte, 0, size), dataHead...)
	out = base64.StdEncoding.AppendEncode(out, p.decoded)
	out = append(out, dataTail...)
	return append(out, rest.Bytes()[1:]...), nil
}

// decodeInput is DecodeParams for params as MarshalJSON writes them. It returns nil for all others.
func decodeInput(raw []byte) *InputParams {
	text, ok := bytes.CutPrefix(raw, []byte(dataHead))
	if !ok {
		return nil
	}
	end := bytes.IndexByte(text, '"')
	if end <= 0 || bytes.IndexByte(text[:end], '\n') >= 0 || bytes.IndexByte(text[:end], '\r') >= 0 {
		return nil // a decoder of base64 skips line breaks, which no string of JSON has
	}
	rest, ok := bytes.CutPrefix(text[end:], []byte(dataTail))
	if !ok || notUTF8(rest) >= 0 {
		return nil
	}
	data, err := base64.StdEncoding.AppendDecode(nil, text[:end])
	if err != nil {
		return nil
	}
	// The other members are decoded beside data of three bytes.
	params, refused := decodeParams(MethodInput, append([]byte(dataHead+"AAAA"+dataTail), rest...))
	p, ok := params.(*InputParams)
	if refused != nil || !ok {
		return nil
	}
	p.Data, p.decoded = "", data
	return p
}
