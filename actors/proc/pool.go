//go:build linux

package proc

import (
	"errors"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// runnerConn is the connection to one runner process, with that runner's inits. Runner.mu guards
// everything but the first four.
type runnerConn struct {
	conn              *frameConn
	in                *frame.Receiver
	hello             hello
	uid               int // of the runner
	inits             map[uint64]*initConn
	idle              []*initConn      // least recently used first; no clones
	clones            []*initConn      // idle ones, likewise
	cloning           map[uint64]*Tree // those that wait for a clone, by the request's number
	requests          uint64           // for clones, so far
	domains           uint64           // that inits were put into, so far
	pending           int              // inits that were asked for and are not idle yet
	starts            starts           // how that goes
	oomKillsExplained uint64           // of the processes that the kernel has killed for memory, see oom.go
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

	// Set when it gets a tree, so that a domain is that of the last one. Guarded by Runner.mu.
	workspace string      // of the session that it is bound to; "": none
	domain    uint64      // one that clones share; 0: none
	clone     bool        // bound for life
	busy      bool        // it has a tree
	doomed    bool        // its tree is being killed, or it is dead: do not clone it
	idleTimer *time.Timer // closes an idle clone

	runnerLost bool // the runner died before that report, and nothing lives; set before swept is closed
}

// maxUses is how many commands an init runs before it retires, so that whatever may build up in an
// init does not last.
const maxUses = 256

// take returns an idle init for the tree, or nil, and asks the runner for more if few are left. If
// it returns nil and cloned, a clone is under way for the tree. mu is held.
func (r *Runner) take(t *Tree) (c *initConn, cloned bool) {
	rc := r.conn
	if rc == nil {
		return nil, false
	}
	peer := rc.peer(t)
	c = rc.bound(t, peer)
	if c == nil && peer != nil && !t.apart {
		rc.askClone(peer, t)
		return nil, true
	}
	if c == nil {
		c = rc.generic()
	}
	if c != nil {
		rc.assign(c, t)
		r.refill(rc)
	}
	return c, false
}

// bound removes an idle init that is in the tree's domain, and returns it, or nil. Without a peer any
// domain of the session will do. mu is held.
func (rc *runnerConn) bound(t *Tree, peer *initConn) *initConn {
	if t.workspace == "" {
		return nil
	}
	for _, list := range []*[]*initConn{&rc.idle, &rc.clones} {
		for i, c := range slices.Backward(*list) {
			if c.workspace == t.workspace && (peer == nil || c.domain == peer.domain) {
				*list = slices.Delete(*list, i, i+1)
				return c
			}
		}
	}
	return nil
}

// generic removes an idle init for any session, and returns it, or nil. mu is held.
func (rc *runnerConn) generic() *initConn {
	if len(rc.idle) == 0 {
		return nil
	}
	// The most recently used one that no session may come back to: its pages are in the cache. Else
	// the one whose session has been away for longest.
	i := 0
	for j, c := range slices.Backward(rc.idle) {
		if c.workspace == "" {
			i = j
			break
		}
	}
	c := rc.idle[i]
	rc.idle = slices.Delete(rc.idle, i, i+1)
	return c
}

// assign binds an init to the session of a tree. mu is held.
func (rc *runnerConn) assign(c *initConn, t *Tree) {
	if c.idleTimer != nil {
		c.idleTimer.Stop()
		c.idleTimer = nil
	}
	c.busy = true
	if c.workspace != t.workspace {
		rc.domains++
		c.workspace, c.domain = t.workspace, rc.domains
	}
}

// doom keeps an init from being cloned, because its tree is being killed or it is dead.
func (r *Runner) doom(c *initConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.doomed = true
}

// refill keeps half of WarmInits idle, and one init for each tree in the queue. Half, because an
// init comes back when its command is dead, and starting one that is not needed takes CPU time from
// the command that was just started. mu is held.
func (r *Runner) refill(rc *runnerConn) {
	floor := max(1, r.cfg.WarmInits/2)
	r.want(rc, max(floor-len(rc.idle), len(r.queue))-rc.pending)
}

// want asks the runner for n more inits. mu is held.
func (r *Runner) want(rc *runnerConn, n int) {
	if n <= 0 {
		return
	}
	rc.starts.asked(rc.pending)
	rc.pending += n
	// On an error the runner is lost, and serveRunner notices.
	_ = rc.conn.send(frame.New(frame.KindWant).Uint(uint64(n)).Done())
}

// dispatch starts a tree on an idle init, or queues it.
func (r *Runner) dispatch(t *Tree) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.wg.Go(func() { t.fail(ErrClosed) })
		return
	}
	c, cloned := r.take(t)
	if c == nil {
		t.waiting = time.AfterFunc(startTimeout, func() { r.failQueued(t, ErrNoRunner) })
		if !cloned {
			r.queue = append(r.queue, t)
			if r.conn != nil {
				r.refill(r.conn)
			}
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

// dequeue removes a tree from the queue, or from those that wait for a clone, and reports whether it
// was there.
func (r *Runner) dequeue(t *Tree) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.queue, t); i >= 0 {
		r.queue = slices.Delete(r.queue, i, i+1)
		t.waiting.Stop()
		return true
	}
	if r.conn != nil {
		for request, waits := range r.conn.cloning {
			if waits == t {
				delete(r.conn.cloning, request)
				t.waiting.Stop()
				return true
			}
		}
	}
	return false
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
	c.busy, c.doomed = false, false
	if t := r.next(rc, c); t != nil {
		r.mu.Unlock()
		t.attach(c)
		return
	}
	drop := c
	switch {
	case r.closed || c.used >= maxUses:
	case c.clone:
		drop = r.keepClone(rc, c)
	case len(rc.idle) < r.cfg.WarmInits:
		rc.idle = append(rc.idle, c)
		drop = nil
	}
	if drop == c {
		r.refill(rc)
	}
	r.mu.Unlock()
	if drop != nil {
		drop.conn.close() // it exits
	}
}

