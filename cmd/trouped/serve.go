package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/turn"
	"github.com/troupe-dev/troupe/clients/mcp"
	"github.com/troupe-dev/troupe/gateway"
	"github.com/troupe-dev/troupe/gateway/api"
	"github.com/troupe-dev/troupe/k8s"
)

// disconnectTimeout is how long clients may take to receive their last messages when the server
// stops immediately. After a drain they have what is left of its timeout, at least the write timeout,
// as long as they go on reading.
const disconnectTimeout = 500 * time.Millisecond

// closeTimeout is how long closing may take once trouped no longer waits for clients: killing and
// reaping every process takes milliseconds. If closing takes longer, something is stuck, and
// trouped exits. The runner then kills the remaining processes.
const closeTimeout = 20 * time.Second

// maxScrapes is how many requests for /metrics are answered at a time, since each answer is built in
// memory. Others get 503.
const maxScrapes = 2

// maxSockets is how many WebSockets there may be: an ingress may send the clients of three full pods
// to one of them, and others wait for a session or come back to one.
func maxSockets(l actors.Limits) int { return max(3*l.MaxSessions+20, 64) }

// serve runs the server until a signal stops it.
func serve(c *config) error {
	signals := catchSignals() // first, because an uncaught signal would leave processes behind
	if err := c.findCluster(); err != nil {
		return err
	}
	s, err := start(c)
	if err != nil {
		return failure{err}
	}
	s.announce()
	err = s.wait(signals)
	s.close()
	if err != nil {
		return failure{err}
	}
	return nil
}

// catchSignals returns a channel of stop signals. The first starts a drain; the second
// exits immediately. One that was ignored at start stays ignored: SIGHUP by nohup(1), SIGINT by a
// script that starts trouped in the background.
func catchSignals() <-chan os.Signal {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(stop, sig)
		}
	}
	// The server must survive the reader of its log. SIGPIPE is caught rather than
	// ignored, because commands would inherit an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return stop
}

// server is a running trouped.
type server struct {
	c        *config
	logs     *logs
	log      *slog.Logger
	registry *prometheus.Registry

	// Found and opened by start, in the order of its steps.
	workdir  string
	binary   string        // of the embedded runner
	socket   string        // of a runner that something else starts
	cluster  *k8s.Client   // nil: not in a cluster, or no setting needs one
	events   *k8s.Recorder // nil: no Events are written
	auth     gateway.Authenticator
	listener net.Listener
	admin    net.Listener
	store    *transcript.Store
	runner   *proc.Runner
	engine   *actors.Engine
	gateway  *gateway.Gateway
	inside   *inside
	door     *mcp.Door
	sessions *api.Handler
	tracer   oteltrace.Tracer    // nil: no traces
	peers    *actors.PeersConfig // nil: no peers

	failed            chan error // a listener failed
	disconnectTimeout time.Duration
	closers           []closer // in the order of opening
}

type closer struct {
	what  string
	close func() error
}

