package gateway

import "errors"

var (
	// ErrNoToken says that a token is needed and none came.
	ErrNoToken = errors.New("a bearer token is required")
	// ErrBadToken says that the token is unknown, expired or malformed: one answer for all.
	ErrBadToken = errors.New("the bearer token is not valid")
	// ErrForbidden says that the client is known and may not use this server.
	ErrForbidden = errors.New("this subject may not use this server")

	errClosing            = errors.New("the server is stopping")
	errTooManyConnections = errors.New("too many connections")
	errBearerAlone        = errors.New("offer the subprotocol " + Subprotocol + " together with the bearer token's")
	errMalformedToken     = errors.New("the bearer token is malformed")
)
