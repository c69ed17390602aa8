package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// Run is one play of a script: the server's side of it. Its client connects to Handler.
type Run struct {
	script *Script
	ctx    context.Context
	ended  chan struct{} // closed by End

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, at every change
	marks    map[string]bool
	conns    int // begun
	played   int // to the end
	vanished int // of those that are held, but have no more steps
	failure  error
	refusal  *Refusal // of the latest handshake
	players  sync.WaitGroup
	over     bool
}

// NewRun begins to play a script. End must be called.
func NewRun(ctx context.Context, s *Script) *Run {
	return &Run{
		script: s, ctx: ctx, ended: make(chan struct{}), changed: make(chan struct{}), marks: make(map[string]bool),
	}
}

// Mark sets a mark, which actions of the client and steps of the server may await.
func (r *Run) Mark(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks[name] = true
	r.changedLocked()
}

// Await waits for a mark, or for the first failure of the run, which it returns.
func (r *Run) Await(ctx context.Context, name string) error {
	if err := r.wait(ctx, func() (bool, error) { return r.marks[name], r.failure }); err != nil {
		return fmt.Errorf("awaiting the mark %q: %w", name, err)
	}
	return nil
}

// End waits until every connection of the script was played, and returns the first failure.
func (r *Run) End(ctx context.Context) error {
	want := len(r.script.Server)
	err := r.wait(ctx, func() (bool, error) { return r.played+r.vanished >= want, r.failure })
	r.mu.Lock()
	if err != nil && r.failure == nil {
		r.failure = fmt.Errorf("connections played to their end: %d of %d: %w", r.played, want, err)
	}
	err = r.failure
	if !r.over {
		r.over = true
		close(r.ended)
	}
	r.mu.Unlock()
	r.players.Wait()
	return err
}

func (r *Run) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Run) failLocked(err error) {
	if r.failure == nil {
		r.failure = err
	}
	r.changedLocked()
}

// wait calls ready with r.mu held, at every change, until it returns true or an error.
func (r *Run) wait(ctx context.Context, ready func() (bool, error)) error {
	for {
		r.mu.Lock()
		ok, err := ready()
		changed := r.changed
		r.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("nothing came: %w", ctx.Err())
		}
	}
}

// ServeHTTP answers the handshakes of the client. A request without Upgrade is a client's question
// why the latest one was refused, since a browser does not say: it is answered as that one was.
func (r *Run) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Upgrade") == "" {
		r.mu.Lock()
		refusal := r.refusal
		r.mu.Unlock()
		if refusal == nil {
			refusal = &Refusal{Status: http.StatusUpgradeRequired}
		}
		refuse(w, refusal)
		return
	}
	n, c, ok := r.begin()
	if !ok {
		refuse(w, &Refusal{Status: http.StatusGone, Body: "the script has no more connections"})
		return
	}
	defer r.players.Done()
	at, err := r.serve(w, req, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failLocked(fmt.Errorf("connection %d, step %d: %w", n, at, err))
	}
	r.played++
	r.changedLocked()
}

// begin takes the next connection of the script.
func (r *Run) begin() (n int, c *Connection, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return 0, nil, false
	}
	last := len(r.script.Server) - 1
	if r.conns > last && !r.script.Server[last].Repeat {
		r.failLocked(fmt.Errorf("the client made more than the %d connections of the script", r.conns))
		return 0, nil, false
	}
	c = &r.script.Server[min(r.conns, last)]
	r.conns++
	r.refusal = c.Refuse
	r.players.Add(1)
	return r.conns, c, true
}

