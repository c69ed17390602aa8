package k8s

import (
	"errors"
	"fmt"
)

var (
	// ErrNoCluster means that this process is not in a pod with a service account. The error that
	// wraps it names what is missing.
	ErrNoCluster = errors.New("not in a Kubernetes cluster")
	// ErrBadToken means that the API server does not accept the token for our audience: it has
	// expired, was deleted, is malformed or is for another audience.
	ErrBadToken = errors.New("the token is not valid")

	errBusy   = errors.New("too many tokens are waiting for a review")
	errClosed = errors.New("the authenticator is closed")
)

// DeniedError means that the API server knows the client, but does not permit it what it asks for.
type DeniedError struct {
	Subject   string // the user's name, such as system:serviceaccount:default:ci
	Namespace string // in which it lacks the permission
	Verb      string // on sessions.troupe.dev
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s may not %s %s.%s in the namespace %s",
		e.Subject, e.Verb, sessionResource, sessionGroup, e.Namespace)
}
