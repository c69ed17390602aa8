package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/clients/fileserver"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/clients/mcp"
	"github.com/troupe-dev/troupe/gateway"
	"github.com/troupe-dev/troupe/gateway/console"
)

const (
	// keepAgents is how long a session's connection waits for the next call of an agent.
	keepAgents = 30 * time.Second
	// maxKeptAgents bounds these connections.
	maxKeptAgents = 32
	// maxEdits bounds the files that are edited at a time.
	maxEdits = 1
	// agentWindow bounds the output that a call holds unread.
	agentWindow = 16 << 10
)

// openDoor opens the tools for agents. Each call connects to this server's own gateway, as its client
// would to /ws, so that it has the same rights, and reaches sessions of any pod.
func (s *server) openDoor() (err error) {
	s.inside = newInside()
	s.door, err = mcp.New(mcp.Config{
		URL: "ws://trouped/ws", Options: s.agentOptions, Attach: s.attachAgent,
		Keep: keepAgents, MaxKept: maxKeptAgents, MaxEdits: maxEdits,
		Version: version,
	})
	if err != nil {
		return err
	}
	srv := gateway.NewHTTPServer(s.gateway.Handler(), s.log)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.inside) // until it is closed
	}()
	s.onClose("connections of agents", func() error {
		s.door.Close()
		err := srv.Close()
		<-served
		return err
	})
	return nil
}

// handler returns what clients reach.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.gateway.Handler())
	mux.Handle("/api/", s.sessions)
	mux.Handle("/mcp", s.gateway.Guard(s.door.Handler(func(r *http.Request) string {
		return gateway.Subject(r.Context())
	})))
	if s.c.servesConsole() {
		page := console.Handler()
		mux.Handle("GET /{$}", page)
		mux.Handle("GET "+console.Prefix, page)
	}
	sessionFiles := fileserver.NewHandler(fileserver.Config{Engine: s.engine, Caller: s.fileCaller, Logger: s.log})
	transfers := s.gateway.GuardStreams(gateway.MaxTransfers, sessionFiles)
	watches := s.gateway.GuardStreams(gateway.MaxWatches, sessionFiles)
	for _, path := range []string{"files/{path...}", "uploads/{upload}"} {
		mux.HandleFunc(fileserver.Prefix+"{session}/"+path, func(w http.ResponseWriter, r *http.Request) {
			if fileserver.IsWatch(r) {
				watches.ServeHTTP(w, r)
			} else {
				transfers.ServeHTTP(w, r)
			}
		})
	}
	if s.c.mcpResource != "" {
		metadata := s.resourceMetadata()
		mux.Handle("GET "+metadataPath, metadata)
		mux.Handle("GET "+metadataPath+"/", metadata) // the resource's own path, which a proxy may have changed
	}
	return s.gateway.CrossOrigin(mux)
}

// metadataPath is where a client that got 401 finds the metadata, with the path of the resource behind it
// (https://www.rfc-editor.org/rfc/rfc9728#section-3.1).
const metadataPath = "/.well-known/oauth-protected-resource"

// resourceMetadata says which servers issue tokens for /mcp. It is public, also for pages of other origins.
func (s *server) resourceMetadata() http.Handler {
	body, err := json.Marshal(map[string]any{
		"resource": s.c.mcpResource, "authorization_servers": s.c.authServers, "bearer_methods_supported": []string{"header"},
	})
	if err != nil {
		panic(err) // strings
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(body) // the client may be gone
	})
}

// metadataURL is where the metadata is, for the challenge of a 401. Empty: nowhere.
func (c *config) metadataURL() string {
	u, err := url.Parse(c.mcpResource)
	if err != nil || c.mcpResource == "" {
		return ""
	}
	u.Path = metadataPath + u.Path
	return u.String()
}

// fileCaller says who has made a request for the files of a session, and has its resume token.
func (s *server) fileCaller(r *http.Request, session string) (fileserver.Caller, error) {
	caller := fileserver.Caller{Subject: gateway.Subject(r.Context()), ResumeToken: r.Header.Get(wire.ResumeTokenHeader)}
	if caller.ResumeToken != "" {
		return caller, nil
	}
	if s.gateway.OneSubject() {
		return caller, fileserver.Refuse(http.StatusForbidden, "without authentication every client is the same subject, and "+
			"this server separates sessions: send the session's resume token as "+wire.ResumeTokenHeader)
	}
	a, err := s.engine.AttachSession(r.Context(), actors.Viewer{Subject: caller.Subject}, session)
	if err != nil {
		return caller, err
	}
	caller.ResumeToken = a.ResumeToken
	return caller, nil
}

// agentOptions are those of the connections of a call: they carry the token of its client, and its
// address for the log.
func (s *server) agentOptions(c mcp.Call) troupe.Options {
	opt := troupe.Options{
		HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.inside.dial(ctx, c.Remote) },
		}},
		Window: agentWindow,
	}
	opt.Session.ResumeWindow = s.c.limits.IdleTimeout // an agent may think for long
	if c.Authorization != "" {
		opt.Header = http.Header{"Authorization": {c.Authorization}}
	}
	return opt
}

// inside is a listener for connections of this process to itself.
type inside struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newInside() *inside { return &inside{conns: make(chan net.Conn), done: make(chan struct{})} }

// dial connects to the listener, in the place of a client with the given address.
func (l *inside) dial(ctx context.Context, remote string) (net.Conn, error) {
	here, there, err := socketPair()
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- insideConn{there, remote}:
		return here, nil
	case <-l.done:
		err = errors.New("the server is stopping")
	case <-ctx.Done():
		err = ctx.Err()
	}
	here.Close()
	there.Close()
	return nil, err
}

// socketPair returns a connection with buffers between its ends. Without, as net.Pipe is, both ends would
// wait for each other as soon as both write: a client that answers a ping reads nothing meanwhile.
func socketPair() (here, there net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "inside")
		conn, connErr := net.FileConn(f)
		f.Close()
		ends[i], err = conn, errors.Join(err, connErr)
	}
	if err != nil {
		for _, c := range ends {
			if c != nil {
				c.Close()
			}
		}
		return nil, nil, err
	}
	return ends[0], ends[1], nil
}

// Accept implements net.Listener.
func (l *inside) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *inside) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *inside) Addr() net.Addr { return insideAddr("trouped") }

// insideConn has the address of the client that it stands for.
type insideConn struct {
	net.Conn
	remote string
}

func (c insideConn) RemoteAddr() net.Addr { return insideAddr(c.remote) }

type insideAddr string

func (insideAddr) Network() string  { return "inside" }
func (a insideAddr) String() string { return string(a) }

// attachAgent returns a resume token for a session of the caller, on whatever pod it is.
func (s *server) attachAgent(ctx context.Context, c mcp.Call, session string) (string, error) {
	if s.gateway.OneSubject() {
		return "", troupe.ErrNoSession
	}
	a, err := s.engine.AttachSession(ctx, actors.Viewer{Subject: c.Subject}, session)
	if errors.Is(err, actors.ErrNoSession) {
		return "", troupe.ErrNoSession
	}
	if err != nil {
		return "", err
	}
	return a.ResumeToken, nil
}
