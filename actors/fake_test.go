package actors

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// fakeRunner is a Runner whose trees do what a test tells them. Its pipes are
// net.Pipes, so that time in a synctest bubble passes while readers wait.
type fakeRunner struct {
	mu        sync.Mutex
	trees     map[string]*fakeTree                // by execution id
	auto      func(*fakeTree)                     // runs for each tree that was started
	stdin     func(io.WriteCloser) io.WriteCloser // stands before the stdin of trees; nil: nothing does
	down      atomic.Bool                         // it cannot start anything
	isolation string

	stdout func(net.Conn) Pipe // stands before the stdout of trees; nil: a fakePipe does
}

func newFakeRunner(auto func(*fakeTree)) *fakeRunner {
	return &fakeRunner{trees: map[string]*fakeTree{}, auto: auto}
}

func (r *fakeRunner) NewTree(owner, id string) Tree {
	t := &fakeTree{runner: r, owner: owner, id: id, dead: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trees[id] = t
	return t
}

func (r *fakeRunner) tree(id string) *fakeTree {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trees[id]
}

func (r *fakeRunner) OwnerDone(owner string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := make(chan struct{})
	var alive []chan struct{}
	for _, t := range r.trees {
		if t.owner == owner && !closed(t.dead) {
			alive = append(alive, t.dead)
		}
	}
	if len(alive) == 0 {
		close(done)
		return done
	}
	go func() {
		for _, d := range alive {
			<-d
		}
		close(done)
	}()
	return done
}

func (r *fakeRunner) RemoveWorkspace(string) {}

func (r *fakeRunner) CannotStart() string {
	if r.down.Load() {
		return "no runner is connected"
	}
	return ""
}

func (r *fakeRunner) Containment() string { return "tree" }

func (r *fakeRunner) Isolation() (level string, abi int) { return r.isolation, 7 }

// alive counts the trees that were started and are not dead.
func (r *fakeRunner) alive() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, t := range r.trees {
		if t.started && !closed(t.dead) {
			n++
		}
	}
	return n
}

type fakePipe struct{ net.Conn }

func (fakePipe) Pending() (int, error)       { return 0, nil }
func (fakePipe) ReadNow([]byte) (int, error) { return 0, proc.ErrPipeEmpty }
func (fakePipe) Grow(int)                    {}
func (fakePipe) Resize(proc.Size) error      { return nil }

// fakeTree records the calls and lets a test play the processes.
type fakeTree struct {
	runner *fakeRunner
	owner  string
	id     string

	mu             sync.Mutex
	started        bool
	spec           proc.Spec
	events         func(proc.Event)
	calls          []string
	stdout, stderr net.Conn
	dead           chan struct{}
	stubborn       bool     // Kill does not kill: the test says when
	overtaken      bool     // Kill returns when all others know of it
	manual         bool     // Pause and Resume are only noted: the test says when
	held           bool     // the pipes outlive the tree
	typed          net.Conn // the command's end of stdin, if it has one
}

func (t *fakeTree) Start(spec proc.Spec, events func(proc.Event)) (*Stdio, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if closed(t.dead) {
		return nil, proc.ErrKilled
	}
	t.spec, t.events, t.started = spec, events, true
	out, outW := net.Pipe()
	errR, errW := net.Pipe()
	t.stdout, t.stderr = outW, errW
	if t.runner.auto != nil {
		go t.runner.auto(t)
	}
	stdio := &Stdio{Stdout: fakePipe{out}, Stderr: fakePipe{errR}}
	if t.runner.stdout != nil {
		stdio.Stdout = t.runner.stdout(out)
	}
	if spec.Terminal != nil {
		stdio.Stderr = nil
	}
	if spec.Stdin || spec.Terminal != nil {
		r, w := net.Pipe()
		t.typed, stdio.Stdin = r, w
		if t.runner.stdin != nil {
			stdio.Stdin = t.runner.stdin(w)
		}
	}
	return stdio, nil
}

func (t *fakeTree) called(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = append(t.calls, what)
}

func (t *fakeTree) saw(what string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.calls {
		if c == what {
			return true
		}
	}
	return false
}

