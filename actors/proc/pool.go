//go:build linux

package proc

import (
	"errors"
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// link is the connection to one runner process, and that runner's inits.
// Everything but conn and lost is under Runner.mu.
type link struct {
	conn    *conn
	lost    chan struct{} // closed when the runner is gone and what it left is dead
	inits   map[uint64]*initConn
	idle    []*initConn
	pending int    // asked for and not idle yet
	kills   uint64 // processes killed for memory that are accounted for, see oom.go
}

// initConn is trouped's end of one init.
type initConn struct {
	id   uint64
	pid  int
	link *link
	conn *conn
	in   *frame.Receiver
	gone chan struct{} // closed by the runner's word that nothing of it lives
	used int           // commands it has run

	runnerLost bool // that word will not come, but nothing lives either: set before gone is closed
}

// maxUses retires an init after so many commands, so that nothing that might
// build up in one lasts.
const maxUses = 256

// take hands out an idle init, or nil, and asks the runner for more when few
// are left. It is called under mu.
func (r *Runner) take() *initConn {
	l := r.link
	if l == nil {
		return nil
	}
	var c *initConn
	if n := len(l.idle); n > 0 {
		// The one that was used last: its pages are in the cache.
		c = l.idle[n-1]
		l.idle = l.idle[:n-1]
	}
	r.refill(l)
	return c
}

// refill keeps half of the wanted inits, and one for each tree in the queue.
// Not all of them: an init comes back when its command is done, and starting
// one that will not be needed takes time from the command that was just
// started. It is called under mu.
func (r *Runner) refill(l *link) {
	floor := max(1, r.cfg.WarmInits/2)
	if missing := max(floor-len(l.idle), len(r.queue)) - l.pending; missing > 0 {
		l.pending += missing
		_ = l.conn.send(frame.New(frame.KindWant).Uint(uint64(missing)).Done()) // an error: the runner is lost, and its reader knows
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
	c := r.take()
	if c == nil {
		r.queue = append(r.queue, t)
		t.waiting = time.AfterFunc(startWait, func() { r.giveUp(t, ErrNoRunner) })
		if r.link != nil {
			r.refill(r.link)
		}
	}
	r.mu.Unlock()
	switch {
	case c != nil:
		t.attach(c)
	case t.isKilled(): // between Start and here, when it was not in the queue yet
		r.giveUp(t, ErrKilled)
	}
}

// unqueue takes a tree out of the queue and reports whether it was in it.
func (r *Runner) unqueue(t *Tree) bool {
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

// giveUp fails a tree that is still in the queue.
func (r *Runner) giveUp(t *Tree, err error) {
	if r.unqueue(t) {
		r.wg.Go(func() { t.fail(err) })
	}
}

// put gives an init to the next tree in the queue, or keeps it, or retires it.
func (r *Runner) put(c *initConn) {
	r.mu.Lock()
	l := c.link
	if r.link != l || l.inits[c.id] != c {
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
	if r.closed || len(l.idle) >= r.cfg.WarmInits || c.used >= maxUses {
		r.refill(l)
		r.mu.Unlock()
		c.conn.close() // it exits
		return
	}
	l.idle = append(l.idle, c)
	r.mu.Unlock()
}

// serveLink reads what the runner says until it is gone.
func (r *Runner) serveLink(l *link, in *frame.Receiver) error {
	for {
		k, body, err := in.Next()
		if err != nil {
			return err
		}
		d := frame.NewDecoder(body)
		switch k {
		case frame.KindInit:
			id, pid := d.Uint(), int(d.Uint())
			fds, err := in.Take(2)
			if err != nil {
				return err
			}
			r.arrived(l, id, pid, fds[0], fds[1])
		case frame.KindInitFailed:
			r.initFailed(l, d.Str())
		case frame.KindKills:
			r.writeOff(l, d.Uint())
		case frame.KindSwept:
			r.swept(l, d.Uint(), int(d.Uint()))
		}
	}
}

// arrived takes in a new init and waits, aside, until it is ready.
func (r *Runner) arrived(l *link, id uint64, pid, events, requests int) {
	c, err := newConn(events, requests, "init")
	if err != nil {
		r.initFailed(l, err.Error())
		return
	}
	ic := &initConn{id: id, pid: pid, link: l, conn: c, in: frame.NewReceiver(c.recv), gone: make(chan struct{})}
	r.mu.Lock()
	l.inits[id] = ic
	r.mu.Unlock()
	r.wg.Go(func() {
		k, _, err := ic.in.Next()
		if err != nil || k != frame.KindReady {
			c.close() // the runner will say that it is swept
			r.initFailed(l, "an init died before it was ready")
			return
		}
		r.mu.Lock()
		l.pending--
		r.mu.Unlock()
		r.put(ic)
	})
}

// initFailed: the runner could not start an init, most likely for want of
// processes or memory. The command that waits longest is told; the others get
// their own try.
func (r *Runner) initFailed(l *link, why string) {
	r.log.Warn("the runner cannot start an init", "err", why)
	r.mu.Lock()
	l.pending--
	var t *Tree
	if len(r.queue) > 0 && len(l.idle)+l.pending == 0 {
		t = r.queue[0]
	}
	r.mu.Unlock()
	if t == nil {
		return
	}
	r.giveUp(t, errors.New(why))
	r.mu.Lock()
	if len(r.queue) > 0 {
		r.refill(l)
	}
	r.mu.Unlock()
}

// forceInit has the runner kill an init that does not answer.
func (r *Runner) forceInit(t *Tree, c *initConn) {
	r.log.Warn("an init does not kill its tree in time; the runner kills it", "session", t.owner, "execution", t.id, "pid", c.pid)
	_ = c.link.conn.send(frame.New(frame.KindForce).Uint(c.id).Done()) // an error: the runner is lost, and its inits with it
}

// swept: an init is gone, and everything that was below it.
func (r *Runner) swept(l *link, id uint64, escaped int) {
	r.mu.Lock()
	c := l.inits[id]
	delete(l.inits, id)
	idle := -1
	if c != nil {
		idle = slices.Index(l.idle, c)
	}
	if idle >= 0 {
		l.idle = slices.Delete(l.idle, idle, idle+1)
		r.refill(l)
	}
	r.status.Escaped += escaped
	r.mu.Unlock()
	if c != nil {
		close(c.gone)
		if idle >= 0 {
			c.conn.close()
		}
	}
	if escaped > 0 {
		r.log.Warn("an init was killed; the runner killed what it left", "processes", escaped)
		r.cfg.OnEvent(RunnerEvent{Kind: RunnerEscaped, Count: escaped})
	}
}

// adopt makes l the runner in use.
func (r *Runner) adopt(l *link, h hello) {
	r.mu.Lock()
	restarted := r.status.Containment != ""
	if restarted {
		r.status.Restarts++
	}
	r.status.Up, r.status.PID, r.status.Containment = true, h.PID, h.Containment
	r.link = l
	r.refill(l)
	if missing := r.cfg.WarmInits - l.pending; missing > 0 { // all of them, while nothing else is to be done
		l.pending += missing
		_ = l.conn.send(frame.New(frame.KindWant).Uint(uint64(missing)).Done())
	}
	r.mu.Unlock()
	r.log.Info("runner is up", "pid", h.PID, "version", h.Version, "containment", h.Containment)
	kind := RunnerUp
	if restarted {
		kind = RunnerRestarted
	}
	r.cfg.OnEvent(RunnerEvent{Kind: kind})
}

// drop takes l out of use. The trees that run on it still wait for release.
func (r *Runner) drop(l *link) {
	r.mu.Lock()
	r.link = nil
	r.status.Up, r.status.PID = false, 0
	idle := l.idle
	l.idle = nil
	r.mu.Unlock()
	l.conn.close()
	for _, c := range idle {
		c.conn.close()
	}
}

// release lets the trees of a lost runner be dead.
func (r *Runner) release(l *link) {
	r.mu.Lock()
	inits := l.inits
	l.inits = nil
	r.mu.Unlock()
	for _, c := range inits {
		c.runnerLost = true
		close(c.gone)
	}
	close(l.lost)
}