// start opens everything or nothing: if a step fails, it closes what the earlier steps opened. It
// checks everything that it can before it starts a process.
func start(c *config) (*server, error) {
	s := &server{
		c: c, logs: newLogs(c, os.Stderr), registry: newRegistry(c),
		failed: make(chan error, 2), disconnectTimeout: disconnectTimeout,
	}
	s.log = s.logs.log
	registerLogs(s.registry, s.logs)
	limitMemory(c.limits.MaxSessions)
	s.onClose("log", func() error { s.logs.Close(); return nil })
	for _, step := range []func() error{
		s.findFiles, s.openCluster, s.loadAuth, s.listen, s.openStore, s.openRunner, s.openTraces, s.openPeers,
		s.openEngine, s.openAnnotations, s.openGateway, s.openDoor, s.openAPI, s.serveAdmin, s.serveClients,
	} {
		if err := step(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *server) onClose(what string, f func() error) { s.closers = append(s.closers, closer{what, f}) }

// close undoes the steps of start in reverse order.
func (s *server) close() {
	wedged := time.AfterFunc(closeTimeout, func() {
		fmt.Fprintf(os.Stderr, "trouped: closing took over %v, giving up; the runner kills what is left\n", closeTimeout)
		os.Exit(exitFailure)
	})
	defer wedged.Stop()
	for _, c := range slices.Backward(s.closers) {
		if err := c.close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Warn("closing failed", "what", c.what, "err", err)
		}
	}
}

// findFiles looks for the files and directories that must exist.
func (s *server) findFiles() (err error) {
	if s.workdir, err = s.c.commandDir(); err != nil {
		return err
	}
	if s.socket, err = s.c.runnerSocket(); err != nil {
		return err
	}
	if s.socket == "" {
		if s.binary, err = s.c.findRunner(); err != nil {
			return err
		}
	}
	return s.c.prepareDataDir()
}

func (s *server) loadAuth() (err error) {
	switch s.c.auth {
	case authNone, authNoneInsecure:
		s.auth = gateway.NoAuth{}
		return nil
	case authKubernetes:
		return s.openClusterAuth()
	}
	if s.auth, err = gateway.NewTokenFile(s.c.tokenFile, s.log); err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	return nil
}

// listen binds the addresses. Clients that connect now wait in the backlog until
// serveClients.
func (s *server) listen() (err error) {
	if s.listener, err = bind("listen", s.c.listen); err != nil {
		return err
	}
	s.onClose("listener", s.listener.Close)
	if s.c.adminListen == "" {
		return nil
	}
	if s.admin, err = bind("admin-listen", s.c.adminListen); err != nil {
		return err
	}
	s.onClose("admin listener", s.admin.Close)
	return nil
}

func bind(flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--%s %s: the address is in use, perhaps by another trouped; choose another port", flag, addr)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return l, nil
}

func (s *server) openStore() (err error) {
	s.store, err = transcript.Open(transcript.Config{
		Dir: s.c.dataDir, Budget: s.c.transcriptBudget, OwnerBudget: s.c.subjectBudget, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	s.onClose("transcripts", s.store.Close)
	return nil
}

func (s *server) openRunner() (err error) {
	for name, path := range s.c.openToSessions() {
		s.log.Warn("every session can read what is only for trouped", "flag", "--"+name, "path", path)
	}
	s.runner, err = proc.Open(proc.Config{
		Binary: s.binary, Socket: s.socket, WarmInits: warmInits, Cgroup: s.c.cgroup,
		Isolation: s.c.runnerIsolation(), Session: s.c.sessionBounds(), Logger: s.log, OnEvent: s.runnerChanged,
	})
	if err != nil {
		return fmt.Errorf("start the runner: %w", err)
	}
	s.onClose("runner", s.runner.Close)
	registerRunner(s.registry, s.runner.Status)
	registerIsolation(s.registry, s.c, s.runner.Status)
	registerStore(s.registry, s.store.Stats)
	return nil
}

func (s *server) openTraces() error {
	counts := new(spanCounts)
	registerTraces(s.registry, counts)
	tracer, flush, err := counts.openTracer(s.c, s.log)
	if err != nil || tracer == nil {
		return err
	}
	s.tracer = tracer
	s.onClose("traces", flush)
	return nil
}

func (s *server) openEngine() (err error) {
	s.engine, err = actors.New(actors.Config{
		Limits:        s.c.limits,
		Runner:        actors.ProcRunner(s.runner),
		Store:         s.store,
		Pod:           s.c.pod,
		Workdir:       s.workdir,
		Env:           s.c.commandEnv(),
		AllowCommands: s.c.allowCommands,
		AllowEnv:      s.c.allowEnv,
		ManySubjects:  func() bool { return gateway.ManySubjects(s.auth) },
		Logger:        s.log,
		Registerer:    s.registry,
		Tracer:        s.tracer,
		Audit:         s.logs.auditor(),
		AuditArgv:     s.c.auditArgv == argvFull,
		Peers:         s.peers,
		Refused:       s.sessionRefused,
	})
	if err != nil {
		return err
	}
	s.onClose("engine", func() error { s.engine.Close(); return nil })
	return nil
}

func (s *server) openGateway() (err error) {
	s.gateway, err = gateway.New(gateway.Config{
		Engine: gateway.FromActors(s.engine), Auth: s.auth, AllowedOrigins: s.c.allowedOrigins, Version: version,
		ResourceMetadata: s.c.metadataURL(),
		MaxConnections:   maxSockets(s.c.limits), MaxPerSubject: s.c.subjectSockets, MaxMessage: s.c.limits.MaxMessage,
		WriteTimeout: writeTimeout, PingInterval: s.c.pingInterval,
		Logger: s.log, Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.onClose("client connections", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), s.disconnectTimeout)
		defer cancel()
		return s.gateway.Close(ctx)
	})
	return nil
}

func (s *server) openAPI() (err error) {
	s.sessions, err = api.New(api.Config{
		Engine: s.engine, Gateway: s.gateway, Audit: s.logs.accessAuditor(), Logger: s.log, Registerer: s.registry,
	})
	return err
}

func (s *server) serveAdmin() error {
	if s.admin == nil {
		return nil
	}
	metrics := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		Registry: s.registry, MaxRequestsInFlight: maxScrapes,
	})
	s.serve(
		"admin",
		gateway.AdminHandler(gateway.AdminConfig{Metrics: metrics, NotReady: s.engine.NotReady, Pprof: s.c.pprof}),
		s.keepFromCommands(s.admin, "admin"), gateway.MaxAdminConnections, turn.Admin,
	)
	return nil
}

func (s *server) serveClients() error {
	s.serve("client", s.handler(), s.listener, gateway.MaxHTTPConnections, turn.Requests)
	return nil
}

// serve serves h on l until close.
func (s *server) serve(what string, h http.Handler, l net.Listener, connections int, turns turn.Kind) {
	l = gateway.Limit(l, gateway.ListenerConfig{Name: what, Max: connections, Turns: turns, Registerer: s.registry})
	srv := gateway.NewHTTPServer(h, s.log)
	s.onClose(what+" listener", srv.Close)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("the %s listener failed: %w", what, err)
		}
	}()
}

// wait returns nil after a drain, and an error at a second signal or when a listener
// fails. The gateway goes on serving meanwhile.
func (s *server) wait(signals <-chan os.Signal) error {
	select {
	case sig := <-signals:
		s.log.Info("draining; a second signal stops everything immediately",
			"signal", sig.String(), "sessions", s.engine.Stats().Sessions, "timeout", s.c.limits.DrainTimeout)
		s.drainBegan()
	case err := <-s.failed:
		return err
	}
	deadline := time.Now().Add(s.c.limits.DrainTimeout)
	stop, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		s.engine.Drain(stop)
	}()
	select {
	case <-drained:
		s.log.Info("drained")
		s.drainEnded()
		s.disconnectTimeout = max(writeTimeout, time.Until(deadline))
		return nil
	case <-signals:
		close(stop)
		<-drained
		return errors.New("stopped by a second signal before the drain was complete")
	}
}
