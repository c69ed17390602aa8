package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Config is what an Engine works with.
type Config struct {
	Limits        Limits                // refused unless Validate accepts it; see DefaultLimits
	Runner        Runner                // starts commands; required; the caller closes it after the Engine
	Store         *transcript.Store     // holds output; required; the caller closes it after the Engine
	Pod           string                // prefix of session ids; empty: "local"
	Workdir       string                // absolute working directory of commands; empty: "/"
	Env           []string              // NAME=value pairs every command gets; empty: none
	AllowCommands []string              // absolute paths of the programs that may run; empty: all, and shell strings
	AllowEnv      []string              // variables that clients may set beside AllowCommands; see CheckAllowEnv
	Logger        *slog.Logger          // nil: discard
	Peers         *PeersConfig          // nil: this pod is the whole service
	Registerer    prometheus.Registerer // nil: metrics are kept but not exported
	Tracer        trace.Tracer          // records the life of each execution; nil: no traces

	// ManySubjects reports whether clients of more than one subject may come, so that slots are kept
	// for those that hold none; see Reserved. It must not block. nil: one subject.
	ManySubjects func() bool

	// Audit is called once for each execution, at its end, from its actor. It must not block. nil:
	// none.
	Audit func(AuditRecord)
	// AuditArgv keeps the arguments of running executions for Audit, up to MaxAuditArgv. false: it
	// gets their digest only.
	AuditArgv bool
	// Refused is called for each session that the server could not open, after its client was told;
	// not if the client's subject was at its limit. It must not block. nil: none.
	Refused func(wire.Cause)
}

// Engine runs sessions. It is safe for concurrent use.
type Engine struct {
	limits      Limits
	runner      Runner
	store       *transcript.Store
	pod         string
	incarnation relay.Incarnation // this life of the pod; session ids begin with it
	cluster     *cluster          // nil: alone
	workdir     string
	env         []string
	allow       *allowList
	log         *slog.Logger
	metrics     *metrics
	input       inputBudget
	screens     screens
	streams     atomic.Int64 // of commands, that are read
	droppers    atomic.Int64 // of them, that only drop output
	tracer      trace.Tracer
	audit       func(AuditRecord)
	auditArgv   bool
	refused     func(wire.Cause)
	many        func() bool                     // clients of more than one subject may come
	probe       func(actorKind string, msg any) // tests only: runs before an actor's Receive

	system      *actor.ActorSystem
	dispatch    *dispatcher
	manager     *actor.PID
	connections sync.WaitGroup
	sessions    atomic.Int64 // slots in use, published by the manager
	most        atomic.Int64 // of these, those of the subject that has most
	turnedAway  atomic.Int64 // sessions and executions that were refused
	started     atomic.Int64 // commands
	startTime   atomic.Int64 // nanoseconds from the requests for these until they ran, in all
	executions  executionCount
	lingering   lingering
	detached    atomic.Int64 // sessions without a connection
	draining    atomic.Bool
	closing     atomic.Bool

	drainDeadline atomic.Int64 // nanoseconds since the epoch; 0: not draining
	drained       struct {
		once sync.Once
		done chan struct{}
	}
	closeOnce sync.Once
}

// New starts an Engine. The caller ends it with Close.
func New(cfg Config) (*Engine, error) {
	return newEngine(cfg, nil)
}

