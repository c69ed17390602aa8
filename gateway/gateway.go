// Package gateway is the network side of trouped: HTTP, authentication,
// WebSockets and JSON-RPC. A socket has one reader and one writer goroutine. The
// reader passes requests to the engine in order; the writer alone sends, pulling
// output from transcripts at the client's pace.
//
// The life of a connection: accept.go, read.go, inflight.go, send.go (what the engine wants
// sent), write.go, follow.go (output), ping.go, close.go.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Subprotocol is the WebSocket subprotocol of troupe. Clients need not offer
// one, except together with a bearer token in the subprotocol header.
const Subprotocol = "troupe.v1"

// Config configures a Gateway.
type Config struct {
	Engine Engine        // required
	Auth   Authenticator // required; NoAuth{} to let everyone in

	// AllowedOrigins are patterns (path.Match) of the browser origins that may connect besides
	// the request's own host: "app.example.com", or with the scheme "https://*.example.com".
	// Empty: same host only.
	AllowedOrigins []string

	Version        string        // of the product, shown by /health; empty: "devel"
	MaxMessage     int64         // bytes of an inbound message; 0: 1 MiB
	MaxConnections int           // sockets at a time; 0: 16,384
	WriteTimeout   time.Duration // of one write to a client; 0: 10 s
	PingInterval   time.Duration // between pings; a client silent for two is dropped; 0: 20 s

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: metrics are kept but not exported
}

// Defaults of Config.
const (
	defaultMaxMessage     = 1 << 20
	defaultMaxConnections = 1 << 14
	defaultWriteTimeout   = 10 * time.Second
	defaultPingInterval   = 20 * time.Second // below the 60 s after which common proxies cut an idle stream
)

// Gateway serves clients. It is safe for concurrent use.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	started time.Time
	tokens  bool // Auth wants one

	mu      sync.Mutex
	open    int // reservations, connections included
	conns   map[*conn]struct{}
	closing bool
	cut     bool           // Close has waited long enough
	wg      sync.WaitGroup // one for each reservation, until its goroutines have ended
}

// New makes a Gateway. The caller serves its Handler and ends it with Close.
func New(cfg Config) (*Gateway, error) {
	if cfg.Engine == nil {
		return nil, errors.New("gateway: Config.Engine is required")
	}
	if cfg.Auth == nil {
		return nil, errors.New("gateway: Config.Auth is required: use a token file, or NoAuth{} to let everyone in")
	}
	if cfg.MaxMessage < 0 || cfg.MaxConnections < 0 || cfg.WriteTimeout < 0 || cfg.PingInterval < 0 {
		return nil, errors.New("gateway: limits must not be negative")
	}
	for _, pattern := range cfg.AllowedOrigins {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("gateway: allowed origin %q: %w", pattern, err)
		}
	}
	setDefault(&cfg.Version, "devel")
	setDefault(&cfg.MaxMessage, defaultMaxMessage)
	setDefault(&cfg.MaxConnections, defaultMaxConnections)
	setDefault(&cfg.WriteTimeout, defaultWriteTimeout)
	setDefault(&cfg.PingInterval, defaultPingInterval)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	_, open := cfg.Auth.(NoAuth)
	g := &Gateway{cfg: cfg, log: cfg.Logger, started: time.Now(), tokens: !open, conns: make(map[*conn]struct{})}
	g.metrics = newMetrics(cfg.Registerer)
	return g, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Handler serves /ws, /ws/mcp and /health.
func (g *Gateway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) { g.serveWebSocket(w, r, false) })
	// Not the Model Context Protocol: cc-executor's clients connect to this path and expect the session to
	// end with the connection.
	mux.HandleFunc("GET /ws/mcp", func(w http.ResponseWriter, r *http.Request) { g.serveWebSocket(w, r, true) })
	mux.HandleFunc("GET /health", g.serveHealth)
	return mux
}

// Close refuses new connections, tells the clients that the server is stopping
// (close code 1012), and returns when all connections have ended. When ctx ends
// first it cuts them off, and returns ctx's error.
func (g *Gateway) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	for c := range g.conns {
		c.Disconnect(wire.CauseDraining)
	}
	g.mu.Unlock()
	done := make(chan struct{})
	go func() {
		g.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.cut = true
	for c := range g.conns {
		c.abort()
	}
	g.mu.Unlock()
	<-done
	return fmt.Errorf("closing client connections: %w", ctx.Err())
}

// reserve makes room for a connection before its handshake, so that there are never more sockets than may be.
func (g *Gateway) reserve() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closing:
		return errClosing
	case g.open >= g.cfg.MaxConnections:
		return errTooManyConnections
	}
	g.open++
	g.wg.Add(1)
	return nil
}

// unreserve ends a reservation.
func (g *Gateway) unreserve() {
	g.mu.Lock()
	g.open--
	g.mu.Unlock()
	g.wg.Done()
}

// add makes c known to Close, which may have begun since the reservation.
func (g *Gateway) add(c *conn) {
	g.metrics.connections.Inc()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	if g.closing {
		c.Disconnect(wire.CauseDraining)
	}
	if g.cut {
		c.abort()
	}
}

// remove is the end of c and its reservation.
func (g *Gateway) remove(c *conn) {
	g.metrics.connections.Dec()
	g.mu.Lock()
	delete(g.conns, c)
	g.mu.Unlock()
	g.unreserve()
}
