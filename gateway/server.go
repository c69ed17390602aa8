package gateway

import (
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// headerTimeout bounds a handshake: a client that sends its headers slowly holds a goroutine, its
	// buffers and the header.
	headerTimeout = 5 * time.Second
	// keepAlive is how long a plain HTTP connection may be idle between requests.
	keepAlive = 15 * time.Second
	// answerTimeout bounds the answer to a request, so that a client does not hold it by not reading.
	// It includes the authentication, which may take 9 s.
	answerTimeout = 15 * time.Second
	// MaxHeader bounds a header in bytes. It has room for a large bearer token in base64.
	MaxHeader = 8 << 10
	// headerSlop is what net/http reads beyond MaxHeaderBytes (initialReadLimitSize in its server.go).
	headerSlop = 4 << 10
)

// NewHTTPServer returns a server with timeouts for requests from the open network. They do not
// apply to upgraded connections: net/http clears the deadlines of a connection when it is hijacked,
// and the gateway sets its own. Its listener is to be one of Limit, which bounds its connections.
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
		Handler:           markServing(h),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    MaxHeader - headerSlop,
		ConnContext:       withConn,
		// It would read the body of "OPTIONS *" beside our handlers, and so with a turn.
		DisableGeneralOptionsHandler: true,
		ConnState: func(c net.Conn, state http.ConnState) {
			if counted, ok := c.(*httpConn); ok {
				counted.changed(state)
			}
		},
		Protocols: protocols,
		ErrorLog:  slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
