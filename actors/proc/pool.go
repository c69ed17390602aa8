//go:build linux

package proc

import (
	"errors"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// runnerConn is the connection to one runner process, with that runner's inits. Runner.mu guards
// everything but the first three.
type runnerConn struct {
	conn              *frameConn
	in                *frame.Receiver
	hello             hello
	inits             map[uint64]*initConn
	idle              []*initConn
	pending           int    // inits that were asked for and are not idle yet
	oomKillsExplained uint64 // of the processes that the kernel has killed for memory, see oom.go
}

// initConn is trouped's connection to one init.
type initConn struct {
	id     uint64
	pid    int
	runner *runnerConn
	conn   *frameConn
	in     *frame.Receiver
	swept  chan struct{} // closed when the runner reports that nothing of it lives
	used   int           // commands it has run

	runnerLost bool // the runner died before that report, and nothing lives; set before swept is closed
}

// maxUses is how many commands an init runs before it retires, so that whatever may build up in an
// init does not last.
const maxUses = 256

// takeIdle returns an idle init, or nil, and asks the runner for more if few are left. mu is held.
func (r *Runner) takeIdle() *initConn {
	rc := r.conn
	if rc == nil {
		return nil
	}
	var c *initConn
	if n := len(rc.idle); n > 0 {
		// The most recently used one: its pages are in the cache.
		c = rc.idle[n-1]
		rc.idle = rc.idle[:n-1]
	}
	r.refill(rc)
	return c
}

// refill keeps half of WarmInits idle, and one init for each tree in the queue. Half, because an
// init comes back when its command is dead, and starting one that is not needed takes CPU time from
// the command that was just started. mu is held.
func (r *Runner) refill(rc *runnerConn) {
	floor := max(1, r.cfg.WarmInits/2)
	if missing := max(floor-len(rc.idle), len(r.queue)) - rc.pending; missing > 0 {
		rc.pending += missing
		// On an error the runner is lost, and serveRunner notices.
		_ = rc.conn.send(frame.New(frame.KindWant).Uint(uint64(missing)).Done())
	}
}

// dispatch starts a tree on an idle init, or queues it.
func (r *Runner) dispatch(t *Tree) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.wg.Go(func() { t.fail(ErrClosed) })
		return
	}
	c := r.takeIdle()
	if c == nil {
		r.queue = append(r.queue, t)
		t.waiting = time.AfterFunc(startTimeout, func() { r.failQueued(t, ErrNoRunner) })
		if r.conn != nil {
			r.refill(r.conn)
		}
	}
	r.mu.Unlock()
	switch {
	case c != nil:
		t.attach(c)
	case t.isKilled(): // between Start and here, when the tree was not in the queue yet
		r.failQueued(t, ErrKilled)
	}
}

// dequeue removes a tree from the queue and reports whether it was there.
func (r *Runner) dequeue(t *Tree) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.queue, t)
	if i < 0 {
		return false
	}
	r.queue = slices.Delete(r.queue, i, i+1)
	t.waiting.Stop()
	return true
}

// failQueued fails a tree if it is still in the queue.
func (r *Runner) failQueued(t *Tree, err error) {
	if r.dequeue(t) {
		r.wg.Go(func() { t.fail(err) })
	}
}

// giveBack gives an init to the next tree in the queue, keeps it idle, or retires it.
func (r *Runner) giveBack(c *initConn) {
	r.mu.Lock()
	rc := c.runner
	if r.conn != rc || rc.inits[c.id] != c {
		r.mu.Unlock()
		c.conn.close()
		return
	}
	if len(r.queue) > 0 && !r.closed && c.used < maxUses {
		t := r.queue[0]
		r.queue = slices.Delete(r.queue, 0, 1)
		t.waiting.Stop()
		r.mu.Unlock()
		t.attach(c)
		return
	}
	if r.closed || len(rc.idle) >= r.cfg.WarmInits || c.used >= maxUses {
		r.refill(rc)
		r.mu.Unlock()
		c.conn.close() // it exits
		return
	}
	rc.idle = append(rc.idle, c)
	r.mu.Unlock()
}

// serveRunner handles the runner's frames until its connection closes.
func (r *Runner) serveRunner(rc *runnerConn) error {
	for {
		k, body, err := rc.in.Next()
		if err != nil {
			return err
		}
		d := frame.NewDecoder(body)
		switch k {
		case frame.KindInit:
			id, pid := d.Uint(), int(d.Uint())
			fds, err := rc.in.Take(2)
			if err != nil {
				return err
			}
			r.initArrived(rc, id, pid, fds[0], fds[1])
		case frame.KindInitFailed:
			r.initFailed(rc, d.Str())
		case frame.KindOOMKills:
			r.explainOOMKills(rc, d.Uint())
		case frame.KindSwept:
			r.swept(rc, d.Uint(), int(d.Uint()))
		}
	}
}

