// Package api serves the HTTP API under /api/v1: the sessions and the pods of the service, for people who operate it
// and for programs that look for their own sessions. openapi.json describes it, and is served beside it.
//
// A client sees its own sessions with what lets it open them. Those of other subjects need a verb each: see
// gateway.Verb. Whoever lacks the verb gets the same answer as for a session that does not exist.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/gateway"
)

// Engine is the api's view of the actors.
type Engine interface {
	ListSessions(context.Context, actors.Viewer, actors.SessionFilter) (*wire.SessionList, error)
	GetSession(ctx context.Context, v actors.Viewer, id string) (*wire.Session, error)
	EndSession(ctx context.Context, v actors.Viewer, id string) (*wire.Session, error)
	AttachSession(ctx context.Context, v actors.Viewer, id string) (*wire.Attachment, error)
	ReadOutput(ctx context.Context, v actors.Viewer, session string, r actors.OutputRange) (*wire.OutputPage, error)
	ReadRecording(
		ctx context.Context, v actors.Viewer, session, execution string, offset int64,
	) (*actors.RecordingPage, error)
	Pods() *wire.PodList
}

// Access is what somebody did with a session of another subject, for the audit log.
type Access struct {
	Subject   string // who
	Verb      gateway.Verb
	Session   string // empty: a list
	Execution string // whose output they asked for; empty: none
	Owner     string // the session's subject; empty: a list, or no such session
	Read      bool   // they were shown commands or output
	Remote    string // the client's address
	Status    int    // of the answer
}

// Config configures a Handler.
type Config struct {
	Engine  Engine           // required
	Gateway *gateway.Gateway // knows who a client is; required
	// Audit is called for each request that concerns sessions of other subjects. It must not block. nil: none.
	Audit      func(Access)
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: metrics are kept but not exported
}

const (
	// Prefix of all paths.
	Prefix = "/api/v1/"
	// MaxRequests is how many requests are served at a time. One subject may have half of them while there are
	// several.
	MaxRequests = 4
	// MaxRecordings is how many recordings are being sent at a time. One subject may have half of them, likewise. Each
	// page of one is a request of its own to MaxRequests, so they hold nothing between two pages but a connection.
	MaxRecordings = 16
	// RequestCost bounds what one of them holds, in bytes: the page of a listing, decoded and encoded.
	RequestCost = 1 << 20
	// requestWait is how long a request waits for its permit.
	requestWait = 2 * time.Second
	// maxBody bounds the body of a request, which nothing reads.
	maxBody = 4 << 10
)

// Handler serves the API.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	metrics *prometheus.CounterVec // route, code
	permits *gateway.Permits
	records *gateway.Permits
	wait    time.Duration // tests lower it from requestWait
	mux     *http.ServeMux
}

// New returns a Handler for the paths below Prefix.
func New(cfg Config) (*Handler, error) {
	if cfg.Engine == nil || cfg.Gateway == nil {
		return nil, errors.New("api: Config.Engine and Config.Gateway are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		cfg: cfg, log: cfg.Logger, permits: cfg.Gateway.NewPermits(MaxRequests), wait: requestWait, mux: http.NewServeMux(),
		records: cfg.Gateway.NewPermits(MaxRecordings),
	}
	h.metrics = newMetrics(cfg.Registerer)
	for _, r := range routes {
		h.mux.Handle(r.path, h.serve(r))
	}
	h.mux.Handle("/", h.serve(noRoute))
	return h, nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// request is a request that is being served.
type request struct {
	*http.Request
	h       *Handler
	subject string
	held    bool // its permit
}

// answer is what a request is answered with.
type answer struct {
	status int
	body   any // encoded as JSON
	// stream sends the answer in place of body, with the status 200.
	stream func(context.Context, http.ResponseWriter) error
}

// method serves one method of a route.
type method struct {
	serve func(context.Context, *request) (answer, error)
	// verbs let a client in: any of them.
	verbs []gateway.Verb
}

// route is a path and its methods.
type route struct {
	path    string
	methods map[string]method
}

// noRoute answers for every other path.
var noRoute = route{path: "other"}

var routes = []route{
	{Prefix + "openapi.json", map[string]method{http.MethodGet: {serve: document}}},
	{Prefix + "sessions", map[string]method{
		http.MethodGet: {listSessions, []gateway.Verb{gateway.VerbCreate, gateway.VerbList}},
	}},
	{Prefix + "sessions/{id}", map[string]method{
		http.MethodGet:    {getSession, []gateway.Verb{gateway.VerbCreate, gateway.VerbGet}},
		http.MethodDelete: {endSession, []gateway.Verb{gateway.VerbCreate, gateway.VerbDelete}},
	}},
	{Prefix + "sessions/{id}/attach", map[string]method{
		http.MethodPost: {attachSession, []gateway.Verb{gateway.VerbCreate}},
	}},
	{Prefix + "sessions/{id}/executions/{execution}/output", map[string]method{
		http.MethodGet: {readOutput, []gateway.Verb{gateway.VerbCreate, gateway.VerbRead}},
	}},
	{Prefix + "sessions/{id}/executions/{execution}/recording", map[string]method{
		http.MethodGet: {recording, []gateway.Verb{gateway.VerbCreate, gateway.VerbRead}},
	}},
	{Prefix + "pods", map[string]method{
		http.MethodGet: {listPods, []gateway.Verb{gateway.VerbCreate, gateway.VerbList}},
	}},
}
