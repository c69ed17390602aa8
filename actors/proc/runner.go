//go:build linux

package proc

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Config says where the runner is.
type Config struct {
	Binary    string            // embedded mode: path of troupe-runner, started as a child
	Socket    string            // socket mode: path to listen on for a runner that dials in. Exactly one of the two is set
	WarmInits int               // inits kept waiting for a command; 0: 8
	Cgroup    string            // embedded mode: "auto" (also ""), "off" or a cgroup directory to work in
	Logger    *slog.Logger      // nil: slog.Default()
	OnEvent   func(RunnerEvent) // nil: nobody is told. Must not block
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
	RunnerUp        RunnerEventKind = "up"        // the first runner is there
	RunnerLost      RunnerEventKind = "lost"      // it died or its connection closed, and every tree of it is dead or dying
	RunnerRestarted RunnerEventKind = "restarted" // another runner took its place
	RunnerEscaped   RunnerEventKind = "escaped"   // processes whose init was killed were killed by the runner
)

// What holds a tree together.
const (
	ContainmentTree   = frame.ContainmentTree
	ContainmentCgroup = frame.ContainmentCgroup
)

// Status is a snapshot of the runner.
type Status struct {
	Up          bool
	Restarts    int    // runners after the first
	Containment string // ContainmentCgroup or ContainmentTree; "" before the first runner
	Escaped     int    // processes killed after their init was killed, in total
	PID         int    // of the runner, in its own PID namespace; 0 when down
}

// defaultWarmInits is enough for a burst of commands from a few sessions; an
// idle init holds 0.6 MB.
const defaultWarmInits = 8

// startWait is how long a command waits for a runner: longer than the restart
// of an embedded runner or of a container takes.
const startWait = 15 * time.Second

// Runner is trouped's handle on the runner process and its inits.
type Runner struct {
	cfg  Config
	log  *slog.Logger
	stop chan struct{}  // closed by Close
	wg   sync.WaitGroup // every goroutine of this Runner and its trees

	mu       sync.Mutex
	closed   bool
	link     *link // nil while there is no runner
	status   Status
	trees    map[*Tree]struct{} // registered and not dead
	owners   map[string]*owner
	queue    []*Tree // waiting for an init, oldest first
	closeOne sync.Once
}

// owner counts the trees of one owner that are not dead.
type owner struct {
	trees int
	done  chan struct{}
}

// Open starts the runner and waits for its hello (embedded mode), or listens
// for one and returns (socket mode).
//
// In embedded mode it makes this process a child subreaper, so that what
// outlives a killed runner can be found and killed: children of this process
// that are in another session than its own are taken for such. In both modes
// it makes this process non-dumpable, which keeps commands of the same user
// from tracing it.
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
	return r.status
}

// NewTree registers a tree before anything of it runs: from here on owner is
// not done until the tree is dead. On a closed Runner the tree is dead already.
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

// ownerOf is called under mu.
func (r *Runner) ownerOf(name string) *owner {
	o := r.owners[name]
	if o == nil {
		o = &owner{done: make(chan struct{})}
		r.owners[name] = o
	}
	return o
}

// OwnerDone is closed once no tree of owner is registered and not dead.
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

// forget unregisters a dead tree.
func (r *Runner) forget(t *Tree) {
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

// Close kills every tree, waits until all are dead and stops the runner. Every
// event has been delivered when it returns.
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
		l := r.link
		r.mu.Unlock()
		if l != nil {
			l.conn.close()
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
