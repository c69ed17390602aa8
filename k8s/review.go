package k8s

import (
	"context"
	"errors"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// The permission that a client needs to open sessions. The resource does not exist, which RBAC permits, but a Role
// that grants it is easy to understand.
const (
	sessionGroup    = "troupe.dev"
	sessionResource = "sessions"
	sessionVerb     = "create"
)

// review asks the API server whose token this is, and then what the user may do.
func (a *Authenticator) review(ctx context.Context, token, verb string) answer {
	user, err := a.reviewToken(ctx, token)
	if err != nil {
		return answer{err: err}
	}
	allowed, err := a.reviewAccess(ctx, user, verb)
	if err != nil {
		return answer{err: err}
	}
	if !allowed {
		return answer{err: &DeniedError{Subject: user.Username, Namespace: a.cfg.Namespace, Verb: verb}}
	}
	return answer{subject: user.Username}
}

func (a *Authenticator) reviewToken(ctx context.Context, token string) (authenticationv1.UserInfo, error) {
	c := a.cfg.Client
	review := &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{a.cfg.Audience}},
	}
	reply := new(authenticationv1.TokenReview)
	request := c.authentication.Post().Resource("tokenreviews").Body(review)
	if err := c.do(ctx, opTokenReview, request, reply); err != nil {
		return authenticationv1.UserInfo{}, err
	}
	status := reply.Status
	switch {
	case !status.Authenticated:
		// The API server gives the same answer for a token that it could not check, because its
		// authentication webhook failed, so the two cannot be told apart here.
		c.log.Info("token refused by the API server", "reason", status.Error)
		return authenticationv1.UserInfo{}, ErrBadToken
	case !slices.Contains(status.Audiences, a.cfg.Audience):
		// An authenticator that does not support audiences returns none. Such a token is valid for the
		// API server itself: a server that accepted it could act as the client there. See Audiences in
		// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
		c.log.Info("token refused: it has another audience",
			"audience", a.cfg.Audience, "audiences", status.Audiences, "subject", status.User.Username)
		return authenticationv1.UserInfo{}, ErrBadToken
	case status.User.Username == "":
		return authenticationv1.UserInfo{}, errors.New("tokenreview: the API server accepts the token but names no user")
	}
	return status.User, nil
}

func (a *Authenticator) reviewAccess(
	ctx context.Context, user authenticationv1.UserInfo, verb string,
) (bool, error) {
	c := a.cfg.Client
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: a.cfg.Namespace, Group: sessionGroup, Resource: sessionResource, Verb: verb,
		},
	}}
	if len(user.Extra) > 0 {
		review.Spec.Extra = make(map[string]authorizationv1.ExtraValue, len(user.Extra))
		for key, values := range user.Extra {
			review.Spec.Extra[key] = authorizationv1.ExtraValue(values)
		}
	}
	reply := new(authorizationv1.SubjectAccessReview)
	request := c.authorization.Post().Resource("subjectaccessreviews").Body(review)
	if err := c.do(ctx, opAccessReview, request, reply); err != nil {
		return false, err
	}
	if !reply.Status.Allowed && reply.Status.EvaluationError != "" {
		// For example, a binding names a role that does not exist. The client is denied.
		c.log.Warn("the API server could not evaluate every rule",
			"subject", user.Username, "err", reply.Status.EvaluationError)
	}
	return reply.Status.Allowed, nil
}
