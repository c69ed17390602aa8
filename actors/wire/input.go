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

// MarshalJSON writes what NewInput made in EncodingBase64.
func (p *InputParams) MarshalJSON() ([]byte, error) {
	type members InputParams
	out := members(*p)
	if out.Data == "" && len(p.decoded) > 0 {
		out.Data, out.Encoding = base64.StdEncoding.EncodeToString(p.decoded), EncodingBase64
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // as the caller's encoder decides, which would not take it back
	if err := e.Encode(out); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
