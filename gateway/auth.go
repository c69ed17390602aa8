package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Authenticator identifies clients.
type Authenticator interface {
	// Authenticate returns the subject that the token belongs to, which owns the client's sessions.
	// The token is empty if the client sent none. The client receives 401 for ErrNoToken and
	// ErrBadToken (429 where the latter comes often), 403 for ErrForbidden and 503 for any other
	// error, which means that the check failed: that error is logged and not shown to the client.
	// Implementations must not keep or log the token.
	Authenticate(ctx context.Context, token string) (subject string, err error)
}

// Verb is something that a client may be allowed to do with sessions.
type Verb string

// The verbs. What a client does with its own sessions needs VerbCreate alone.
const (
	VerbCreate Verb = "create" // open sessions, run commands in them, see and end them
	VerbList   Verb = "list"   // list the sessions of every subject
	VerbGet    Verb = "get"    // describe a session of any subject
	VerbDelete Verb = "delete" // end a session of any subject
	VerbRead   Verb = "read"   // read the output of others, and with list or get see what they run
)

// Authorizer is an Authenticator that knows more verbs than create, which is all that the clients of others have.
type Authorizer interface {
	// Authorize is Authenticate for another verb: ErrForbidden means that the client does not have it.
	Authorize(ctx context.Context, token string, verb Verb) (subject string, err error)
}

// NoAuth accepts every client as the subject "anonymous". Anyone who reaches the server can run
// commands.
type NoAuth struct{}

// Authenticate implements Authenticator.
func (NoAuth) Authenticate(context.Context, string) (string, error) { return "anonymous", nil }

// ManySubjects reports whether clients of more than one subject may come. An Authenticator that may
// have only one has a method of this name.
func ManySubjects(a Authenticator) bool {
	knows, ok := a.(interface{ ManySubjects() bool })
	return !ok || knows.ManySubjects()
}

// ManySubjects returns false: see the function.
func (NoAuth) ManySubjects() bool { return false }

// bearerPrefix begins a subprotocol that carries a token in base64url without padding, for
// browsers: their WebSocket API cannot set headers
// (https://websockets.spec.whatwg.org/#the-websocket-interface). Kubernetes does the same
// (https://pkg.go.dev/k8s.io/apiserver/pkg/authentication/request/websocket).
const bearerPrefix = "base64url.bearer.authorization.troupe.dev."

// bearerToken returns the token of a request, or "" if it has none.
func bearerToken(r *http.Request) (string, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") || strings.TrimSpace(token) == "" {
			return "", errMalformedToken
		}
		return strings.TrimSpace(token), nil
	}
	token, offered := "", false
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(header, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, isToken := strings.CutPrefix(protocol, bearerPrefix)
			if !isToken {
				offered = offered || protocol == Subprotocol
				continue
			}
			decoded, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || len(decoded) == 0 || token != "" {
				return "", errMalformedToken
			}
			token = string(decoded)
		}
	}
	if token != "" && !offered {
		// The server must select one of the offered protocols, or a browser fails the connection
		// (https://websockets.spec.whatwg.org/#feedback-from-the-protocol). It cannot select the
		// one that carries the token: proxies may write the selected protocol to their access logs.
		return "", errBearerAlone
	}
	return token, nil
}

// authenticate returns the subject of a request that opens a session, or the status and error of the refusal.
func (g *Gateway) authenticate(r *http.Request) (subject string, status int, err error) {
	return g.authorize(r, VerbCreate)
}

// Authorize returns the subject of a plain HTTP request that may do one of the verbs, or the status and error of the
// refusal. A page of another origin is refused as it is at /ws.
func (g *Gateway) Authorize(r *http.Request, verbs ...Verb) (subject string, status int, err error) {
	if !g.tokens && !g.knownHost(r.Host) {
		// A page sends no Origin with a GET to its own host, which with DNS rebinding is this server.
		g.metrics.authFailures.WithLabelValues(authOrigin).Inc()
		return "", http.StatusForbidden, errors.New(
			"without authentication, connect by IP address or localhost, or to a host that --allowed-origins names")
	}
	return g.authorize(r, verbs...)
}

