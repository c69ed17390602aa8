package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPagesOfAllowedOriginsMayRead: a browser passes on the answer, also a refusal, to a page of an allowed
// origin and to no other. No answer lets it send credentials of its own.
func TestPagesOfAllowedOriginsMayRead(t *testing.T) {
	g, err := New(Config{
		Engine: newFakeEngine(), Auth: anyone{}, AllowedOrigins: []string{"https://*.example.org", "app.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	served := 0
	h := g.CrossOrigin(g.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served++
		_, _ = io.WriteString(w, "answer")
	})))
	for _, c := range []struct {
		method, origin, token string
		preflight             bool
		status                int
		allowed               bool
	}{
		{"GET", "https://a.example.org", "alice", false, 200, true},
		{"GET", "https://A.EXAMPLE.org", "alice", false, 200, true},
		{"POST", "http://app.example.com", "alice", false, 200, true},
		{"GET", "https://a.example.org", "", false, 401, true}, // the page must learn why
		{"GET", "http://a.example.org", "alice", false, 403, false},
		{"GET", "https://evil.example", "alice", false, 403, false},
		{"GET", "null", "alice", false, 403, false},
		{"GET", "https://server", "alice", false, 200, false}, // its own page needs no permission
		{"GET", "", "alice", false, 200, false},
		{"OPTIONS", "https://a.example.org", "", true, 204, true},
		{"OPTIONS", "https://evil.example", "", true, 403, false},
		{"OPTIONS", "", "", true, 403, false},
		{"OPTIONS", "https://a.example.org", "alice", false, 200, true}, // no preflight
	} {
		before := served
		r := httptest.NewRequestWithContext(t.Context(), c.method, "http://server/mcp", nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		if c.preflight {
			r.Header.Set("Access-Control-Request-Method", "DELETE")
			r.Header.Set("Access-Control-Request-Headers", "authorization,mcp-protocol-version")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		header := w.Header()
		want := ""
		if c.allowed {
			want = c.origin
		}
		if got := header.Get("Access-Control-Allow-Origin"); w.Code != c.status || got != want {
			t.Errorf("%s from %q: %d, allows %q, want %d and %q", c.method, c.origin, w.Code, got, c.status, want)
		}
		if (served > before) != (c.status == http.StatusOK) {
			t.Errorf("%s from %q: served %d times", c.method, c.origin, served-before)
		}
		preflight := header.Get("Access-Control-Allow-Headers") == "Authorization, *" &&
			header.Get("Access-Control-Allow-Methods") == "*"
		if preflight != (c.status == http.StatusNoContent) {
			t.Errorf("%s from %q: %v", c.method, c.origin, header)
		}
		if header.Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(header.Get("Vary"), "Origin") {
			t.Errorf("%s from %q: %v", c.method, c.origin, header)
		}
	}
}
