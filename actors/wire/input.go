package wire

import "encoding/base64"

// Bytes returns the decoded Data. It cannot fail for params that Decode or DecodeParams returned,
// because they have decoded base64 already. The caller must not modify the result.
func (p *InputParams) Bytes() ([]byte, error) {
	if p.Encoding != EncodingBase64 {
		return []byte(p.Data), nil
	}
	if p.decoded != nil {
		return p.decoded, nil
	}
	return base64.StdEncoding.DecodeString(p.Data)
}
