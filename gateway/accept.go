package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
)

// serveWebSocket authenticates a client and makes its request a connection.
// The handler returns once the connection's own goroutines run: what net/http
// keeps for a request (headers, buffers, a grown stack) goes with it.
func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request, endsWithConnection bool) {
	subject, status, err := g.authenticate(r)
	if err != nil {
		g.refuse(w, r, status, err)
		return
	}
	if err := g.reserve(); err != nil {
		g.metrics.refused.WithLabelValues(refusalReason(err)).Inc()
		w.Header().Set("Retry-After", "5")
		writeJSON(w, http.StatusServiceUnavailable, refusal{err.Error()})
		return
	}
	c := newConn(g, subject, r.RemoteAddr)
	c.ws, err = websocket.Accept(hijackInto{w, c.sock}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // checkOrigin did
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		// Accept has answered.
		g.unreserve()
		g.log.Debug("handshake failed", "subject", subject, "remote", r.RemoteAddr, "err", err)
		return
	}
	c.ws.SetReadLimit(-1) // readMessage has its own, with a close reason that says what to do
	c.traceparent = traceparent(r)
	c.setSession(r.URL.Query().Get("session"))
	c.engine = g.cfg.Engine.Connect(actors.ConnectRequest{
		Subject: subject, Remote: r.RemoteAddr, SessionID: c.sessionID(), EndsWithConnection: endsWithConnection,
	}, c)
	g.add(c)
	g.log.Info("connection opened", "subject", subject, "remote", r.RemoteAddr, "session", c.sessionID())
	go c.read()
	go c.write()
}

// maxTraceparent bounds what is kept of a header for as long as the connection
// lasts: today's form has 55 bytes, later ones may have more.
const maxTraceparent = 256

// traceparent returns the W3C Trace Context of the handshake, or "". The engine judges its form.
func traceparent(r *http.Request) string {
	value := r.Header.Get("Traceparent")
	if len(value) > maxTraceparent {
		return ""
	}
	return value
}

func refusalReason(err error) string {
	if errors.Is(err, errClosing) {
		return refusedStopping
	}
	return refusedFull
}

// refuse answers a client that may not connect. The token is in none of it.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	body := refusal{err.Error()}
	level := slog.LevelInfo
	switch status {
	case http.StatusUnauthorized:
		// RFC 6750 section 3.
		w.Header().Set("WWW-Authenticate", `Bearer realm="troupe"`)
	case http.StatusServiceUnavailable:
		level = slog.LevelError
		body.Error = "authentication is not available, try again"
		w.Header().Set("Retry-After", "5")
	}
	g.log.Log(r.Context(), level, "connection refused", "remote", r.RemoteAddr, "status", status, "err", err)
	writeJSON(w, status, body)
}

// newConn makes a connection that has no socket yet.
func newConn(g *Gateway, subject, remote string) *conn {
	c := &conn{
		g: g, log: g.log, subject: subject, remote: remote, opened: time.Now(),
		sock: &socket{metrics: g.metrics, timeout: g.cfg.WriteTimeout},
		wake: make(chan struct{}, 1), dead: make(chan struct{}), readerDone: make(chan struct{}),
	}
	c.room.L = &c.mu
	return c
}
