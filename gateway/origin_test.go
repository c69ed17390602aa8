package gateway

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOrigins: a page may connect to the host it came from, or when its origin is allowed. Where
// there are no tokens, its host must also be one that DNS cannot point elsewhere.
func TestOrigins(t *testing.T) {
	allowed := []string{"app.example.com", "*.example.net", "https://*.example.org", "http://localhost:*"}
	for _, c := range []struct {
		origin, host string
		tokens, open bool // whether the origin passes with tokens, and without
	}{
		{"", "server", true, true}, // not a browser
		{"https://app.example.com", "server", true, true},
		{"http://APP.Example.COM", "server", true, true},
		{"https://app.example.com:444", "server", false, false},
		{"https://x.app.example.com", "server", false, false},
		{"https://app.example.com.evil.example", "server", false, false},
		{"https://x.example.net", "server", true, true},
		{"https://example.net", "server", false, false},
		{"https://evilexample.net", "server", false, false},
		{"https://x.example.org", "server", true, true},
		{"HTTPS://x.EXAMPLE.org", "server", true, true},
		{"http://x.example.org", "server", false, false},
		{"http://localhost:5173", "server", true, true},
		{"https://localhost:5173", "server", false, false},

		{"http://server", "server", true, false},
		{"http://SERVER", "server", true, false},
		{"http://server:8003", "server:8003", true, false},
		{"http://server:8003", "server:8004", false, false},
		{"http://server", "other", false, false},
		{"http://127.0.0.1:8003", "127.0.0.1:8003", true, true},
		{"http://10.1.2.3", "10.1.2.3", true, true},
		{"http://[::1]:8003", "[::1]:8003", true, true},
		{"http://localhost:8003", "localhost:8003", true, true},
		{"http://a.localhost", "a.localhost", true, true},
		{"http://evillocalhost", "evillocalhost", true, false},
		{"http://localhost.evil.example", "localhost.evil.example", true, false},
		{"http://127.0.0.1.evil.example", "127.0.0.1.evil.example", true, false},

		{"null", "null", false, false},
		{"null", "", false, false},
		{"http://[", "[", false, false},
		{"http://", "", false, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if err := checkOrigin(r, allowed, false); (err == nil) != c.tokens {
			t.Errorf("%q to %q, with tokens: %v, want it to pass: %v", c.origin, c.host, err, c.tokens)
		}
		if err := checkOrigin(r, allowed, true); (err == nil) != c.open {
			t.Errorf("%q to %q, without tokens: %v, want it to pass: %v", c.origin, c.host, err, c.open)
		}
	}
}

// TestBearerTokens: where a token may stand in a request, and what is no token.
func TestBearerTokens(t *testing.T) {
	const token = "a-token-of-someone"
	protocol, another := bearerProtocol(token), bearerProtocol("another")
	padded := bearerPrefix + base64.URLEncoding.EncodeToString([]byte("four"))
	for name, c := range map[string]struct {
		authorization string
		protocols     []string // headers
		want          string
		err           error
	}{
		"none":                         {},
		"no token among the protocols": {protocols: []string{"troupe.v1, chat"}},
		"header":                       {authorization: "Bearer " + token, want: token},
		"header with more spaces":      {authorization: "Bearer   " + token + " ", want: token},
		"header, scheme in capitals":   {authorization: "BEARER " + token, want: token},
		"another scheme":               {authorization: "Basic " + token, err: errMalformedToken},
		"scheme alone":                 {authorization: "Bearer", err: errMalformedToken},
		"scheme and spaces":            {authorization: "Bearer  ", err: errMalformedToken},
		"token alone in the header":    {authorization: token, err: errMalformedToken},
		"the header goes first": {
			authorization: "Bearer " + token, protocols: []string{"troupe.v1, " + another}, want: token,
		},
		"protocol":                  {protocols: []string{"troupe.v1," + protocol}, want: token},
		"protocol, the other order": {protocols: []string{protocol + " , troupe.v1"}, want: token},
		"protocol in two headers":   {protocols: []string{"troupe.v1", protocol}, want: token},
		"protocol alone":            {protocols: []string{protocol}, err: errBearerAlone},
		"beside another protocol":   {protocols: []string{"troupe.v1, chat", protocol}, want: token},
		"beside a foreign protocol": {protocols: []string{"chat, " + protocol}, err: errBearerAlone},
		"two tokens":                {protocols: []string{"troupe.v1", protocol, another}, err: errMalformedToken},
		"the same token twice":      {protocols: []string{"troupe.v1", protocol, protocol}, err: errMalformedToken},
		"an empty one":              {protocols: []string{"troupe.v1", bearerPrefix}, err: errMalformedToken},
		"not base64url":             {protocols: []string{"troupe.v1", bearerPrefix + "a+b"}, err: errMalformedToken},
		"with padding":              {protocols: []string{"troupe.v1", padded}, err: errMalformedToken},
	} {
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		r.Header["Sec-Websocket-Protocol"] = c.protocols
		got, err := bearerToken(r)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q %v, want %q %v", name, got, err, c.want, c.err)
		}
	}
}