func (t *fakeTree) Signal(s syscall.Signal) { t.called(s.String()) }
func (t *fakeTree) Terminate()              { t.called("terminate") }
func (t *fakeTree) Pause()                  { t.stop("pause", proc.Paused{}) }
func (t *fakeTree) Resume()                 { t.stop("resume", proc.Resumed{}) }
func (t *fakeTree) Memory() int64           { return 0 }
func (t *fakeTree) Sweep()                  { t.called("sweep"); t.die(proc.Dead{}) }
func (t *fakeTree) Dead() <-chan struct{}   { return t.dead }

func (t *fakeTree) stop(what string, done proc.Event) {
	t.called(what)
	if !t.manual {
		t.emit(done)
	}
}

func (t *fakeTree) Kill() {
	t.called("kill")
	if !t.stubborn {
		t.die(proc.Dead{})
	}
	if t.overtaken {
		time.Sleep(time.Millisecond) // in a bubble
	}
}

func (t *fakeTree) emit(ev proc.Event) {
	t.mu.Lock()
	events := t.events
	t.mu.Unlock()
	if events != nil && !closed(t.dead) {
		events(ev)
	}
}

func (t *fakeTree) run() { t.emit(proc.Started{PID: 4242}) }

func (t *fakeTree) print(s string) { _, _ = t.stdout.Write([]byte(s)) }

func (t *fakeTree) closePipes() {
	if t.stdout != nil && !t.held {
		_ = t.stdout.Close()
		_ = t.stderr.Close()
	}
}

// die ends the tree once: its pipes close and Dead is reported.
func (t *fakeTree) die(d proc.Dead) {
	t.mu.Lock()
	if closed(t.dead) {
		t.mu.Unlock()
		return
	}
	events := t.events
	close(t.dead)
	t.mu.Unlock()
	if events != nil {
		events(d)
	}
	t.closePipes()
}

func (t *fakeTree) exit(code int) {
	t.emit(proc.Exited{Code: code, NoSurvivors: true})
	t.die(proc.Dead{})
}

// testClient plays the gateway: it records what it is sent and reads what it follows.
type testClient struct {
	mu       sync.Mutex
	conn     *Connection
	events   []sent
	output   map[string]*bytes.Buffer
	replaced map[string]chan struct{} // closed when a later feed replaces the one that is pulled
	cause    wire.Cause
	ended    bool
	ready    chan struct{} // closed when conn is set
	pulls    sync.WaitGroup
	hungUp   bool // no pull begins any more; guarded by mu
	stop     chan struct{}
	stopOnce sync.Once
	mute     bool        // follows nothing
	silent   bool        // acknowledges nothing by itself, as a gateway does for a client with a window
	late     atomic.Bool // the socket has ended: what comes is dropped
}

type sent struct {
	id     wire.ID
	result any
	err    *wire.Error
	method string
	params any
}

func connect(e *Engine, req ConnectRequest) *testClient {
	if req.Subject == "" {
		req.Subject = "alice"
	}
	c := &testClient{
		output: map[string]*bytes.Buffer{}, replaced: map[string]chan struct{}{},
		ready: make(chan struct{}), stop: make(chan struct{}),
	}
	c.conn = e.Connect(req, c)
	close(c.ready)
	return c
}

func (c *testClient) record(s sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, s)
}

// Reply takes ids as the gateway does: only an empty one travels as null. A literal
// null is no id that it gave out, and what it answers would be lost.
func (c *testClient) Reply(id wire.ID, result any, err *wire.Error) {
	switch string(id) {
	case "":
		id = wire.NullID
	case "null":
		return
	}
	c.record(sent{id: id, result: result, err: err})
}

func (c *testClient) Notify(method string, params any) {
	c.record(sent{method: method, params: params})
}

func (c *testClient) Disconnect(cause wire.Cause) {
	c.mu.Lock()
	first := !c.ended
	c.ended = true
	if first {
		c.cause = cause
	}
	c.mu.Unlock()
	if first {
		go func() {
			<-c.ready
			c.hangUp(cause)
		}()
	}
}

// hangUp closes the socket from this side.
func (c *testClient) hangUp(cause wire.Cause) {
	c.stopOnce.Do(func() { close(c.stop) })
	c.mu.Lock()
	c.hungUp = true
	c.mu.Unlock()
	c.pulls.Wait()
	c.conn.Closed(cause, c.unread())
}

// unread is what the gateway would say was not delivered.
func (c *testClient) unread() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	open := map[string]int64{}
	for id, b := range c.output {
		open[id] = int64(b.Len())
	}
	for _, s := range c.events {
		if done, ok := s.params.(*wire.Completed); ok {
			delete(open, done.ExecutionID)
		}
	}
	return open
}

