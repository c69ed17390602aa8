package wire

import "encoding/base64"

// Bytes returns Data decoded.
func (p *InputParams) Bytes() ([]byte, error) {
	if p.Encoding == EncodingBase64 {
		return base64.StdEncoding.DecodeString(p.Data)
	}
	return []byte(p.Data), nil
}