// initArrived registers a new init, and waits in a goroutine until it is ready.
func (r *Runner) initArrived(rc *runnerConn, id uint64, pid, events, requests int) {
	c, err := newFrameConn(events, requests, "init")
	if err != nil {
		r.initFailed(rc, err.Error())
		return
	}
	ic := &initConn{
		id: id, pid: pid, runner: rc, conn: c, in: frame.NewReceiver(c.recv), swept: make(chan struct{}),
	}
	r.mu.Lock()
	rc.inits[id] = ic
	r.mu.Unlock()
	r.wg.Go(func() {
		k, _, err := ic.in.Next()
		if err != nil || k != frame.KindReady {
			c.close() // the runner will report it as swept
			r.initFailed(rc, "an init died before it was ready")
			return
		}
		r.mu.Lock()
		rc.pending--
		r.mu.Unlock()
		r.giveBack(ic)
	})
}

// initFailed handles a failure of the runner to start an init, most likely for lack of processes or
// memory. It fails the command that has waited longest, and asks for another init for the others.
func (r *Runner) initFailed(rc *runnerConn, why string) {
	r.log.Warn("the runner cannot start an init", "err", why)
	r.mu.Lock()
	rc.pending--
	var t *Tree
	if len(r.queue) > 0 && len(rc.idle)+rc.pending == 0 {
		t = r.queue[0]
	}
	r.mu.Unlock()
	if t == nil {
		return
	}
	r.failQueued(t, errors.New(why))
	r.mu.Lock()
	if len(r.queue) > 0 {
		r.refill(rc)
	}
	r.mu.Unlock()
}

// msgForceKill is logged when an init was killed because it did not kill its tree.
const msgForceKill = "an init did not kill its tree in time; the runner kills it"

// forceKillInit is the backstop: it has the runner kill an init that does not answer Kill in time.
func (r *Runner) forceKillInit(t *Tree, c *initConn) {
	r.log.Warn(msgForceKill, "session", t.owner, "execution", t.id, "pid", c.pid)
	// On an error the runner is lost, and its inits with it.
	_ = c.runner.conn.send(frame.New(frame.KindForceKill).Uint(c.id).Done())
}

// swept handles the runner's report that an init and everything below it is dead.
func (r *Runner) swept(rc *runnerConn, id uint64, escaped int) {
	r.mu.Lock()
	c := rc.inits[id]
	delete(rc.inits, id)
	idle := -1
	if c != nil {
		idle = slices.Index(rc.idle, c)
	}
	if idle >= 0 {
		rc.idle = slices.Delete(rc.idle, idle, idle+1)
		r.refill(rc)
	}
	r.status.Escaped += escaped
	r.mu.Unlock()
	if c != nil {
		close(c.swept)
		if idle >= 0 {
			c.conn.close()
		}
	}
	if escaped > 0 {
		r.log.Warn("an init was killed; the runner killed the processes that it left", "processes", escaped)
		r.cfg.OnEvent(RunnerEvent{Kind: RunnerEscaped, Count: escaped})
	}
}

// adopt makes rc the connection in use.
func (r *Runner) adopt(rc *runnerConn) {
	h := &rc.hello
	r.mu.Lock()
	restarted := r.status.Containment != ""
	if restarted {
		r.status.Restarts++
	}
	r.status.Up, r.status.PID, r.status.Containment = true, h.PID, h.Containment
	r.status.Isolation, r.status.IsolationABI, r.status.IsolationWhy = h.Isolation, h.IsolationABI, h.IsolationWhy
	r.conn = rc
	r.refill(rc)
	// All of the wanted inits, while there is nothing else to do.
	if missing := r.cfg.WarmInits - rc.pending; missing > 0 {
		rc.pending += missing
		_ = rc.conn.send(frame.New(frame.KindWant).Uint(uint64(missing)).Done())
	}
	r.mu.Unlock()
	r.log.Info("runner is up", "pid", h.PID, "version", h.Version, "containment", h.Containment,
		"isolation", h.Isolation, "landlock_abi", h.IsolationABI)
	kind := RunnerUp
	if restarted {
		kind = RunnerRestarted
	}
	r.cfg.OnEvent(RunnerEvent{Kind: kind})
}

// disconnect takes rc out of use. The trees that run on it wait for endTrees.
func (r *Runner) disconnect(rc *runnerConn) {
	r.mu.Lock()
	r.conn = nil
	r.status.Up, r.status.PID = false, 0
	idle := rc.idle
	rc.idle = nil
	r.mu.Unlock()
	rc.conn.close()
	for _, c := range idle {
		c.conn.close()
	}
}

// endTrees reports the trees of a lost runner as dead.
func (r *Runner) endTrees(rc *runnerConn) {
	r.mu.Lock()
	inits := rc.inits
	rc.inits = nil
	r.mu.Unlock()
	for _, c := range inits {
		c.runnerLost = true
		close(c.swept)
	}
}