func (c *testClient) Follow(f Feed) bool {
	if c.late.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hungUp {
		return false
	}
	if c.output[f.ExecutionID] == nil {
		c.output[f.ExecutionID] = &bytes.Buffer{}
	}
	if old := c.replaced[f.ExecutionID]; old != nil {
		close(old)
	}
	replaced := make(chan struct{})
	c.replaced[f.ExecutionID] = replaced
	if !c.mute {
		c.pulls.Add(1)
		go c.pull(f, replaced)
	}
	return true
}

// ack says that the client has an execution's output up to an offset, with the end of it.
func (c *testClient) ack(id string, offset int64, completed bool) {
	c.conn.Request(nil, &wire.AckParams{ExecutionID: id, Offset: offset, Completed: completed})
}

func (c *testClient) pull(f Feed, replaced <-chan struct{}) {
	defer c.pulls.Done()
	claim := func(cur Cursor) {
		if <-c.ready; !c.silent && f.Window == 0 {
			c.ack(f.ExecutionID, cur.Offset(), true)
		}
	}
	more := make(chan struct{}, 1)
	cur, err := f.Open(func() {
		select {
		case more <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return
	}
	defer cur.Close()
	buf := make([]byte, 4096)
	for {
		piece, err := cur.Next(buf)
		switch {
		case errors.Is(err, transcript.ErrWait):
			select {
			case <-more:
			case <-replaced:
				return
			case <-c.stop:
				return
			}
		case errors.Is(err, io.EOF):
			claim(cur)
			return
		case err != nil:
			return
		case piece.Mark != nil:
			c.record(sent{params: piece.Mark})
			if is[*wire.Completed](piece.Mark) {
				claim(cur)
			}
		default:
			c.mu.Lock()
			c.output[f.ExecutionID].Write(piece.Data)
			c.mu.Unlock()
		}
	}
}

func (c *testClient) all() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]sent(nil), c.events...)
}

func (c *testClient) text(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.output[id] == nil {
		return ""
	}
	return c.output[id].String()
}

func (c *testClient) reply(id string) *sent {
	for _, s := range c.all() {
		if string(s.id) == id {
			return &s
		}
	}
	return nil
}

// params returns the first recorded params of type T.
func find[T any](c *testClient) *T {
	for _, s := range c.all() {
		if p, ok := s.params.(*T); ok {
			return p
		}
	}
	return nil
}

func count[T any](c *testClient) int {
	n := 0
	for _, s := range c.all() {
		if _, ok := s.params.(*T); ok {
			n++
		}
	}
	return n
}

func (c *testClient) hasEnded() (wire.Cause, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause, c.ended
}

func (c *testClient) execute(id string, p wire.ExecuteParams) {
	if p.Command == "" && p.Argv == nil {
		p.Command = "true"
	}
	c.conn.Request(wire.ID(id), &p)
}

func (c *testClient) control(id, typ, execution string) {
	c.conn.Request(wire.ID(id), &wire.ControlParams{Type: typ, ExecutionID: execution})
}

type harness struct {
	*Engine
	runner *fakeRunner
	store  *transcript.Store
}

func newHarness(t testing.TB, runner *fakeRunner, change func(*Config), probe func(string, any)) *harness {
	t.Helper()
	store, err := transcript.Open(transcript.Config{Dir: t.TempDir(), Budget: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Limits: DefaultLimits(), Runner: runner, Store: store, Pod: "pod-0"}
	if change != nil {
		change(&cfg)
	}
	e, err := newEngine(cfg, probe)
	if err != nil {
		t.Fatal(err)
	}
	return &harness{Engine: e, runner: runner, store: store}
}

// stop closes the engine as trouped does: connections first.
func (h *harness) stop(t testing.TB, clients ...*testClient) {
	t.Helper()
	for _, c := range clients {
		if _, ended := c.hasEnded(); !ended {
			c.Disconnect(wire.CauseDraining)
		}
	}
	h.Close()
	time.Sleep(2 * moment) // protoactor's dead-letter throttle
	if err := h.store.Close(); err != nil {
		t.Error(err)
	}
	if n := h.runner.alive(); n != 0 {
		t.Errorf("%d trees alive after Close", n)
	}
}

// runner that runs a command until it is told to end.
func running(t *fakeTree) { t.run() }

// moment is longer than anything the engine waits for on its way, in fake time.
const moment = time.Millisecond
