package conformance

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// Subprotocols of a client that cannot set headers; docs/protocol.md describes them.
const (
	subprotocol  = "troupe.v1"
	bearerPrefix = "base64url.bearer.authorization.troupe.dev."
)

// tokenOf returns the token of a handshake, in either form.
func tokenOf(req *http.Request) string {
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	for _, header := range req.Header.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(header, ",") {
			if encoded, ok := strings.CutPrefix(strings.TrimSpace(protocol), bearerPrefix); ok {
				token, _ := base64.RawURLEncoding.DecodeString(encoded)
				return string(token)
			}
		}
	}
	return ""
}
