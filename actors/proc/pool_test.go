//go:build linux

package proc

import (
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// peer is the other side of a frameConn, played by a test.
type peer struct {
	t  *testing.T
	fd int
	in *frame.Receiver
}

func newPeer(t *testing.T) (*frameConn, *peer) {
	t.Helper()
	ours, theirs, err := frame.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newFrameConn(ours, -1, "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close(); unix.Close(theirs) })
	// A frame that does not come fails the test instead of blocking it.
	timeout := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(theirs, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return c, &peer{t, theirs, frame.NewReceiver(frame.RecvBlocking(theirs))}
}

func (p *peer) send(frames ...[]byte) {
	p.t.Helper()
	if err := frame.SendBlocking(p.fd, slices.Concat(frames...)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) expect(want frame.Kind) {
	p.t.Helper()
	if got, _, err := p.in.Next(); err != nil || got != want {
		p.t.Fatalf("kind %v, %v, want %v", got, err, want)
	}
}

// closed reports whether the other side has closed the connection and sent nothing more.
func (p *peer) closed() bool {
	_, _, err := p.in.Next()
	return err == io.EOF
}

// fakePool is a Runner whose runner and one init are played by the test.
func fakePool(t *testing.T) (r *Runner, runner, init *peer, c *initConn) {
	t.Helper()
	r = &Runner{
		cfg: Config{WarmInits: 1, OnEvent: func(RunnerEvent) {}}, log: slog.New(slog.DiscardHandler),
		stop: make(chan struct{}), trees: make(map[*Tree]struct{}), owners: make(map[string]*owner),
		forceKillAfter: forceKillAfter,
	}
	runnerConnection, runner := newPeer(t)
	rc := &runnerConn{conn: runnerConnection, inits: make(map[uint64]*initConn)}
	r.conn = rc
	conn, init := newPeer(t)
	c = &initConn{id: 1, runner: rc, conn: conn, in: frame.NewReceiver(conn.recv), swept: make(chan struct{})}
	rc.inits[1], rc.idle = c, []*initConn{c}
	return r, runner, init, c
}

// start starts a command on the init of a fakePool.
func start(t *testing.T, r *Runner, init *peer) *Tree {
	t.Helper()
	tree := r.NewTree("owner", "x")
	stdio, err := tree.Start(Spec{Argv: []string{"true"}}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stdio.close)
	init.expect(frame.KindStart)
	return tree
}

func idle(r *Runner) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conn.idle)
}

// An init whose cgroup was killed, or that has run maxUses commands, gets no other command: it
// would kill that at birth, or keep what has built up in it.
func TestInitRetires(t *testing.T) {
	for name, tc := range map[string]struct {
		used    int // before this command
		dead    frame.Dead
		retires bool
	}{
		"first command":       {0, frame.Dead{}, false},
		"last but one":        {maxUses - 2, frame.Dead{}, false},
		"last command":        {maxUses - 1, frame.Dead{}, true},
		"its cgroup is spent": {0, frame.Dead{Retired: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, init, c := fakePool(t)
			c.used = tc.used
			tree := start(t, r, init)
			started := frame.New(frame.KindStarted).Uint(1).Done()
			init.send(started, (&frame.Exited{Code: 1, NoSurvivors: true}).Encode(), tc.dead.Encode())
			await(t, tree.Dead(), "death")
			if n := idle(r); (n == 0) != tc.retires {
				t.Errorf("%d idle inits", n)
			}
			if tc.retires && !init.closed() {
				t.Error("its connection is open, so it does not exit")
			}
		})
	}
}

// The runner kills an init that does not answer Kill in time. The timer ends with the tree.
func TestBackstop(t *testing.T) {
	r, runner, init, _ := fakePool(t)
	r.forceKillAfter = 50 * time.Millisecond
	tree := start(t, r, init)
	runner.expect(frame.KindWant) // for the init that was taken
	tree.Kill()
	init.expect(frame.KindKill)
	runner.expect(frame.KindForceKill)
	init.send((&frame.Dead{}).Encode())
	await(t, tree.Dead(), "death")

	r.forceKillAfter = time.Hour
	tree = start(t, r, init)
	tree.Kill()
	init.expect(frame.KindKill)
	init.send((&frame.Dead{}).Encode())
	await(t, tree.Dead(), "death")
	if tree.force.Stop() {
		t.Error("the backstop is armed although the tree is dead")
	}
}
