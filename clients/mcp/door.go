package mcp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// Config configures a Door.
type Config struct {
	// URL of the server's WebSocket endpoint. Required.
	URL string
	// Options returns the options of the connections that a call makes. Required.
	Options func(Call) troupe.Options
	// Attach returns a resume token for a session that this process has not opened, for the subject of
	// the call. The error wraps troupe.ErrNoSession if it has none of that id. nil: such sessions are
	// unknown.
	Attach func(ctx context.Context, c Call, session string) (token string, err error)
	// Explain says more of an error of the network, for the model. nil: it stands as it is.
	Explain func(error) error
	// OwnSession makes the argument session optional: the first call without it opens a session. It is
	// for a process that has one client, as over stdio.
	OwnSession bool
	// Keep is how long a connection that no call uses is kept. Zero: as long as its session lives.
	Keep time.Duration
	// MaxKept bounds the connections that are kept. Zero: no bound.
	MaxKept int
	// MaxEdits bounds the files that are edited at a time, each held whole. Others wait. Zero: no bound.
	MaxEdits int
	// Version of the program. Empty: "devel".
	Version string
	// Logger gets what the SDK says, at its levels. nil: silent.
	Logger *slog.Logger
}

// Call says who a tool call is made for. Over stdio it is the zero value.
type Call struct {
	Subject       string // who sends it, as Handler was told
	Authorization string // the header
	Remote        string // address of the client
}

// Door serves the tools. It is safe for concurrent use.
type Door struct {
	cfg      Config
	server   *sdk.Server
	sessions *sessions
	files    fileStore
	edits    chan struct{} // capacity Config.MaxEdits; nil: no bound

	mu  sync.Mutex
	own string // the session of calls that name none
}

// New returns a Door. The caller serves Run or Handler, and calls Close at the end.
func New(cfg Config) (*Door, error) {
	if cfg.URL == "" || cfg.Options == nil {
		return nil, errors.New("mcp: Config.URL and Config.Options are required")
	}
	if cfg.Version == "" {
		cfg.Version = "devel"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Explain == nil {
		cfg.Explain = func(err error) error { return err }
	}
	d := &Door{cfg: cfg}
	if cfg.MaxEdits > 0 {
		d.edits = make(chan struct{}, cfg.MaxEdits)
	}
	d.sessions = newSessions(&d.cfg, cfg.Keep)
	d.files = commandFiles{d.sessions}
	d.server = sdk.NewServer(&sdk.Implementation{
		Name: "troupe", Title: "troupe: commands and files in a sandbox", Version: cfg.Version,
	}, &sdk.ServerOptions{
		Instructions: instructions(cfg.OwnSession), Logger: cfg.Logger,
		// The tools never change while a program runs, and nothing is logged to clients.
		Capabilities: &sdk.ServerCapabilities{
			Tools: &sdk.ToolCapabilities{}, Resources: &sdk.ResourceCapabilities{},
		},
	})
	d.addTools()
	d.addResources()
	return d, nil
}

// Close ends the connections that are kept. The sessions live on for their resume window.
func (d *Door) Close() { d.sessions.close() }

// Serve serves one client, with a JSON message to a line, until in ends or ctx does.
func (d *Door) Serve(ctx context.Context, in io.ReadCloser, out io.WriteCloser) error {
	err := d.server.Run(ctx, &sdk.IOTransport{Reader: in, Writer: out})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// headers of a call that Handler sets for the tools.
const (
	subjectHeader = "Troupe-Subject"
	remoteHeader  = "Troupe-Remote"
)

// callerOf returns who a request is made for.
func callerOf(extra *sdk.RequestExtra) caller {
	if extra == nil || extra.Header == nil {
		return caller{}
	}
	h := extra.Header
	return caller{
		subject: h.Get(subjectHeader), authorization: h.Get("Authorization"), remote: h.Get(remoteHeader),
	}
}

func (c caller) call() Call {
	return Call{Subject: c.subject, Authorization: c.authorization, Remote: c.remote}
}

// Handler serves the tools over HTTP, without sessions of the protocol: each request stands alone. The
// caller has authenticated a request and bounded its body; subject returns whose sessions it may use.
func (d *Door) Handler(subject func(*http.Request) string) http.Handler {
	return d.handler(subject, true)
}

func (d *Door) handler(subject func(*http.Request) string, stateless bool) http.Handler {
	streamable := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return d.server },
		&sdk.StreamableHTTPOptions{
			Stateless: stateless, Logger: d.cfg.Logger,
			MaxRequestBodyBytes:          -1, // the caller bounds them
			PropagateRequestCancellation: true,
			DisableLocalhostProtection:   true, // the caller has checked the Origin, also behind a proxy of this host
		})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.Header.Set(subjectHeader, subject(r)) // whatever the client has sent
		r.Header.Set(remoteHeader, r.RemoteAddr)
		streamable.ServeHTTP(w, r)
	})
}

// session returns the session that a call is about.
func (d *Door) session(ctx context.Context, who caller, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if !d.cfg.OwnSession {
		return "", errors.New("session is missing: call open_session, and pass the session that it returns")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own == "" {
		c, err := d.sessions.open(ctx, who, wire.SessionOptions{})
		if err != nil {
			return "", err
		}
		d.own = c.ID()
		d.sessions.release(who, c)
	}
	return d.own, nil
}