// TestRefusalsAreCountedByKind: what an authenticator says decides the status, whether to come
// back, and the metric.
func TestRefusalsAreCountedByKind(t *testing.T) {
	for kind, c := range map[string]struct {
		err        error
		status     int
		retryAfter string
	}{
		authMissing:     {ErrNoToken, 401, ""},
		authInvalid:     {ErrBadToken, 401, ""},
		authForbidden:   {ErrForbidden, 403, ""},
		authUnavailable: {errors.New("no answer"), 503, "5"},
	} {
		logs := &logLines{}
		f := start(t, func(cfg *Config) { cfg.Auth, cfg.Logger = failing{c.err}, logs.logger() })
		_, h := f.dial(t, "/ws", nil)
		if h.status != c.status || h.header.Get("Retry-After") != c.retryAfter {
			t.Errorf("%s: %+v", kind, h)
		}
		if n := value(f.gateway.metrics.authFailures.WithLabelValues(kind)); n != 1 {
			t.Errorf("%s was counted %v times", kind, n)
		}
		if failed := strings.Contains(logs.String(), `"level":"ERROR"`); failed != (kind == authUnavailable) {
			t.Errorf("%s: logged as %s", kind, logs.String())
		}
	}
}

// TestWithoutTokensNoneIsRead: a client that sends something like a token to a server that wants
// none is let in.
func TestWithoutTokensNoneIsRead(t *testing.T) {
	f := start(t, nil)
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	r.Header.Set("Authorization", "Basic YTpi")
	if subject, status, err := f.gateway.authenticate(r); subject != "anonymous" || status != http.StatusOK || err != nil {
		t.Errorf("%q %d %v", subject, status, err)
	}
}

// TestTokensMakeNamesSafe: a page whose host was pointed here has no token, so with tokens a server
// may have any name.
func TestTokensMakeNamesSafe(t *testing.T) {
	auth, err := NewTokenFile(tokenFile(t, "alice "+goodToken), nil)
	if err != nil {
		t.Fatal(err)
	}
	for authenticator, want := range map[Authenticator]int{auth: http.StatusOK, NoAuth{}: http.StatusForbidden} {
		f := start(t, func(c *Config) { c.Auth = authenticator })
		r := httptest.NewRequest(http.MethodGet, "http://server.example/ws", nil)
		r.Header.Set("Origin", "http://server.example")
		r.Header.Set("Authorization", "Bearer "+goodToken)
		if _, status, err := f.gateway.authenticate(r); status != want {
			t.Errorf("%T: %d %v, want %d", authenticator, status, err, want)
		}
	}
}

func TestLongTraceparentIsDropped(t *testing.T) {
	for length, kept := range map[int]bool{55: true, maxTraceparent: true, maxTraceparent + 1: false} {
		r := httptest.NewRequest(http.MethodGet, "/ws", nil)
		r.Header.Set("Traceparent", strings.Repeat("0", length))
		if got := traceparent(r); (len(got) == length) != kept {
			t.Errorf("of %d bytes %d were kept", length, len(got))
		}
	}
}