// next removes the tree from the queue that c is for, and returns it, or nil. mu is held.
func (r *Runner) next(rc *runnerConn, c *initConn) *Tree {
	if r.closed || c.used >= maxUses || c.clone {
		return nil
	}
	for len(r.queue) > 0 {
		t := r.queue[0]
		r.queue = slices.Delete(r.queue, 0, 1)
		// An earlier one of its session has got an init meanwhile.
		if peer := rc.peer(t); peer != nil && !t.apart && c.domain != peer.domain {
			rc.askClone(peer, t)
			continue
		}
		t.waiting.Stop()
		rc.assign(c, t)
		return t
	}
	return nil
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
		case frame.KindCloned:
			request, id, pid := d.Uint(), d.Uint(), int(d.Uint())
			fds, err := rc.in.Take(2)
			if err != nil {
				return err
			}
			r.cloneArrived(rc, request, id, pid, fds)
		case frame.KindCloneFailed:
			r.cloneFailed(rc, d.Uint(), d.Str())
		case frame.KindMeasured:
			r.ledger.measured(d.Str(), d.Bool(), time.Duration(d.Int()))
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
		rc.starts.succeeded()
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
	r.startFailed(rc, why)
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
	} else if i := slices.Index(rc.clones, c); c != nil && i >= 0 {
		idle = i
		rc.clones = slices.Delete(rc.clones, i, i+1)
		c.idleTimer.Stop()
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
	r.status.Up, r.status.PID, r.status.UID, r.status.Containment = true, h.PID, rc.uid, h.Containment
	r.status.Isolation, r.status.IsolationABI, r.status.IsolationWhy = h.Isolation, h.IsolationABI, h.IsolationWhy
	r.conn = rc
	r.refill(rc)
	// All of the wanted inits, while there is nothing else to do.
	r.want(rc, r.cfg.WarmInits-rc.pending)
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
	r.ledger.forget("")
	rc.starts.stop()
	r.status.Up, r.status.PID = false, 0
	idle := slices.Concat(rc.idle, rc.clones)
	for _, c := range rc.clones {
		c.idleTimer.Stop()
	}
	rc.idle, rc.clones = nil, nil
	for _, t := range rc.cloning { // for the next runner
		r.queue = append(r.queue, t)
	}
	clear(rc.cloning)
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