func (r *Run) serve(w http.ResponseWriter, req *http.Request, c *Connection) (at int, err error) {
	if err := c.check(req); err != nil {
		return 0, err
	}
	switch {
	case c.Refuse != nil:
		refuse(w, c.Refuse)
		return 0, nil
	case c.Drop:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return 0, err
		}
		return 0, conn.Close()
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{
		Subprotocols: []string{subprotocol}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	go func() {
		select {
		case <-r.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return newPlayer(r, ws).play(ctx, c.Steps)
}

func refuse(w http.ResponseWriter, r *Refusal) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.Status)
	_, _ = w.Write([]byte(r.Body))
}

// check compares a handshake with the script.
func (c *Connection) check(req *http.Request) error {
	query := req.URL.Query()
	for name, want := range c.Query {
		switch {
		case want == nil && query.Has(name):
			return fmt.Errorf("the client connected with %s=%s, want none", name, query.Get(name))
		case want != nil && query.Get(name) != *want:
			return fmt.Errorf("the client connected with %s=%s, want %s", name, query.Get(name), *want)
		}
	}
	if token := tokenOf(req); c.Token != nil && token != *c.Token {
		return fmt.Errorf("the client connected with the token %q, want %q", token, *c.Token)
	}
	return nil
}

// Server lets runners in other languages use the suite through HTTP. README.md describes its paths.
type Server struct {
	scripts map[string]*Script
	names   []string
	mux     *http.ServeMux
	ctx     context.Context

	mu      sync.Mutex
	runs    map[string]*Run
	proxies map[string]*Proxy
}

// NewServer returns a server whose runs and proxies end with ctx.
func NewServer(ctx context.Context) (*Server, error) {
	scripts, err := Scripts()
	if err != nil {
		return nil, err
	}
	s := &Server{
		scripts: make(map[string]*Script), mux: http.NewServeMux(), ctx: ctx,
		runs: make(map[string]*Run), proxies: make(map[string]*Proxy),
	}
	for _, script := range scripts {
		s.scripts[script.Name] = script
		s.names = append(s.names, script.Name)
	}
	s.mux.HandleFunc("GET /scripts", s.list)
	s.mux.HandleFunc("POST /runs/{script}", s.start)
	s.mux.HandleFunc("/runs/{run}/ws", s.withRun(connect))
	s.mux.HandleFunc("POST /runs/{run}/marks/{mark}", s.withRun(setMark))
	s.mux.HandleFunc("GET /runs/{run}/marks/{mark}", s.withRun(awaitMark))
	s.mux.HandleFunc("POST /runs/{run}/end", s.withRun(s.end))
	s.mux.HandleFunc("POST /proxies", s.startProxy)
	s.mux.HandleFunc("GET /proxies/{port}", s.proxy)
	s.mux.HandleFunc("GET /bare/{bytes}", bare)
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) { s.mux.ServeHTTP(w, req) }

func (s *Server) list(w http.ResponseWriter, _ *http.Request) { _ = answer(w, s.names) }

// start begins a run and answers with what the client's runner needs.
func (s *Server) start(w http.ResponseWriter, req *http.Request) {
	script := s.scripts[req.PathValue("script")]
	if script == nil {
		http.Error(w, fmt.Sprintf("no script %q: GET /scripts lists them", req.PathValue("script")), http.StatusNotFound)
		return
	}
	s.mu.Lock()
	id := fmt.Sprintf("run-%d", len(s.runs)+1)
	s.runs[id] = NewRun(s.ctx, script)
	s.mu.Unlock()
	path := "http://" + req.Host + "/runs/" + id
	_ = answer(w, map[string]any{
		"url": path, "ws": "ws" + strings.TrimPrefix(path, "http") + "/ws", "about": script.About,
		"needs": script.Needs, "options": script.Options, "client": script.Client,
	})
}

func connect(w http.ResponseWriter, req *http.Request, r *Run) error {
	r.ServeHTTP(w, req)
	return nil
}

func setMark(w http.ResponseWriter, req *http.Request, r *Run) error {
	r.Mark(req.PathValue("mark"))
	return answer(w, struct{}{})
}

func awaitMark(w http.ResponseWriter, req *http.Request, r *Run) error {
	ctx, cancel := context.WithTimeout(req.Context(), 3*stepTimeout)
	defer cancel()
	if err := r.Await(ctx, req.PathValue("mark")); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

// withRun finds the run of a request, and answers 409 with the error of serve.
func (s *Server) withRun(serve func(http.ResponseWriter, *http.Request, *Run) error) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		r := s.runs[req.PathValue("run")]
		s.mu.Unlock()
		if r == nil {
			http.Error(w, "no such run", http.StatusNotFound)
			return
		}
		if err := serve(w, req, r); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

// end answers with the outcome. A client that has ended its connections need not wait long.
func (s *Server) end(w http.ResponseWriter, req *http.Request, r *Run) error {
	ctx, cancel := context.WithTimeout(req.Context(), stepTimeout)
	defer cancel()
	if err := r.End(ctx); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

func (s *Server) startProxy(w http.ResponseWriter, req *http.Request) {
	var o ProxyOptions
	d := json.NewDecoder(req.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&o)
	var p *Proxy
	if err == nil {
		p, err = NewProxy(s.ctx, o)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, port, _ := strings.Cut(p.Addr(), ":")
	s.mu.Lock()
	s.proxies[port] = p
	s.mu.Unlock()
	_ = answer(w, map[string]any{"address": p.Addr(), "url": "http://" + req.Host + "/proxies/" + port})
}

func (s *Server) proxy(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	p := s.proxies[req.PathValue("port")]
	s.mu.Unlock()
	if p == nil {
		http.Error(w, "no such proxy", http.StatusNotFound)
		return
	}
	_ = answer(w, map[string]any{"cuts": p.Cuts()})
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// bare sends that many bytes in binary messages, and closes. It is what a client's platform receives at most,
// to which the client's own rate is compared.
func bare(w http.ResponseWriter, req *http.Request) {
	left, err := strconv.ParseInt(req.PathValue("bytes"), 10, 64)
	if err != nil || left < 0 {
		http.Error(w, "the path must end in a number of bytes", http.StatusBadRequest)
		return
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{
		InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := ws.CloseRead(req.Context())
	piece := Fill(0, 64<<10)
	for ; left > 0; left -= int64(len(piece)) {
		if err := ws.Write(ctx, websocket.MessageBinary, piece[:min(left, int64(len(piece)))]); err != nil {
			return
		}
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
}
