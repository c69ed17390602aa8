//go:build linux

package proc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Config configures a Runner. Exactly one of Binary and Socket must be set.
type Config struct {
	Binary string // embedded mode: path of troupe-runner, which is started as a child
	Socket string // socket mode: path to listen on for a runner that dials

	WarmInits int               // inits kept idle for the next commands; 0: 8
	Cgroup    string            // embedded mode: "auto" (also ""), "off" or a cgroup directory to work in
	Isolation Isolation         // embedded mode: how sessions are separated
	Session   Bounds            // of all trees of one owner together
	Logger    *slog.Logger      // nil: slog.Default()
	OnEvent   func(RunnerEvent) // nil: events are dropped. It must not block
}

// Isolation is how an embedded runner separates sessions. A runner that dials has flags of the same
// names. Its zero value is that runner's default.
type Isolation struct {
	Level       string   // "auto" (also ""), "none" or "session"
	Workspace   string   // directory that workspaces are made in; "": troupe-UID in the system's temporary directory
	Seed        string   // directory whose content each new home begins with; "": empty
	Read, Write []string // trees that every session may read, or change
	Proc        string   // "readable" (also "") or "none"
	SharedTmp   bool     // files of /tmp can be used by name
	SysVIPC     bool     // System V IPC is allowed
}

// RunnerEvent is a fact about the runner itself.
type RunnerEvent struct {
	Kind  RunnerEventKind
	Count int // processes killed, for RunnerEscaped
}

// RunnerEventKind is what happened to the runner.
type RunnerEventKind string

// The events of a runner's life.
const (
	RunnerUp        RunnerEventKind = "up"        // the first runner connected
	RunnerLost      RunnerEventKind = "lost"      // it died or its connection closed; its trees are dead or dying
	RunnerRestarted RunnerEventKind = "restarted" // another runner took its place
	RunnerEscaped   RunnerEventKind = "escaped"   // the runner killed processes whose init had been killed
)

// The values of Status.Containment: how processes are kept in their tree.
const (
	ContainmentTree   = frame.ContainmentTree
	ContainmentCgroup = frame.ContainmentCgroup
)

// The values of Status.Isolation: what separates the sessions of one runner.
const (
	IsolationNone    = frame.IsolationNone
	IsolationSession = frame.IsolationSession
)

// Status is a snapshot of the runner.
type Status struct {
	Up          bool
	Restarts    int    // runners after the first
	Containment string // ContainmentCgroup or ContainmentTree; "" before the first runner
	Escaped     int    // processes killed after their init was killed, in total
	PID         int    // of the runner, in its own PID namespace; 0 when down
	UID         int    // user of the last runner and of commands, unless a command became another

	Isolation    string // IsolationSession or IsolationNone; "" before the first runner
	IsolationABI int    // version of Landlock of the runner's kernel; 0: none
	IsolationWhy string // why Isolation is IsolationNone; "" if the runner was told so

	// CannotStart says why no command can be started now; "": commands can be.
	CannotStart   string
	StartFailures int // inits that could not be started, in total
}

// defaultWarmInits is enough for a burst of commands from a few sessions. An idle init takes 0.6
// MB.
const defaultWarmInits = 8

// startTimeout is how long a command waits for a runner. It is longer than the restart of an
// embedded runner or of a container takes.
const startTimeout = 15 * time.Second

// Runner is trouped's handle on the runner process and its inits.
type Runner struct {
	cfg  Config
	log  *slog.Logger
	stop chan struct{}  // closed by Close
	wg   sync.WaitGroup // every goroutine of this Runner and its trees

	forceKillAfter time.Duration // shorter in tests
	ledger         ledger

	mu       sync.Mutex
	closed   bool
	conn     *runnerConn // nil while there is no runner
	status   Status
	trees    map[*Tree]struct{} // registered and not dead
	owners   map[string]*owner
	queue    []*Tree // waiting for an init, oldest first
	closeOne sync.Once
}

// owner counts the registered trees of one owner.
type owner struct {
	trees int
	done  chan struct{}
}

