package actors

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// manager admits sessions. Its children are the sessions and the reapers of
// failed ones; their number is the number of slots in use, so there is no
// counter that could disagree with the truth.
type manager struct {
	engine *Engine

	// Admission at the ceiling.
	evictable map[string]time.Time // detached sessions that may be evicted, since when
	evicting  map[string]bool      // asked to end, not answered yet
	waiting   []openSession        // one for each session that was asked

	draining bool
	deadline time.Time
	timer    *time.Timer
}

func (e *Engine) newManager() *manager {
	return &manager{engine: e, evictable: map[string]time.Time{}, evicting: map[string]bool{}}
}

func (m *manager) receive(ctx actor.Context) {
	m.handle(ctx)
	m.publish(ctx)
}

func (m *manager) handle(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case openSession:
		m.open(ctx, msg)
	case findSession:
		m.find(ctx, msg)
	case sessionEvictable:
		if msg.since.IsZero() {
			delete(m.evictable, msg.session)
		} else if findChild(ctx, msg.session) != nil {
			m.evictable[msg.session] = msg.since
		}
	case evictRefused:
		m.evictRefused(ctx, msg)
	case drain:
		m.drain(ctx, msg)
	case drainDeadline:
		for _, child := range ctx.Children() {
			ctx.Send(child, msg)
		}
	case *actor.Terminated:
		m.terminated(ctx, msg)
	case *actor.Stopping:
		stopTimer(m.timer)
		m.waiting = nil // slots that become free now are not given away
	}
}

// open gives a client a slot, at once or when an idle detached session has been evicted. No
// session is evicted for a client of another pod while a third pod has room: the pod that
// asked did not know how full this one is, and asks the third one next.
func (m *manager) open(ctx actor.Context, msg openSession) {
	switch {
	case msg.mayPlace && (m.draining || len(ctx.Children()) >= m.engine.limits.MaxSessions):
		ctx.Send(msg.conn, placeElsewhere{})
	case m.draining:
		m.refuse(ctx, msg, wire.CodeDraining, wire.CauseDraining,
			"the server is stopping and opens no new sessions: connect again to reach another")
	case len(ctx.Children()) < m.engine.limits.MaxSessions:
		m.spawn(ctx, msg)
	default:
		victim, pid := m.oldestEvictable(ctx)
		if pid == nil || msg.proxyPod != "" && m.engine.cluster.hasRoomElsewhere(msg.proxyPod) {
			m.refuse(ctx, msg, wire.CodeSessionLimit, wire.CauseSessionLimit,
				"all sessions of this server are in use: try again later")
			return
		}
		delete(m.evictable, victim)
		m.evicting[victim] = true
		m.waiting = append(m.waiting, msg)
		ctx.Send(pid, evict{})
	}
}

func (m *manager) oldestEvictable(ctx actor.Context) (string, *actor.PID) {
	oldest, at := "", time.Time{}
	for id, since := range m.evictable {
		if oldest == "" || since.Before(at) {
			oldest, at = id, since
		}
	}
	return oldest, findChild(ctx, oldest)
}

// findChild finds a living session among the children, which are the only list of them.
func findChild(ctx actor.Context, id string) *actor.PID {
	path := ctx.Self().Id + "/" + id
	for _, child := range ctx.Children() {
		if child.Id == path {
			return child
		}
	}
	return nil
}

func (m *manager) spawn(ctx actor.Context, msg openSession) {
	id := m.engine.newSessionID()
	s := newSession(m.engine, id, msg)
	_, err := ctx.SpawnNamed(m.engine.props("session", s.receive, s.cleanup), id)
	if err != nil { // a 128-bit random id collided
		m.refuse(ctx, msg, wire.CodeInternal, wire.CauseInternal, "cannot open a session: "+err.Error())
		return
	}
	m.engine.metrics.opened.Inc()
}

// refuse turns a client away. The pod that has the client's socket counts and reports the
// refusal. A pod that was only asked for a slot does not: the first pod asks on.
func (m *manager) refuse(ctx actor.Context, msg openSession, code wire.Code, cause wire.Cause, text string) {
	err := wire.Errorf(code, "%s", text)
	if code == wire.CodeSessionLimit {
		err.Data = &wire.ErrorData{Limit: "max-sessions", Value: float64(m.engine.limits.MaxSessions), RetryAfterSeconds: 5}
	}
	ctx.Send(msg.conn, reply{id: wire.NullID, err: err})
	ctx.Send(msg.conn, disconnect{cause: cause})
	if msg.proxyPod == "" {
		m.engine.metrics.refused.WithLabelValues(string(cause)).Inc()
		m.engine.refused(cause)
	}
}

