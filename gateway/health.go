package gateway

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// health is the body of /health. cc-executor's clients read these members.
type health struct {
	Status         string  `json:"status"` // healthy or draining
	Version        string  `json:"version"`
	ActiveSessions int     `json:"active_sessions"`
	MaxSessions    int     `json:"max_sessions"`
	UptimeSeconds  float64 `json:"uptime_seconds"`
}

// serveHealth reports, without authentication, whether this server accepts sessions.
func (g *Gateway) serveHealth(w http.ResponseWriter, _ *http.Request) {
	stats := g.cfg.Engine.Stats()
	h := health{
		Status: "healthy", Version: g.cfg.Version, ActiveSessions: stats.Sessions, MaxSessions: stats.MaxSessions,
		UptimeSeconds: time.Since(g.started).Seconds(),
	}
	status := http.StatusOK
	g.mu.Lock()
	closing := g.closing
	g.mu.Unlock()
	if stats.Draining || closing {
		h.Status, status = "draining", http.StatusServiceUnavailable
	}
	writeJSON(w, status, h)
}

// refusal is the body of an HTTP error.
type refusal struct {
	Error string          `json:"error"`
	Code  wire.Code       `json:"code,omitempty"` // with data, as in a JSON-RPC error; 0: the status says it
	Data  *wire.ErrorData `json:"data,omitempty"`
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may be gone
}
