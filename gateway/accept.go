package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/turn"
	"github.com/troupe-dev/troupe/actors/wire"
)

// serveWebSocket authenticates a client and upgrades its request to a socket. The handler returns
// once the socket's own goroutines run, which frees what net/http keeps for a request (headers,
// buffers, a grown stack).
func (g *Gateway) serveWebSocket(w http.ResponseWriter, r *http.Request, endsWithConnection bool) {
	subject, status, err := g.authenticate(r)
	if err != nil {
		g.refuse(w, r, status, err)
		return
	}
	binary, err := wantsBinary(r)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, refusal{Error: err.Error()})
		return
	}
	session := r.URL.Query().Get("session")
	isolated, status, err := g.wantsIsolation(r, session)
	if err != nil {
		writeJSON(w, status, refusal{Error: err.Error()})
		return
	}
	options, err := g.sessionOptions(r, session, endsWithConnection)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, refusal{Error: err.Error()})
		return
	}
	if err := g.place(r, subject, session); err != nil {
		g.refusePlace(w, r, subject, err)
		return
	}
	new(turn.Turn).Pass(turn.Requests)
	s := newSocket(g, subject, r.RemoteAddr)
	s.ws, err = websocket.Accept(hijackInto{w, s.conn}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // checkOrigin has verified the origin
		CompressionMode:    websocket.CompressionDisabled,
		OnPingReceived:     s.pinged,
	})
	if err != nil {
		// Accept has sent the error.
		g.unplace(subject, session)
		g.log.Debug("handshake failed", "subject", subject, "remote", r.RemoteAddr, "err", err)
		return
	}
	s.ws.SetReadLimit(-1) // readMessage has its own limit, with a close reason that says what to do
	s.traceparent, s.binary = traceparent(r), binary
	s.setSession(session)
	s.engine = g.cfg.Engine.Connect(actors.ConnectRequest{
		Subject: subject, Remote: r.RemoteAddr, SessionID: s.sessionID(), EndsWithConnection: endsWithConnection,
		Isolated: isolated, Options: options,
	}, s)
	g.add(s)
	if session != "" {
		g.resumes.add(s)
	}
	g.log.Info("connection opened", "subject", subject, "remote", r.RemoteAddr, "session", s.sessionID())
	go s.read()
	go s.write()
}

// wantsBinary reports whether the client asks for binary frames.
func wantsBinary(r *http.Request) (bool, error) {
	switch frames := r.URL.Query().Get("frames"); frames {
	case "", "text":
		return false, nil
	case "binary":
		return true, nil
	default:
		return false, fmt.Errorf("unknown frames %.64q: use binary, or leave it out for text", frames)
	}
}

// wantsIsolation reports whether the client asks for a session that the kernel separates from others. Where that cannot
// be had, the client is refused before anything of it runs, with the returned status.
func (g *Gateway) wantsIsolation(r *http.Request, session string) (isolated bool, status int, err error) {
	switch level := r.URL.Query().Get("isolation"); {
	case level == "" || level == "none":
		return false, 0, nil
	case level != wire.IsolationSession:
		return false, http.StatusBadRequest, fmt.Errorf("unknown isolation %.64q: use session, or leave it out", level)
	case session != "":
		return false, http.StatusBadRequest, errors.New("isolation is for a new session: leave it out together with session=")
	}
	switch got := g.cfg.Engine.Stats().Isolation; got {
	case wire.IsolationSession:
		return true, 0, nil
	case "":
		return false, http.StatusServiceUnavailable, errors.New("there is no runner yet: try again")
	default:
		return false, http.StatusPreconditionFailed, fmt.Errorf(
			"this server does not separate sessions (isolation is %s): leave out isolation=session, or use another server", got)
	}
}

// place makes room for a socket. session is the one that it asks for.
func (g *Gateway) place(r *http.Request, subject, session string) error {
	if session != "" {
		if err := g.resumes.enter(r.Context(), g, subject); err != nil {
			return err
		}
	}
	err := g.reserve(subject)
	if err != nil && session != "" {
		g.resumes.leave(subject)
	}
	return err
}