func (m *manager) find(ctx actor.Context, msg findSession) {
	if pid := findChild(ctx, msg.session); pid != nil {
		ctx.Send(msg.attach.conn, sessionFound{session: pid})
		ctx.Send(pid, msg.attach)
		return
	}
	if m.engine.ofEarlierIncarnation(msg.session) {
		ctx.Send(msg.attach.conn, reply{id: msg.attach.id, err: sessionLost()})
		ctx.Send(msg.attach.conn, disconnect{cause: wire.CauseSessionLost})
		return
	}
	refuseAttach(ctx, msg.attach)
}

// refuseAttach gives the one answer for a session that does not exist and for a wrong token.
func refuseAttach(ctx actor.Context, msg attach) {
	ctx.Send(msg.conn, reply{
		id:  msg.id,
		err: wire.Errorf(wire.CodeNoSession, "no such session, or the token is not its token"),
	})
	ctx.Send(msg.conn, disconnect{cause: wire.CauseNoSession})
}

// evictRefused serves the client that waited for a session whose own client has come back.
func (m *manager) evictRefused(ctx actor.Context, msg evictRefused) {
	delete(m.evicting, msg.session)
	m.serveWaiting(ctx)
}

// serveWaiting opens sessions for as many of the waiting clients as there is room for. When
// more wait than sessions are being evicted, the first ones are decided now.
func (m *manager) serveWaiting(ctx actor.Context) {
	for len(m.waiting) > 0 && (len(ctx.Children()) < m.engine.limits.MaxSessions || len(m.waiting) > len(m.evicting)) {
		next := m.waiting[0]
		m.waiting = m.waiting[1:]
		m.open(ctx, next)
	}
}

// terminated frees a session's slot, unless processes of it are still alive
// because it failed: then a reaper takes its place in the same step.
func (m *manager) terminated(ctx actor.Context, msg *actor.Terminated) {
	id := strings.TrimPrefix(msg.Who.Id, ctx.Self().Id+"/")
	delete(m.evictable, id)
	delete(m.evicting, id)
	if done := m.engine.runner.OwnerDone(id); !closed(done) {
		ctx.Spawn(m.engine.props("reaper", m.engine.reaper(done), nil))
	}
	m.serveWaiting(ctx)
}

// survive answers or repeats a message at which the manager panicked, so that no client waits in
// vain.
func (m *manager) survive(ctx actor.Context, msg any) {
	switch msg := msg.(type) {
	case openSession:
		m.refuse(ctx, msg, wire.CodeInternal, wire.CauseInternal, "the server failed while it opened a session")
	case findSession:
		ctx.Send(msg.attach.conn,
			reply{id: msg.attach.id, err: wire.Errorf(wire.CodeInternal, "the server failed while it looked for the session")})
		ctx.Send(msg.attach.conn, disconnect{cause: wire.CauseInternal})
	case evictRefused, drain, drainDeadline, *actor.Terminated:
		m.handle(ctx)
	}
	m.publish(ctx)
}

// drain refuses new sessions from now on and tells every session when it must have ended.
func (m *manager) drain(ctx actor.Context, msg drain) {
	if m.draining {
		return
	}
	m.draining, m.deadline = true, msg.deadline
	for _, child := range ctx.Children() {
		ctx.Send(child, msg)
	}
	m.timer = m.engine.after(time.Until(msg.deadline), ctx.Self(), drainDeadline{})
}

// publish lets readers outside of the actor see how many slots are in use.
func (m *manager) publish(ctx actor.Context) {
	m.engine.sessions.Store(int64(len(ctx.Children())))
	if m.draining && len(ctx.Children()) == 0 {
		m.engine.drained.once.Do(func() { close(m.engine.drained.done) })
	}
}

// reaper holds the slot of a failed session until done is closed.
func (e *Engine) reaper(done <-chan struct{}) actor.ReceiveFunc {
	return func(ctx actor.Context) {
		if _, ok := ctx.Message().(*actor.Started); ok {
			self := ctx.Self()
			go func() {
				<-done // the runner closes it: a tree always ends
				e.system.Root.Stop(self)
			}()
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// randomHex returns n random bytes as 2n hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: see crypto/rand
	return hex.EncodeToString(b)
}
