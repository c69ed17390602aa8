package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troupe-dev/troupe/actors"
)

func TestHealth(t *testing.T) {
	f := start(t, nil)
	f.engine.mu.Lock()
	f.engine.stats = actors.Stats{Sessions: 3, MaxSessions: 100}
	f.engine.mu.Unlock()
	status, body := get(t, f.server.URL+"/health")
	var h map[string]any
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		t.Fatal(err)
	}
	uptime, _ := h["uptime_seconds"].(float64)
	delete(h, "uptime_seconds")
	want := `{"active_sessions":3,"max_sessions":100,"status":"healthy","version":"test"}`
	if got := asJSON(t, h); status != http.StatusOK || got != want || uptime <= 0 {
		t.Errorf("%d %s, uptime %v", status, got, uptime)
	}
	f.engine.mu.Lock()
	f.engine.stats.Draining = true
	f.engine.mu.Unlock()
	if status, body := get(t, f.server.URL+"/health"); status != http.StatusServiceUnavailable ||
		!strings.Contains(body, `"status":"draining"`) {
		t.Errorf("draining: %d %s", status, body)
	}
	if status, _ := get(t, f.server.URL+"/"); status != http.StatusNotFound {
		t.Errorf("/: %d", status)
	}
	if status, _ := get(t, f.server.URL+"/ws"); status != http.StatusUpgradeRequired {
		t.Errorf("/ws without upgrade: %d", status)
	}
}

func TestAdmin(t *testing.T) {
	for _, pprof := range []bool{true, false} {
		var ready atomic.Bool
		srv := httptest.NewServer(AdminHandler(AdminConfig{
			Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "m 1\n") }),
			NotReady: func() string {
				if ready.Load() {
					return ""
				}
				return "no runner is connected"
			},
			Pprof: pprof,
		}))
		defer srv.Close()
		defer http.DefaultClient.CloseIdleConnections()
		profiles := 404 // commands reach this listener, and profiles show what the server holds
		if pprof {
			profiles = 200
		}
		for path, want := range map[string]int{
			"/healthz": 200, "/readyz": 503, "/metrics": 200, "/debug/pprof/": profiles, "/debug/pprof/heap": profiles,
			"/debug/pprof/goroutine?debug=1": profiles, "/debug/pprof/cmdline": 404, "/ws": 404,
		} {
			if got, _ := get(t, srv.URL+path); got != want {
				t.Errorf("%s with pprof %v: %d, want %d", path, pprof, got, want)
			}
		}
		if _, body := get(t, srv.URL+"/readyz"); body != "not ready: no runner is connected\n" {
			t.Errorf("/readyz does not say why: %q", body)
		}
		ready.Store(true)
		if got, _ := get(t, srv.URL+"/readyz"); got != 200 {
			t.Errorf("/readyz when ready: %d", got)
		}
	}
}

func TestNewRefusesUnsafeConfigs(t *testing.T) {
	for _, c := range []struct {
		cfg     Config
		message string
	}{
		{Config{Auth: NoAuth{}}, "Engine"},
		{Config{Engine: newFakeEngine()}, "NoAuth{}"},
		{Config{Engine: newFakeEngine(), Auth: NoAuth{}, WriteTimeout: -1}, "negative"},
		{Config{Engine: newFakeEngine(), Auth: NoAuth{}, AllowedOrigins: []string{"["}}, "allowed origin"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
