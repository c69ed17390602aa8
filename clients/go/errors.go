package troupe

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

// Ends of a session. Every open Execution and request of the Client fails with
// an error that wraps one of them.
var (
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("client is closed")
	// ErrDetached means that Detach was called. The session goes on without this Client.
	ErrDetached = errors.New("client is detached")
	// ErrNoSession means that the server knows no such session, or that the
	// resume token is wrong (-32006). A session whose resume window passed, or
	// that was closed elsewhere, is gone too.
	ErrNoSession = errors.New("no such session")
	// ErrSessionLost means that the pod that owned the session is gone, along with everything that ran
	// in it (-32007).
	ErrSessionLost = errors.New("session lost")
	// ErrSessionEnded means that the server ended the session, for example after its idle timeout.
	ErrSessionEnded = errors.New("session ended by the server")
	// ErrUnreachable means that no connection could be made for the whole resume window.
	ErrUnreachable = errors.New("server not reachable for the whole resume window")
)

// Errors of single executions and requests.
var (
	// ErrUnknownExecution means that the session does not know the execution.
	ErrUnknownExecution = errors.New("no such execution in this session")
	// ErrUnknownOutcome means that the connection ended after a request was
	// written and before it was answered, and that sending it again could do it twice.
	ErrUnknownOutcome = errors.New("the connection ended before the answer: it is unknown whether the request arrived")
	// ErrInputConflict means that another client has written to the stdin of the execution too, and
	// that the server took the input of this Client for a repetition of the other's.
	ErrInputConflict = errors.New("another client writes to the stdin of the execution")
	// ErrFollowed means that this Client already follows an execution of that id.
	ErrFollowed = errors.New("execution is already followed by this client")
	// ErrDiscarded means that Discard was called on the Execution.
	ErrDiscarded = errors.New("output is discarded")
	// ErrTooLarge means that a request is larger than the server's max-message. It was not sent.
	ErrTooLarge = errors.New("request is larger than the server accepts")
)

// Causes of a lost connection, seen in Notice.Err.
var (
	// ErrKeepaliveTimeout means that the server sent nothing for Options.KeepaliveTimeout.
	ErrKeepaliveTimeout = errors.New("nothing heard from the server")
	errHole             = errors.New("output is not contiguous")
)

// errDrained is the cause of a session's end when its server is stopping.
var errDrained = errors.New("it is stopping")

// CloseCode returns the WebSocket close code in err, which is a Notice.Err: the code
// with which the server ended the connection, or 0 if it ended without one.
func CloseCode(err error) int {
	return max(0, int(websocket.CloseStatus(err)))
}

// HandshakeError is an HTTP answer to the WebSocket handshake other than 101.
type HandshakeError struct {
	StatusCode int    // HTTP status
	Body       string // at most the first 1,024 bytes
}

func (e *HandshakeError) Error() string {
	msg := fmt.Sprintf("server answered the WebSocket handshake with %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	if e.Body != "" {
		msg += ": " + e.Body
	}
	return msg
}

// Temporary reports whether trying again may help. A 404 may come from an ingress that has no
// backend at the moment: some ingresses drop the route of a service without a ready pod, so a
// client that reconnects during a restart may receive it.
func (e *HandshakeError) Temporary() bool {
	switch e.StatusCode {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.StatusCode >= 500
}

// GapError is returned by Run when bytes of the output no longer exist on the server.
type GapError struct {
	ExecutionID string
	Bytes       int64
}

func (e *GapError) Error() string {
	return fmt.Sprintf("%d bytes of the output of %s are no longer on the server", e.Bytes, e.ExecutionID)
}

// InputError says how much of an input was delivered.
type InputError struct {
	Delivered int   // bytes known to be in the command's pipe
	InDoubt   int   // bytes after those that may or may not have arrived
	Err       error // ErrUnknownOutcome, a *wire.Error, or the context's error
}

func (e *InputError) Error() string {
	if e.InDoubt > 0 {
		return fmt.Sprintf("input: %d bytes arrived, %d may have: %v", e.Delivered, e.InDoubt, e.Err)
	}
	return fmt.Sprintf("input: %d bytes arrived: %v", e.Delivered, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// sessionEnd is the final end of a session: kind is one of the sentinels, and cause is the
// evidence.
type sessionEnd struct{ kind, cause error }

func (e *sessionEnd) Error() string {
	if e.cause == nil {
		return e.kind.Error()
	}
	return e.kind.Error() + ": " + e.cause.Error()
}

func (e *sessionEnd) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// Close codes of the server that end the session, from wire.Cause.Code.
const (
	statusNoSession   websocket.StatusCode = 4006
	statusSessionLost websocket.StatusCode = 4007
)

// endOfSocket returns the error for a close code that ends the session, or nil if the
// session may still exist.
func endOfSocket(err error) error {
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure:
		return &sessionEnd{ErrSessionEnded, nil}
	case statusNoSession:
		return &sessionEnd{ErrNoSession, nil}
	case statusSessionLost:
		return &sessionEnd{ErrSessionLost, nil}
	}
	return nil
}