// OneSubject reports whether the kernel separates sessions whose clients nothing but their resume tokens tells apart,
// because there is no authentication. The subject of a request proves nothing then: a command in one session may send
// requests, too.
func (g *Gateway) OneSubject() bool {
	return !g.tokens && g.cfg.Engine.Stats().Isolation == wire.IsolationSession
}

// knownHost reports whether a page cannot have chosen the name of this server.
func (g *Gateway) knownHost(host string) bool {
	u := url.URL{Host: host}
	return localHost(u.Hostname()) || slices.ContainsFunc(g.cfg.AllowedOrigins, func(pattern string) bool {
		if _, after, ok := strings.Cut(pattern, "://"); ok {
			pattern = after
		}
		ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(host))
		return ok && err == nil
	})
}

// May reports whether the client of an authorized request has a further verb.
func (g *Gateway) May(r *http.Request, verb Verb) (bool, error) {
	authorizer, ok := g.cfg.Auth.(Authorizer)
	if !ok {
		return false, nil
	}
	token, err := bearerToken(r)
	if err != nil {
		return false, err
	}
	if _, err = authorizer.Authorize(r.Context(), token, verb); errors.Is(err, ErrForbidden) {
		return false, nil
	}
	return err == nil, err
}

// try asks whether the token may do the verb.
func (g *Gateway) try(ctx context.Context, token string, verb Verb) (subject string, err error) {
	if authorizer, ok := g.cfg.Auth.(Authorizer); ok && verb != VerbCreate {
		return authorizer.Authorize(ctx, token, verb)
	}
	return g.cfg.Auth.Authenticate(ctx, token)
}

// authorize returns the subject of a request that may do one of the verbs.
func (g *Gateway) authorize(r *http.Request, verbs ...Verb) (subject string, status int, err error) {
	if err := checkOrigin(r, g.cfg.AllowedOrigins, !g.tokens); err != nil {
		g.metrics.authFailures.WithLabelValues(authOrigin).Inc()
		return "", http.StatusForbidden, err
	}
	token, err := bearerToken(r)
	if err != nil && g.tokens {
		status, err = g.failed(r, authMalformed, err)
		return "", status, err
	}
	for _, verb := range verbs {
		if subject, err = g.try(r.Context(), token, verb); !errors.Is(err, ErrForbidden) {
			break
		}
	}
	var kind string
	switch {
	case err == nil:
		return subject, http.StatusOK, nil
	case errors.Is(err, ErrNoToken):
		kind, status = authMissing, http.StatusUnauthorized
	case errors.Is(err, ErrBadToken):
		status, err = g.failed(r, authInvalid, err)
		return "", status, err
	case errors.Is(err, ErrForbidden):
		kind, status = authForbidden, http.StatusForbidden
	default:
		kind, status = authUnavailable, http.StatusServiceUnavailable
	}
	g.metrics.authFailures.WithLabelValues(kind).Inc()
	return "", status, err
}

// failed counts a wrong token, and returns the status and error of its refusal.
func (g *Gateway) failed(r *http.Request, kind string, err error) (int, error) {
	status := http.StatusUnauthorized
	if often := g.failures.add(r.RemoteAddr); often != nil {
		kind, status, err = authOften, http.StatusTooManyRequests, often
	}
	g.metrics.authFailures.WithLabelValues(kind).Inc()
	return status, err
}

// checkOrigin refuses a browser unless its page comes from the requested host or from an allowed
// origin. Other clients send no Origin header.
//
// open means that there is no authentication. The host must then be an IP address or localhost.
// With DNS rebinding, a page of evil.example makes that name resolve to 127.0.0.1, so that its
// origin and the requested host agree.
func checkOrigin(r *http.Request, allowed []string, open bool) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return errors.New("the Origin header is malformed")
	}
	if allowsOrigin(allowed, u) {
		return nil
	}
	if !strings.EqualFold(u.Host, r.Host) {
		return errors.New("the origin " + u.Host + " is not allowed: see --allowed-origins")
	}
	if open && !localHost(u.Hostname()) {
		return errors.New("without authentication, browsers must connect by IP address or localhost: see --allowed-origins")
	}
	return nil
}

func localHost(host string) bool {
	return net.ParseIP(host) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
