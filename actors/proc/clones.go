//go:build linux

package proc

import (
	"slices"
	"time"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// Clones: overlapping trees of one session run in inits that share its domain. The first init is any;
// the others are cloned from one that has a tree of the session.

// cloneIdle is how long a clone is kept for its session when it is idle.
const cloneIdle = 3 * time.Second

// peer returns a busy init whose domain the tree must share, or nil. mu is held.
func (rc *runnerConn) peer(t *Tree) *initConn {
	if t.workspace == "" || rc.hello.Isolation != frame.IsolationSession {
		return nil
	}
	for _, c := range rc.inits {
		if c.busy && !c.doomed && c.workspace == t.workspace {
			return c
		}
	}
	return nil
}

// askClone has peer cloned for a tree. mu is held.
func (rc *runnerConn) askClone(peer *initConn, t *Tree) {
	rc.requests++
	req := frame.Clone{Request: rc.requests, Init: peer.id, Workspace: t.workspace, Session: t.r.cfg.Session.frame()}
	rc.cloning[req.Request] = t
	t.domain = peer.domain
	// On an error the runner is lost, and serveRunner notices.
	_ = rc.conn.send(req.Encode())
}

// cloneArrived attaches the tree that waits for a clone as soon as the clone is ready.
func (r *Runner) cloneArrived(rc *runnerConn, request, id uint64, pid int, fds []int) {
	c, err := newFrameConn(fds[0], fds[1], "init")
	if err != nil {
		r.cloneFailed(rc, request, err.Error())
		return
	}
	ic := &initConn{
		id: id, pid: pid, runner: rc, conn: c, in: frame.NewReceiver(c.recv), swept: make(chan struct{}),
		clone: true, busy: true, doomed: true, // until it is ready
	}
	r.mu.Lock()
	rc.inits[id] = ic
	if t := rc.cloning[request]; t != nil {
		ic.workspace, ic.domain = t.workspace, t.domain
	}
	r.mu.Unlock()
	r.wg.Go(func() {
		k, _, err := ic.in.Next()
		if err != nil || k != frame.KindReady {
			c.close() // the runner will report it as swept
			r.cloneFailed(rc, request, "it died before it was ready")
			return
		}
		r.mu.Lock()
		t := rc.cloning[request]
		delete(rc.cloning, request)
		if t != nil {
			t.waiting.Stop()
		}
		ic.doomed = false
		r.mu.Unlock()
		if t != nil {
			t.attach(ic)
		} else {
			r.giveBack(ic)
		}
	})
}

// cloneFailed gives the tree that waits for a clone an init in a domain of its own.
func (r *Runner) cloneFailed(rc *runnerConn, request uint64, why string) {
	r.mu.Lock()
	t := rc.cloning[request]
	delete(rc.cloning, request)
	if t != nil {
		t.apart = true
		t.waiting.Stop()
	}
	r.mu.Unlock()
	if t != nil {
		r.log.Warn("an execution cannot see the others of its session: no init could be started in their domain",
			"session", t.owner, "execution", t.id, "err", why)
		r.dispatch(t)
	}
}

// keepClone keeps an idle clone for a while. It returns the one that there is no room for, if any.
// mu is held.
func (r *Runner) keepClone(rc *runnerConn, c *initConn) (drop *initConn) {
	rc.clones = append(rc.clones, c)
	c.idleTimer = time.AfterFunc(cloneIdle, func() { r.closeClone(c) })
	if len(rc.clones) > r.cfg.WarmInits {
		drop = rc.clones[0]
		rc.clones = rc.clones[1:]
		drop.idleTimer.Stop()
	}
	return drop
}

// closeClone closes a clone that is still idle.
func (r *Runner) closeClone(c *initConn) {
	r.mu.Lock()
	i := slices.Index(c.runner.clones, c)
	if i >= 0 {
		c.runner.clones = slices.Delete(c.runner.clones, i, i+1)
	}
	r.mu.Unlock()
	if i >= 0 {
		c.conn.close() // it exits
	}
}