// unplace undoes place.
func (g *Gateway) unplace(subject, session string) {
	if session != "" {
		g.resumes.leave(subject)
	}
	g.unreserve(subject)
}

// maxTraceparent bounds what a connection keeps of the header for its whole life. Version 00 has 55
// bytes; later versions may be longer
// (https://www.w3.org/TR/trace-context/#versioning-of-traceparent).
const maxTraceparent = 256

// traceparent returns the W3C Trace Context of the handshake, or "". The engine validates it.
func traceparent(r *http.Request) string {
	value := r.Header.Get("Traceparent")
	if len(value) > maxTraceparent {
		return ""
	}
	return value
}

func refusalReason(err error) string {
	var at *subjectAtLimit
	switch {
	case errors.As(err, &at):
		return at.reason
	case errors.Is(err, errClosing):
		return refusedStopping
	case errors.Is(err, errTooManyResumes):
		return refusedUnresumed
	}
	return refusedFull
}

// placeRetry is how soon a client that got no place may try again.
const placeRetry = 5 * time.Second

// refusePlace answers an authenticated client for which there is no place: 429 if its subject has as
// many connections as one may, 503 if it is the server.
func (g *Gateway) refusePlace(w http.ResponseWriter, r *http.Request, subject string, err error) {
	reason, status, body := refusalReason(err), http.StatusServiceUnavailable, refusal{Error: err.Error()}
	var at *subjectAtLimit
	if errors.As(err, &at) {
		status = http.StatusTooManyRequests
		body.Code = wire.CodeSessionLimit
		body.Data = &wire.ErrorData{
			Limit: at.limit, Value: float64(at.value), RetryAfterSeconds: placeRetry.Seconds(),
		}
	}
	g.metrics.refused.WithLabelValues(reason).Inc()
	g.log.Info("connection refused", "subject", subject, "remote", r.RemoteAddr, "status", status, "reason", reason)
	w.Header().Set("Retry-After", strconv.Itoa(int(placeRetry.Seconds())))
	writeJSON(w, status, body)
}

// refuse answers a client that may not connect.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	writeJSON(w, status, g.refused(w, r, status, err))
}

// refused returns the answer to a client that may not connect, and sets its headers. Neither the answer nor the log
// contains the token.
func (g *Gateway) refused(w http.ResponseWriter, r *http.Request, status int, err error) refusal {
	body := refusal{Error: err.Error()}
	level := slog.LevelInfo
	RetryLater(w.Header(), err)
	switch status {
	case http.StatusUnauthorized:
		// https://www.rfc-editor.org/rfc/rfc6750#section-3
		challenge := `Bearer realm="troupe"`
		if g.cfg.ResourceMetadata != "" {
			challenge += fmt.Sprintf(", resource_metadata=%q", g.cfg.ResourceMetadata)
		}
		w.Header().Set("WWW-Authenticate", challenge)
	case http.StatusTooManyRequests:
		level = slog.LevelDebug // the failures that have led to it were logged
	case http.StatusServiceUnavailable:
		level = slog.LevelError
		body.Error = "authentication is unavailable, try again"
		w.Header().Set("Retry-After", "5")
	}
	g.log.Log(r.Context(), level, "connection refused", "remote", r.RemoteAddr, "status", status, "err", err)
	return body
}

// newSocket returns a socket before its handshake.
func newSocket(g *Gateway, subject, remote string) *socket {
	s := &socket{
		g: g, log: g.log, subject: subject, remote: remote, opened: time.Now(),
		conn: &netConn{metrics: g.metrics, timeout: g.cfg.WriteTimeout},
		wake: make(chan struct{}, 1), dead: make(chan struct{}), readerDone: make(chan struct{}),
	}
	s.capacity.L = &s.mu
	s.permit.socket = s
	return s
}
