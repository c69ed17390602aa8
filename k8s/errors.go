package k8s

import (
	"errors"
	"fmt"
)

var (
	// ErrNoCluster says that this process is not in a pod with a service account. What is missing is wrapped with it.
	ErrNoCluster = errors.New("not in a Kubernetes cluster")
	// ErrBadToken says that the API server does not know the token, or not for our
	// audience: expired, deleted, malformed or meant for somebody else.
	ErrBadToken = errors.New("the token is not valid")

	errBusy   = errors.New("too many tokens wait to be reviewed")
	errClosed = errors.New("the authenticator is closed")
)

// DeniedError says that the API server knows the client, who has no permission to open sessions.
type DeniedError struct {
	Subject   string // the user's name, such as system:serviceaccount:default:ci
	Namespace string // in which it is missing the permission
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s may not %s %s.%s in the namespace %s", e.Subject, sessionVerb, sessionResource, sessionGroup, e.Namespace)
}
