package gateway

import (
	"log/slog"
	"net/http"
	"time"
)

const (
	// headerTimeout bounds a handshake: a client that sends its headers slowly holds a goroutine
	// and 8 KiB.
	headerTimeout = 10 * time.Second
	// keepAlive is how long a plain HTTP connection may be idle between requests.
	keepAlive = 60 * time.Second
	// maxHeader has room for a large bearer token, and for its base64 in the subprotocol header.
	maxHeader = 32 << 10
)

// NewHTTPServer returns a server with timeouts for requests from the open network. They do not
// apply to upgraded connections: net/http clears the deadlines of a connection when it is hijacked,
// and the gateway sets its own. There is no write timeout, because a profile of the admin handler
// takes as long as its request asks for.
func NewHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// A WebSocket over HTTP/2 needs another handshake (https://www.rfc-editor.org/rfc/rfc8441),
	// which coder/websocket v1.8 does not implement (https://github.com/coder/websocket/issues/4).
	// Offering HTTP/2 would break browsers that use it.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeader,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
