package actors

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// A resume token is a random number and its signature with the session's key, both in hexadecimal. So any number of
// tokens is valid for as long as the session lasts, and none is kept.
const (
	tokenNonce     = 16 // bytes
	tokenSignature = 16 // bytes
)

func (s *session) issueToken() string {
	nonce := randomHex(tokenNonce)
	return nonce + s.signature(nonce)
}

// issued reports whether a token is one of this session. Its running time reveals nothing about the signature.
func (s *session) issued(token string) bool {
	if len(token) != 2*(tokenNonce+tokenSignature) {
		return false
	}
	nonce, signature := token[:2*tokenNonce], token[2*tokenNonce:]
	return hmac.Equal([]byte(signature), []byte(s.signature(nonce)))
}

func (s *session) signature(nonce string) string {
	mac := hmac.New(sha256.New, s.tokenKey[:])
	mac.Write([]byte(nonce)) // a hash does not fail
	return hex.EncodeToString(mac.Sum(nil)[:tokenSignature])
}
