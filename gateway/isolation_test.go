package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestIsolationIsGivenOrRefused: a client that asks for it is refused before anything of it runs,
// rather than served with less.
func TestIsolationIsGivenOrRefused(t *testing.T) {
	for _, tc := range []struct {
		level, path string
		status      int
		says        string
	}{
		{wire.IsolationSession, "/ws?isolation=session", http.StatusSwitchingProtocols, ""},
		{wire.IsolationNone, "/ws", http.StatusSwitchingProtocols, ""},
		{wire.IsolationNone, "/ws?isolation=none", http.StatusSwitchingProtocols, ""},
		{wire.IsolationNone, "/ws?isolation=session", http.StatusPreconditionFailed, "this server does not separate sessions (isolation is none)"},
		{"", "/ws?isolation=session", http.StatusServiceUnavailable, "there is no runner yet"},
		{wire.IsolationSession, "/ws?isolation=pod", http.StatusBadRequest, "unknown isolation"},
		{wire.IsolationSession, "/ws?session=s&isolation=session", http.StatusBadRequest, "isolation is for a new session"},
	} {
		f := start(t, nil)
		f.engine.mu.Lock()
		f.engine.stats.Isolation = tc.level
		f.engine.mu.Unlock()
		status, body := upgrade(t, f, tc.path)
		if status != tc.status || !strings.Contains(body, tc.says) {
			t.Errorf("%s of a server with %q: %d %s, want %d %s", tc.path, tc.level, status, body, tc.status, tc.says)
		}
		if tc.status != http.StatusSwitchingProtocols {
			continue
		}
		if c := <-f.engine.conns; c.req.Isolated != strings.HasSuffix(tc.path, "=session") {
			t.Errorf("%s: the engine is told %t", tc.path, c.req.Isolated)
		}
	}
}

// upgrade sends a handshake and returns the answer.
func upgrade(t *testing.T, f *fixture, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
