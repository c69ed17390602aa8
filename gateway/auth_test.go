package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const goodToken = "correct-horse-battery-staple"

func tokenFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func bearerProtocol(token string) string {
	return bearerPrefix + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// failing is an authenticator whose backend fails in a way that must not be shown.
type failing struct{ err error }

func (f failing) Authenticate(context.Context, string) (string, error) { return "", f.err }

func TestAuthentication(t *testing.T) {
	logs := &logLines{}
	auth, err := NewTokenFile(tokenFile(t, "# people\n\nalice "+goodToken+"\n  bob\tanother-token-of-bob \n"),
		logs.logger())
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) {
		c.Auth, c.Logger = auth, logs.logger()
		c.AllowedOrigins = []string{"app.example.com", "https://*.example.org"}
	})
	header := func(kv ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			h.Add(kv[i], kv[i+1])
		}
		return h
	}
	bearer := "Bearer " + goodToken
	for _, c := range []struct {
		name    string
		header  http.Header
		status  int
		subject string
		kind    string // of the failure
	}{
		{"header", header("Authorization", bearer), 101, "alice", ""},
		{"scheme in any case", header("Authorization", "bearer another-token-of-bob"), 101, "bob", ""},
		{"subprotocol", header("Sec-WebSocket-Protocol", "troupe.v1, "+bearerProtocol(goodToken)), 101, "alice", ""},
		{
			"subprotocol, other order", header("Sec-WebSocket-Protocol", bearerProtocol(goodToken)+",troupe.v1"), 101, "alice",
			"",
		},
		{"missing", header(), 401, "", authMissing},
		{"wrong", header("Authorization", "Bearer wrong-token-wrong-token"), 401, "", authInvalid},
		{"prefix of a token", header("Authorization", bearer[:len(bearer)-1]), 401, "", authInvalid},
		{"basic", header("Authorization", "Basic YTpi"), 401, "", authMalformed},
		{"no token in the header", header("Authorization", "Bearer "), 401, "", authMalformed},
		{"token alone", header("Sec-WebSocket-Protocol", bearerProtocol(goodToken)), 401, "", authMalformed},
		{"not base64url", header("Sec-WebSocket-Protocol", "troupe.v1, "+bearerPrefix+"!"), 401, "", authMalformed},
		{"wrong in the subprotocol", header("Sec-WebSocket-Protocol",
			"troupe.v1, "+bearerProtocol("wrong-token-wrong-token")), 401, "", authInvalid},
		{"own origin", header("Authorization", bearer, "Origin", strings.Replace(f.url, "ws", "http", 1)), 101, "alice", ""},
		{"allowed origin", header("Authorization", bearer, "Origin", "http://APP.example.com"), 101, "alice", ""},
		{"allowed origin with scheme", header("Authorization", bearer, "Origin", "https://x.example.org"), 101, "alice", ""},
		{"foreign origin", header("Authorization", bearer, "Origin", "https://evil.example"), 403, "", authOrigin},
		{"wrong scheme", header("Authorization", bearer, "Origin", "http://x.example.org"), 403, "", authOrigin},
		{"opaque origin", header("Authorization", bearer, "Origin", "null"), 403, "", authOrigin},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := map[string]float64{}
			for _, kind := range []string{authMissing, authMalformed, authInvalid, authOrigin} {
				before[kind] = value(f.gateway.metrics.authFailures.WithLabelValues(kind))
			}
			options := &websocket.DialOptions{HTTPHeader: c.header}
			if offered := c.header.Get("Sec-WebSocket-Protocol"); offered != "" {
				options.Subprotocols = strings.Split(offered, ",")
				c.header.Del("Sec-WebSocket-Protocol")
			}
			_, h := f.dial(t, "/ws", options)
			if h.status != c.status {
				t.Fatalf("got %+v, want %d", h, c.status)
			}
			for kind, n := range before {
				if kind == c.kind {
					n++
				}
				if got := value(f.gateway.metrics.authFailures.WithLabelValues(kind)); got != n {
					t.Errorf("failures of kind %s: %v, want %v", kind, got, n)
				}
			}
			if c.status != 101 {
				wantRefusal(t, h)
				return
			}
			if got := f.accepted(t).req.Subject; got != c.subject {
				t.Errorf("subject %q, want %q", got, c.subject)
			}
			selected := ""
			if options.Subprotocols != nil {
				selected = Subprotocol
			}
			if got := h.header.Get("Sec-WebSocket-Protocol"); got != selected {
				t.Errorf("the server selected %q, want %q", got, selected)
			}
		})
	}
	for _, secret := range []string{goodToken, "wrong-token", "another-token", bearerPrefix} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("the log shows %q:\n%s", secret, logs.String())
		}
	}
	if !strings.Contains(logs.String(), `"subject":"alice"`) {
		t.Error("the log does not name the subject")
	}
}

// wantRefusal checks the body and headers of an HTTP error.
func wantRefusal(t *testing.T, h handshake) {
	t.Helper()
	var body refusal
	if json.Unmarshal([]byte(h.body), &body) != nil || body.Error == "" {
		t.Errorf("body %q", h.body)
	}
	challenge := h.header.Get("WWW-Authenticate")
	if (h.status == http.StatusUnauthorized) != (challenge != "") {
		t.Errorf("status %d with WWW-Authenticate %q", h.status, challenge)
	}
}

func TestAuthenticatorErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{ErrForbidden, 403},
		{ErrBadToken, 401},
		{errors.New("dial tcp 10.0.0.1: secret detail"), 503},
	} {
		f := start(t, func(cfg *Config) { cfg.Auth = failing{c.err} })
		status, body := get(t, f.server.URL+"/ws")
		if status != c.status || strings.Contains(body, "secret detail") {
			t.Errorf("%v: %d %s", c.err, status, body)
		}
	}
}

// Without authentication a page of evil.example, whose name an attacker points at 127.0.0.1, must
// not run commands.
func TestDNSRebindingIsRefusedWithoutAuthentication(t *testing.T) {
	dial := func(f *fixture, origin, host string) int {
		_, h := f.dial(t, "/ws", &websocket.DialOptions{Host: host, HTTPHeader: http.Header{"Origin": {origin}}})
		return h.status
	}
	open := start(t, nil)
	if got := dial(open, "http://evil.example:1234", "evil.example:1234"); got != 403 {
		t.Errorf("a rebound host: %d", got)
	}
	for _, host := range []string{"127.0.0.1:1234", "localhost:1234", "[::1]:1234"} {
		if got := dial(open, "http://"+host, host); got != 101 {
			t.Errorf("%s: %d", host, got)
		}
	}
	allowed := start(t, func(c *Config) { c.AllowedOrigins = []string{"tool.internal"} })
	if got := dial(allowed, "http://tool.internal", "tool.internal"); got != 101 {
		t.Errorf("an allowed host: %d", got)
	}
}

// A page sends no Origin with a GET to what it takes for its own host.
func TestDNSRebindingIsRefusedAtTheOtherDoors(t *testing.T) {
	g, err := New(Config{Engine: newFakeEngine(), Auth: NoAuth{}})
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for name, h := range map[string]http.Handler{"calls": g.Guard(ok), "streams": g.GuardStreams(1, ok)} {
		for host, want := range map[string]int{"evil.example:8003": 403, "127.0.0.1:8003": 200} {
			r := httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s, %s: %d %s", name, host, w.Code, w.Body)
			}
		}
	}
}

func TestTokenFileRefuses(t *testing.T) {
	for _, c := range []struct{ name, content, message string }{
		{"empty", "", "no tokens"},
		{"comments only", "# alice x\n", "no tokens"},
		{"one word", "# a\nalice\n", "line 2 has 1 words"},
		{"a word that is no role", "alice " + goodToken + " x\n", "line 1: role 1 is unknown"},
		{"four words", "alice " + goodToken + " user x\n", "line 1 has 4 words"},
		{"short", "alice " + goodToken + "\nbob secret\n", "line 2: the token has fewer than 16 bytes"},
		{"repeated", "alice " + goodToken + "\n\nbob " + goodToken + "\n", "line 3 repeats the token of line 1"},
		{"huge", strings.Repeat("#\n", maxTokenFile), "more than"},
	} {
		_, err := NewTokenFile(tokenFile(t, c.content), nil)
		if err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), goodToken)) {
			t.Errorf("%s: the error shows a token: %v", c.name, err)
		}
	}
	path := tokenFile(t, "alice "+goodToken)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewTokenFile(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("a file that all may read: %v", err)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := NewTokenFile(path, nil); err != nil {
		t.Errorf("a Secret volume's file for one group: %v", err)
	}
	if _, err := NewTokenFile(path+"x", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A Secret volume replaces the file behind a link; a bad version must not lock everyone out.
func TestTokenFileReloads(t *testing.T) {
	logs := &logLines{}
	path := tokenFile(t, "alice "+goodToken)
	f, err := NewTokenFile(path, logs.logger())
	if err != nil {
		t.Fatal(err)
	}
	check := func(token, subject string, want error) {
		t.Helper()
		f.mu.Lock()
		f.checked = time.Time{}
		f.mu.Unlock()
		got, err := f.Authenticate(context.Background(), token)
		if got != subject || !errors.Is(err, want) {
			t.Errorf("got %q %v, want %q %v", got, err, subject, want)
		}
	}
	replace := func(content string) {
		t.Helper()
		if err := os.Rename(tokenFile(t, content), path); err != nil {
			t.Fatal(err)
		}
	}
	check(goodToken, "alice", nil)
	check("", "", ErrNoToken)
	replace("alice the-new-token-of-alice\ncarol the-token-of-carol")
	check(goodToken, "", ErrBadToken)
	check("the-new-token-of-alice", "alice", nil)
	check("the-token-of-carol", "carol", nil)
	replace("broken")
	check("the-token-of-carol", "carol", nil)
	check("the-token-of-carol", "carol", nil)
	if n := strings.Count(logs.String(), "not reloaded"); n != 1 {
		t.Errorf("the bad file was reported %d times", n)
	}
	replace("carol the-third-token-of-carol")
	check("the-third-token-of-carol", "carol", nil)
	if strings.Contains(logs.String(), "token-of") {
		t.Error("the log shows a token")
	}
}
