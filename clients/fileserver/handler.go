package fileserver

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/files"
)

// Prefix is where the Handler's paths begin.
const Prefix = "/api/v1/sessions/"

// Config configures a Handler.
type Config struct {
	Engine *actors.Engine // has the sessions, or knows the pods that have them; required
	// Caller says who has made a request for the files of a session. Its errors are those of
	// Engine.AttachSession, or one made by Refuse.
	Caller func(r *http.Request, session string) (Caller, error) // required
	Logger *slog.Logger                                          // nil: discard
}

// Caller is who may use a session.
type Caller struct {
	Subject     string
	ResumeToken string // of the session; the engine checks both
}

// stallTimeout is the time that a client may take for the next piece of a transfer, which is 64 KiB or
// less.
const stallTimeout = 60 * time.Second

// Handler serves the files of sessions. It authenticates nobody: Caller does.
type Handler struct {
	cfg   Config
	log   *slog.Logger
	mux   *http.ServeMux
	stall time.Duration // tests lower it from stallTimeout
}

// methods of the paths below a session, by what follows its id.
var methods = map[string]map[string]func(*call) error{
	"/files/{path...}": {
		http.MethodGet: (*call).get, http.MethodHead: (*call).get, http.MethodPut: (*call).put,
		http.MethodPost: (*call).post, http.MethodDelete: (*call).remove,
	},
	"/uploads/{upload}": {
		http.MethodHead: (*call).uploadState, http.MethodPatch: (*call).uploadMore, http.MethodDelete: (*call).uploadCancel,
	},
}

// NewHandler returns a Handler.
func NewHandler(cfg Config) *Handler {
	h := &Handler{cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), stall: stallTimeout}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	for path, serve := range methods {
		allow := strings.Join(slices.Sorted(maps.Keys(serve)), ", ")
		h.mux.HandleFunc(Prefix+"{session}"+path, func(w http.ResponseWriter, r *http.Request) {
			method, ok := serve[r.Method]
			if !ok {
				w.Header().Set("Allow", allow)
				method = func(*call) error { return problemf(http.StatusMethodNotAllowed, "", "use %s", allow) }
			}
			h.serve(w, r, method)
		})
	}
	return h
}

// ServeHTTP is http.Handler's.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// call is one HTTP request.
type call struct {
	h    *Handler
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	ctrl *http.ResponseController
	path files.Name
	body bool // the request has one that was not read to its end
	sent bool // the header of the answer
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, serve func(*call) error) {
	c := &call{
		h: h, w: w, r: r, ctx: r.Context(), ctrl: http.NewResponseController(w), path: files.Name(r.PathValue("path")),
		body: r.Body != http.NoBody,
	}
	r.Body = &body{r.Body, c}
	c.extend()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	err := serve(c)
	if err == nil {
		return
	}
	p := problemOf(err)
	if c.sent {
		// Only a broken connection says that an answer which has begun is not whole.
		h.log.Debug("a transfer failed", "session", r.PathValue("session"), "err", err)
		panic(http.ErrAbortHandler)
	}
	c.extend()
	p.write(w)
}

// extend lets the client have stallTimeout for its next piece, in either direction. Without a body there
// is no deadline for reading: net/http reads on, to notice that the client has gone, and would take a
// deadline for that.
func (c *call) extend() {
	end := time.Now().Add(c.h.stall)
	_ = c.ctrl.SetWriteDeadline(end) // not supported: the server's own timeouts hold
	if !c.body {
		end = time.Time{}
	}
	_ = c.ctrl.SetReadDeadline(end) // the same
}

// body is that of a request.
type body struct {
	io.ReadCloser
	c *call
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.c.body {
		b.c.body = false
		b.c.extend()
	}
	return n, err
}

// begin sends the header of the answer.
func (c *call) begin(status int) {
	c.sent = true
	c.extend()
	c.w.WriteHeader(status)
}

func (c *call) answerJSON(status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	c.begin(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	_, err = c.w.Write(append(text, '\n'))
	return err
}
