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
	errLastConnections    = errors.New(
		"the last connections are for subjects that have none: close one of yours, or try again later")
	errBearerAlone    = errors.New("offer the subprotocol " + Subprotocol + " together with the bearer token's")
	errMalformedToken = errors.New("the bearer token is malformed")
)
