package gateway

import "errors"

var (
	// ErrNoToken means that the client sent no token and needs one.
	ErrNoToken = errors.New("a bearer token is required")
	// ErrBadToken means that the token is unknown, expired or malformed. All three get one answer.
	ErrBadToken = errors.New("the bearer token is not valid")
	// ErrForbidden means that the client is known but may not use this server.
	ErrForbidden = errors.New("this subject may not use this server")

	errClosing            = errors.New("the server is stopping")
	errTooManyConnections = errors.New("too many connections: try again later")
	errTooManyResumes     = errors.New("too many connections have yet to send resume: try again")
	errBearerAlone        = errors.New("offer the subprotocol " + Subprotocol + " together with the bearer token's")
	errMalformedToken     = errors.New("the bearer token is malformed")
)

// subjectAtLimit refuses a connection of a subject that has as many as one may.
type subjectAtLimit struct {
	reason string // label of the metric
	limit  string // as in wire.ErrorData
	value  int
	text   string
}

func (e *subjectAtLimit) Error() string { return e.text }
