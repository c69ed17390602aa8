package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Authenticator identifies clients.
type Authenticator interface {
	// Authenticate returns the subject that the token belongs to, which owns the client's sessions.
	// The token is empty if the client sent none. The client receives 401 for ErrNoToken and
	// ErrBadToken, 403 for ErrForbidden and 503 for any other error, which means that the check
	// failed: that error is logged and not shown to the client. Implementations must not keep or
	// log the token.
	Authenticate(ctx context.Context, token string) (subject string, err error)
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

// authenticate returns the subject of a request, or the status and error of the refusal.
func (g *Gateway) authenticate(r *http.Request) (subject string, status int, err error) {
	if err := checkOrigin(r, g.cfg.AllowedOrigins, !g.tokens); err != nil {
		g.metrics.authFailures.WithLabelValues(authOrigin).Inc()
		return "", http.StatusForbidden, err
	}
	token, err := bearerToken(r)
	if err != nil && g.tokens {
		g.metrics.authFailures.WithLabelValues(authMalformed).Inc()
		return "", http.StatusUnauthorized, err
	}
	subject, err = g.cfg.Auth.Authenticate(r.Context(), token)
	var kind string
	switch {
	case err == nil:
		return subject, http.StatusOK, nil
	case errors.Is(err, ErrNoToken):
		kind, status = authMissing, http.StatusUnauthorized
	case errors.Is(err, ErrBadToken):
		kind, status = authInvalid, http.StatusUnauthorized
	case errors.Is(err, ErrForbidden):
		kind, status = authForbidden, http.StatusForbidden
	default:
		kind, status = authUnavailable, http.StatusServiceUnavailable
	}
	g.metrics.authFailures.WithLabelValues(kind).Inc()
	return "", status, err
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
	for _, pattern := range allowed {
		target := u.Host
		if strings.Contains(pattern, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(target)); err == nil && ok {
			return nil
		}
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
