package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// preflightAge is how long a browser may remember the answer to a preflight, in seconds. Chromium keeps none
// for longer (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Access-Control-Max-Age).
const preflightAge = "7200"

// CrossOrigin lets pages of the allowed origins send requests to h and read its answers, by the CORS protocol
// (https://fetch.spec.whatwg.org/#http-cors-protocol). The origin is always named, and the browser's own
// credentials are never allowed: a page sends its token as a header, like every client. So headers and methods
// need no list; Authorization is one that the wildcard does not cover.
//
// It authenticates nobody: h refuses what comes from other origins.
func (g *Gateway) CrossOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		u, err := url.Parse(origin)
		allowed := err == nil && u.Host != "" && allowsOrigin(g.cfg.AllowedOrigins, u)
		if allowed {
			header.Set("Access-Control-Allow-Origin", origin)
			header.Set("Access-Control-Expose-Headers", "*")
		}
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			h.ServeHTTP(w, r)
			return
		}
		if !allowed {
			g.metrics.authFailures.WithLabelValues(authOrigin).Inc()
			writeJSON(w, http.StatusForbidden, refusal{Error: "the page's origin is not allowed: see --allowed-origins"})
			return
		}
		header.Set("Access-Control-Allow-Methods", "*")
		header.Set("Access-Control-Allow-Headers", "Authorization, *")
		header.Set("Access-Control-Max-Age", preflightAge)
		w.WriteHeader(http.StatusNoContent)
	})
}

// allowsOrigin reports whether one of the patterns matches the origin: its host, or with its scheme.
func allowsOrigin(patterns []string, origin *url.URL) bool {
	for _, pattern := range patterns {
		target := origin.Host
		if strings.Contains(pattern, "://") {
			target = origin.Scheme + "://" + origin.Host
		}
		if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(target)); err == nil && ok {
			return true
		}
	}
	return false
}
