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

// Authenticator finds out who a client is.
type Authenticator interface {
	// Authenticate returns the subject that the token belongs to; sessions belong to it.
	// token is empty if the client sent none. ErrNoToken and ErrBadToken become 401,
	// ErrForbidden 403, any other error 503: it says that the check could not be made,
	// is logged, and is not shown to the client. It must not keep or log the token.
	Authenticate(ctx context.Context, token string) (subject string, err error)
}

// NoAuth lets everyone in, as subject "anonymous". Whoever reaches the server can run commands.
type NoAuth struct{}

// Authenticate implements Authenticator.
func (NoAuth) Authenticate(context.Context, string) (string, error) { return "anonymous", nil }

// bearerPrefix begins a subprotocol that carries a token, in base64url without
// padding, because a browser cannot set headers. The way of Kubernetes
// (k8s.io/apiserver, websocket protocol authenticator), under our own name.
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
		// The server selects a protocol from those offered, and it must not be the token:
		// that would go into access logs of proxies. Browsers fail if it selects none.
		return "", errBearerAlone
	}
	return token, nil
}

// authenticate returns the subject of a request, or the status and error to refuse it with.
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

// checkOrigin refuses browsers whose page is neither of the host they connect
// to nor of an allowed origin. Other clients send no Origin.
//
// open says that there is no authentication. Then the host must be one that
// cannot be rebound: with DNS rebinding a page of evil.example makes
// evil.example resolve to 127.0.0.1, and its origin and the host agree.
func checkOrigin(r *http.Request, allowed []string, open bool) error {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return errors.New("the Origin header is not an origin")
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
		return errors.New("the origin " + u.Host + " may not connect here: see allowed origins")
	}
	if open && !localHost(u.Hostname()) {
		return errors.New("without authentication, browsers may connect by IP address or localhost only: see allowed origins")
	}
	return nil
}

func localHost(host string) bool {
	return net.ParseIP(host) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
