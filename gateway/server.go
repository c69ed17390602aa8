package gateway

import (
	"log/slog"
	"net/http"
	"time"
)

const (
	// headerTimeout bounds a handshake: a client that trickles its headers holds a goroutine and 8 KiB.
	headerTimeout = 10 * time.Second
	// keepAlive is how long a plain HTTP connection may idle between requests.
	keepAlive = 60 * time.Second
	// maxHeader has room for a large bearer token, twice over for the subprotocol's base64.
	maxHeader = 32 << 10
)

// NewHTTPServer returns a server with timeouts for requests that come over the
// open network. Upgraded connections leave them behind: net/http clears all
// deadlines when a connection is hijacked, and the gateway sets its own. There
// is no timeout for writes, because the admin handler's profiles take as long as asked.
func NewHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// A WebSocket over HTTP/2 is another handshake (RFC 8441), which the library
	// does not have: offering HTTP/2 would break browsers that take it up.
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
