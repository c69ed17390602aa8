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

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Subprotocol is troupe's WebSocket subprotocol. Clients need to offer it only together with a
// bearer token in the Sec-WebSocket-Protocol header.
const Subprotocol = "troupe.v1"

// Config configures a Gateway.
type Config struct {
	Engine Engine        // required
	Auth   Authenticator // required; NoAuth{} to accept every client

	// AllowedOrigins are patterns (path.Match) of browser origins that may connect in addition to
	// the requested host: "app.example.com", or with a scheme "https://*.example.com". Empty: same
	// host only.
	AllowedOrigins []string

	// ResourceMetadata is the URL that a 401 names, at which clients learn where to get a token (RFC 9728).
	// Empty: none.
	ResourceMetadata string

	Version        string        // of the server, shown by /health; empty: "devel"
	MaxMessage     int64         // bytes of an inbound message; 0: 1 MiB
	MaxConnections int           // sockets at a time; 0: 320
	MaxPerSubject  int           // of these, those of one subject; 0: all but the last tenth
	WriteTimeout   time.Duration // of one write to a client; 0: 10 s
	PingInterval   time.Duration // between pings; a client silent for two is dropped; 0: 20 s

	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: metrics are kept but not exported
}

// Defaults of Config. The ping interval is below the 60 s of silence after which nginx closes a
// proxied connection (proxy_read_timeout, https://nginx.org/en/docs/http/websocket.html) and an AWS
// load balancer an idle one by default (https://docs.aws.amazon.com/elasticloadbalancing/, idle
// timeout).
const (
	defaultMaxMessage     = 1 << 20
	defaultMaxConnections = 320
	defaultWriteTimeout   = 10 * time.Second
	defaultPingInterval   = 20 * time.Second
)

// Gateway serves clients. It is safe for concurrent use.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	started time.Time
	tokens  bool // clients need one

	medium, large *permits // for messages above SmallMessage and above MediumMessage
	outputs       *permits // for output in large messages

	mu       sync.Mutex
	open     int // reservations, connections included
	sockets  map[*socket]struct{}
	subjects map[string]int // how many of open each subject has
	closing  bool
	aborting bool           // Close has timed out and aborts connections
	wg       sync.WaitGroup // one for each reservation, until its goroutines have ended

	resumes  resumes
	failures failures
}

// New returns a Gateway. The caller serves its Handler and calls Close at the end.
func New(cfg Config) (*Gateway, error) {
	if cfg.Engine == nil {
		return nil, errors.New("gateway: Config.Engine is required")
	}
	if cfg.Auth == nil {
		return nil, errors.New("gateway: Config.Auth is required: use a token file, or NoAuth{} to accept every client")
	}
	if cfg.MaxMessage < 0 || cfg.MaxConnections < 0 || cfg.MaxPerSubject < 0 ||
		cfg.WriteTimeout < 0 || cfg.PingInterval < 0 {
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
	g := &Gateway{
		cfg: cfg, log: cfg.Logger, started: time.Now(), tokens: !open,
		sockets: make(map[*socket]struct{}), subjects: make(map[string]int),
	}
	g.medium, g.large = newPermits(MediumMessages, !open), newPermits(LargeMessages, !open)
	g.outputs = newPermits(LargeOutputs, !open)
	g.resumes = resumes{permits: newPermits(max(cfg.MaxConnections/4, 1), !open)}
	g.metrics = newMetrics(cfg.Registerer)
	if cfg.Registerer != nil {
		g.medium.register(cfg.Registerer, "medium")
		g.large.register(cfg.Registerer, "large")
		g.outputs.register(cfg.Registerer, "output")
	}
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
	// Not the Model Context Protocol: cc-executor's clients connect to this path and expect the
	// session to end with the connection.
	mux.HandleFunc("GET /ws/mcp", func(w http.ResponseWriter, r *http.Request) { g.serveWebSocket(w, r, true) })
	mux.HandleFunc("GET /health", g.serveHealth)
	return mux
}

// Close refuses new connections, closes the open ones with code 1012 (the server is stopping), and
// returns when all have ended. If ctx ends first, Close aborts them and returns ctx's error.
func (g *Gateway) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	for s := range g.sockets {
		s.Disconnect(wire.CauseDraining)
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
	g.aborting = true
	for s := range g.sockets {
		s.abort()
	}
	g.mu.Unlock()
	<-done
	return fmt.Errorf("closing client connections: %w", ctx.Err())
}

// reserve counts a connection before its handshake, so that MaxConnections is never exceeded. The
// last tenth of them is for subjects that have none, unless there is only one subject.
func (g *Gateway) reserve(subject string) error {
	reserved := 0
	if ManySubjects(g.cfg.Auth) {
		reserved = actors.Reserved(g.cfg.MaxConnections)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch held := g.subjects[subject]; {
	case g.closing:
		return errClosing
	case g.cfg.MaxPerSubject > 0 && held >= g.cfg.MaxPerSubject:
		return &subjectAtLimit{refusedSubject, "max-connections-per-subject", g.cfg.MaxPerSubject, fmt.Sprintf(
			"this subject has %d connections to this server, which is its limit: close one, or try again later", held)}
	case g.open >= g.cfg.MaxConnections:
		return errTooManyConnections
	case held > 0 && g.open >= g.cfg.MaxConnections-reserved:
		return &subjectAtLimit{refusedReserve, "reserved-connections", reserved, fmt.Sprintf(
			"the last %d of this server's %d connections are for subjects that have none, and this one has %d: "+
				"close one, or try again later", reserved, g.cfg.MaxConnections, held)}
	}
	g.open++
	g.subjects[subject]++
	g.wg.Add(1)
	return nil
}

// unreserve undoes reserve.
func (g *Gateway) unreserve(subject string) {
	g.mu.Lock()
	g.open--
	if g.subjects[subject]--; g.subjects[subject] == 0 {
		delete(g.subjects, subject)
	}
	g.mu.Unlock()
	g.wg.Done()
}

// add registers s for Close, which may have begun since the reservation.
func (g *Gateway) add(s *socket) {
	g.metrics.connections.Inc()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sockets[s] = struct{}{}
	if g.closing {
		s.Disconnect(wire.CauseDraining)
	}
	if g.aborting {
		s.abort()
	}
}

// remove unregisters s and ends its reservation.
func (g *Gateway) remove(s *socket) {
	g.metrics.connections.Dec()
	g.mu.Lock()
	delete(g.sockets, s)
	g.mu.Unlock()
	g.resumes.remove(s)
	g.unreserve(s.subject)
}