func newEngine(cfg Config, probe func(string, any)) (*Engine, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	if cfg.Runner == nil || cfg.Store == nil {
		return nil, errors.New("actors: Config.Runner and Config.Store are required")
	}
	allow, err := newAllowList(cfg.AllowCommands, cfg.AllowEnv)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		limits: cfg.Limits, runner: cfg.Runner, store: cfg.Store, pod: cfg.Pod,
		incarnation: relay.NewIncarnation(), workdir: cfg.Workdir,
		env: cfg.Env, allow: allow, log: cfg.Logger, tracer: cfg.Tracer, audit: cfg.Audit,
		auditArgv: cfg.AuditArgv, refused: cfg.Refused, probe: probe,
	}
	if e.many = cfg.ManySubjects; e.many == nil {
		e.many = func() bool { return false }
	}
	if e.refused == nil {
		e.refused = func(wire.Cause) {}
	}
	if e.pod == "" {
		e.pod = "local"
	}
	if e.workdir != "" && !filepath.IsAbs(e.workdir) {
		return nil, fmt.Errorf("the working directory must be an absolute path, got %q", e.workdir)
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.screens.log = e.log
	if cfg.Peers != nil {
		if err := cfg.Peers.validate(); err != nil {
			return nil, err
		}
	}
	e.input.limit = max(MaxInputBytes, 4*e.limits.MaxMessage)
	e.metrics = newMetrics(cfg.Registerer, e)
	e.drained.done = make(chan struct{})
	e.dispatch = newDispatcher()
	e.system = actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }),
		// Late messages to actors that have stopped are normal. protoactor counts them with a goroutine
		// that lives for this interval (actor/throttler.go in v0.0.0-20240822202345-3c0e61ca19c9).
		actor.WithDeadLetterThrottleInterval(time.Millisecond),
		actor.WithDeadLetterRequestLogging(false))
	m := e.newManager()
	guarded := &guard{engine: e, kind: "manager", survive: m.survive}
	e.manager, err = e.system.Root.SpawnNamed(guarded.props(m.receive), "manager")
	if err != nil {
		return nil, fmt.Errorf("start the session manager: %w", err)
	}
	if cfg.Peers != nil {
		e.joinCluster(cfg.Peers)
	}
	return e, nil
}

// Stats are the current figures of an Engine.
type Stats struct {
	Sessions    int // slots in use, sessions that are ending included
	MaxSessions int
	Executions  int           // not yet dead
	Refused     int64         // sessions and executions, since the Engine started
	Started     int64         // commands, likewise
	StartTime   time.Duration // from the requests for these until they ran, in all
	Draining    bool
	// MaxResumeWindow is the longest that a client may ask for.
	MaxResumeWindow time.Duration
	Isolation       string // what separates sessions, "session" or "none"; empty: no runner has come yet
}

// Stats returns current figures without waiting for any actor.
func (e *Engine) Stats() Stats {
	isolation, _ := e.runner.Isolation()
	return Stats{
		Isolation: isolation, MaxResumeWindow: e.limits.MaxResumeWindow(),
		Sessions: int(e.sessions.Load()), MaxSessions: e.limits.MaxSessions,
		Executions: e.executions.all(), Refused: e.turnedAway.Load(),
		Started: e.started.Load(), StartTime: time.Duration(e.startTime.Load()), Draining: e.draining.Load(),
	}
}

// Ready reports whether new sessions and commands are accepted.
func (e *Engine) Ready() bool { return e.NotReady() == "" }

// NotReady says why new sessions and commands are not accepted; "": they are.
func (e *Engine) NotReady() string {
	if e.draining.Load() {
		return "draining"
	}
	return e.runner.CannotStart()
}

// Drain opens no more sessions and starts no more commands, lets running ones
// finish for the drain timeout, ends the rest with reason drain, and returns
// when every session is gone. stop cuts it short.
func (e *Engine) Drain(stop <-chan struct{}) {
	deadline := time.Now().Add(e.limits.DrainTimeout)
	e.drainDeadline.Store(deadline.UnixNano())
	e.draining.Store(true)
	e.system.Root.Send(e.manager, drain{deadline: deadline})
	select {
	case <-e.drained.done:
	case <-stop:
	}
}

// Close ends every session at once, without grace, and waits for their actors.
// Processes that were running are killed; the Runner's Close waits for their death.
// Connections must have been closed by the gateway before.
func (e *Engine) Close() {
	e.closeOnce.Do(func() {
		e.draining.Store(true)
		e.closing.Store(true)
		// StopFuture has its own timeout, after which it leaves an actor that hangs behind.
		_ = e.system.Root.StopFuture(e.manager).Wait()
		e.stopLingering()
		if e.cluster != nil {
			e.cluster.close()
		}
		e.connections.Wait()
		e.system.Shutdown()
		e.dispatch.close()
		e.metrics.unregister()
	})
}

// after sends msg to pid after d. Actors stop their timers, and ignore a message that comes too
// late.
func (e *Engine) after(d time.Duration, pid *actor.PID, msg any) *time.Timer {
	return time.AfterFunc(d, func() { e.system.Root.Send(pid, msg) })
}