// Open starts the runner and waits for its hello (embedded mode), or listens for a runner and
// returns (socket mode).
//
// In embedded mode it makes this process a child subreaper, so that it can find and kill what
// outlives a killed runner. It then takes every child of this process that is in another session
// for such a process. In both modes it makes this process non-dumpable, which keeps commands of the
// same user from tracing it.
func Open(cfg Config) (*Runner, error) {
	if (cfg.Binary == "") == (cfg.Socket == "") {
		return nil, errors.New("proc: set exactly one of Binary and Socket")
	}
	if cfg.WarmInits < 0 {
		return nil, fmt.Errorf("proc: WarmInits must not be negative, got %d", cfg.WarmInits)
	}
	if cfg.WarmInits == 0 {
		cfg.WarmInits = defaultWarmInits
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(RunnerEvent) {}
	}
	r := &Runner{
		cfg:    cfg,
		log:    cfg.Logger,
		stop:   make(chan struct{}),
		trees:  make(map[*Tree]struct{}),
		owners: make(map[string]*owner),

		forceKillAfter: forceKillAfter,
		ledger:         ledger{limits: cfg.Session, owners: make(map[string]*holdings), disks: make(map[string]*disk)},
	}
	open := r.openEmbedded
	if cfg.Socket != "" {
		open = r.openSocket
	}
	if err := open(); err != nil {
		return nil, err
	}
	return r, nil
}

// Status returns a snapshot.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.CannotStart = r.cannotStart()
	return s
}

// NewWorkspaceName returns a name for Spec.Workspace. It cannot be guessed: that is what hides the
// directories' metadata from other sessions. It is short: programs put unix sockets below it, whose
// paths have at most 107 bytes (unix(7)).
func NewWorkspaceName() string { return strings.ToLower(rand.Text()) }

// RemoveWorkspace removes the workspace of a session that has ended, in the background. No tree of
// the session may be registered. A workspace that does not exist is no error. Without a runner there
// is nothing to do: the runner removes all its workspaces when it ends, or the next one does.
func (r *Runner) RemoveWorkspace(name string) {
	if !frame.WorkspaceName(name) {
		return
	}
	r.ledger.forget(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	rc := r.conn
	if rc == nil {
		return
	}
	for _, c := range rc.idle {
		if c.workspace == name {
			c.workspace, c.domain = "", 0 // the next session's
		}
	}
	for _, c := range rc.clones {
		if c.workspace == name {
			c.idleTimer.Reset(0)
		}
	}
	// On an error the runner is lost, and serveRunner notices.
	_ = rc.conn.send(frame.New(frame.KindForget).Str(name).Done())
}

// NewTree registers a tree before any of its processes run. From then on owner is not done until
// the tree is dead. On a closed Runner the tree is dead from the start.
func (r *Runner) NewTree(owner, id string) *Tree {
	t := &Tree{r: r, owner: owner, id: id, dead: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		t.state = stateDead
		close(t.dead)
		return t
	}
	r.trees[t] = struct{}{}
	r.ownerOf(owner).trees++
	return t
}

// ownerOf must be called with mu held.
func (r *Runner) ownerOf(name string) *owner {
	o := r.owners[name]
	if o == nil {
		o = &owner{done: make(chan struct{})}
		r.owners[name] = o
	}
	return o
}

// OwnerDone returns a channel that is closed once owner has no registered tree.
func (r *Runner) OwnerDone(name string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.owners[name]; o != nil {
		return o.done
	}
	done := make(chan struct{})
	close(done)
	return done
}

// unregister removes a dead tree.
func (r *Runner) unregister(t *Tree) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.trees[t]; !ok {
		return
	}
	delete(r.trees, t)
	close(t.dead)
	o := r.owners[t.owner]
	if o.trees--; o.trees == 0 {
		delete(r.owners, t.owner)
		close(o.done)
	}
}

// Close kills every tree, waits until all are dead and stops the runner. When it returns, every
// event has been delivered.
func (r *Runner) Close() error {
	r.closeOne.Do(func() {
		r.mu.Lock()
		r.closed = true
		trees := make([]*Tree, 0, len(r.trees))
		for t := range r.trees {
			trees = append(trees, t)
		}
		r.mu.Unlock()
		for _, t := range trees {
			t.Kill()
		}
		for _, t := range trees {
			<-t.dead
		}
		close(r.stop)
		r.mu.Lock()
		rc := r.conn
		r.mu.Unlock()
		if rc != nil {
			rc.conn.close()
		}
	})
	r.wg.Wait()
	return nil
}

func (r *Runner) closing() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}
