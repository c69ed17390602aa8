package gateway

import (
	"io"
	"net/http"
	"net/http/pprof"
)

// AdminConfig configures AdminHandler.
type AdminConfig struct {
	Metrics  http.Handler  // serves /metrics; nil: 404
	NotReady func() string // says why new sessions are not accepted, or "", for /readyz; nil: they are
	Pprof    bool          // serve /debug/pprof/; false: 404
}

// AdminHandler serves /metrics, /healthz, /readyz and, if enabled, /debug/pprof/, for a listener
// that clients cannot reach. /healthz reports only that the process answers: a draining server is
// alive and must not be restarted.
//
// pprof is off by default because in a pod the commands share the server's network and reach this
// listener, and a heap profile shows what the server holds. Its cmdline is always left out, because
// arguments may hold secrets. (Importing net/http/pprof registers every handler on
// http.DefaultServeMux, which this program does not serve.)
func AdminHandler(cfg AdminConfig) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if cfg.NotReady != nil {
			if why := cfg.NotReady(); why != "" {
				writeText(w, http.StatusServiceUnavailable, "not ready: "+why+"\n")
				return
			}
		}
		writeText(w, http.StatusOK, "ok\n")
	})
	if cfg.Metrics != nil {
		mux.Handle("GET /metrics", cfg.Metrics)
	}
	if cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	}
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client may be gone
}
