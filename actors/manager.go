package actors

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// manager admits sessions. Its children are the sessions and the reapers of
// failed ones; their number is the number of slots in use, so there is no
// counter that could disagree with the truth.
type manager struct {
	engine *Engine

	// What is known of the children, by name. A child is only ever of one subject.
	owners    map[string]string      // the subject that has the slot
	evictable map[string]time.Time   // detached sessions that may be evicted, since when
	evicting  map[string]openSession // asked to end, not answered yet; who gets the slot
	held      holdings

	draining bool
	deadline time.Time
	timer    *time.Timer
}

func (e *Engine) newManager() *manager {
	return &manager{
		engine: e, owners: map[string]string{}, evictable: map[string]time.Time{}, evicting: map[string]openSession{},
		held: holdings{of: map[string]int{}, with: map[int]int{}},
	}
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
	case listSessions:
		ctx.Respond(m.list(ctx, msg.only))
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
		for id := range m.evicting { // slots that become free now are not given away
			m.unpromise(id)
		}
	}
}

// open gives a client a slot, at once or when an idle detached session has been evicted. No
// session is evicted for a client of another pod while a third pod has room: the pod that
// asked did not know how full this one is, and asks the third one next.
func (m *manager) open(ctx actor.Context, msg openSession) {
	short := m.shortageOf(ctx, msg.subject)
	switch {
	case msg.mayPlace && (m.draining || short != nil):
		ctx.Send(msg.conn, placeElsewhere{})
	case m.draining:
		m.refuse(ctx, msg, wire.CauseDraining, string(wire.CauseDraining), wire.Errorf(wire.CodeDraining,
			"the server is stopping and opens no new sessions: connect again to reach another"))
	case short == nil:
		m.spawn(ctx, msg)
	default:
		id, pid := m.victim(ctx, msg.subject)
		if pid == nil || msg.proxyPod != "" && m.engine.cluster.hasRoomElsewhere(msg.proxyPod) {
			m.refuse(ctx, msg, wire.CauseSessionLimit, short.reason, short.error())
			return
		}
		m.promise(id, msg)
		ctx.Send(pid, evict{})
	}
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

// list returns the sessions, without the reapers of failed ones.
func (m *manager) list(ctx actor.Context, only string) []sessionRef {
	refs := []sessionRef{}
	for _, child := range ctx.Children() {
		id := nameOf(ctx, child)
		if _, _, ok := ownerOf(id); ok && (only == "" || only == id) {
			refs = append(refs, sessionRef{id: id, subject: m.owners[id], pid: child})
		}
	}
	return refs
}

func (m *manager) spawn(ctx actor.Context, msg openSession) {
	id := m.engine.newSessionID()
	s := newSession(m.engine, id, msg)
	_, err := ctx.SpawnNamed(m.engine.props("session", s.receive, s.cleanup), id)
	if err != nil { // a 128-bit random id collided
		m.failed(ctx, msg, "cannot open a session: "+err.Error())
		return
	}
	m.own(id, msg.subject)
	m.engine.metrics.opened.Inc()
}

// refuse turns a client away. The pod that has the client's socket counts and reports the
// refusal. A pod that was only asked for a slot does not: the first pod asks on.
func (m *manager) refuse(ctx actor.Context, msg openSession, cause wire.Cause, reason string, err *wire.Error) {
	ctx.Send(msg.conn, reply{id: wire.NullID, err: err})
	ctx.Send(msg.conn, disconnect{cause: cause})
	if msg.proxyPod != "" {
		return
	}
	m.engine.metrics.refused.WithLabelValues(reason).Inc()
	m.engine.turnedAway.Add(1)
	m.engine.log.Info("session refused", "subject", msg.subject, "reason", reason)
	if reason == string(cause) { // it is the server that lacks something, and not the subject that has too much
		m.engine.refused(cause)
	}
}

// failed refuses a client because of a defect.
func (m *manager) failed(ctx actor.Context, msg openSession, text string) {
	m.refuse(ctx, msg, wire.CauseInternal, string(wire.CauseInternal), wire.Errorf(wire.CodeInternal, "%s", text))
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

// evictRefused decides again about the client that waited for a session whose own client has come
// back.
func (m *manager) evictRefused(ctx actor.Context, msg evictRefused) {
	if next, ok := m.unpromise(msg.session); ok {
		m.open(ctx, next)
	}
}

// terminated frees a child's slot, which the client gets that waited for it. If processes of a
// session are still alive because it failed, a reaper takes its place in the same step.
func (m *manager) terminated(ctx actor.Context, msg *actor.Terminated) {
	id := nameOf(ctx, msg.Who)
	owner := m.owners[id]
	next, promised := m.disown(id)
	if done := m.engine.runner.OwnerDone(id); !closed(done) {
		reaper := ctx.Spawn(m.engine.props("reaper", m.engine.reaper(done), nil))
		m.own(nameOf(ctx, reaper), owner)
		promised = false
	}
	switch {
	case promised && !m.draining:
		m.spawn(ctx, next)
	case next.conn != nil:
		m.open(ctx, next)
	}
}

// survive answers or repeats a message at which the manager panicked, so that no client waits in
// vain.
func (m *manager) survive(ctx actor.Context, msg any) {
	switch msg := msg.(type) {
	case openSession:
		m.failed(ctx, msg, "the server failed while it opened a session")
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
	m.engine.most.Store(int64(m.held.most))
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
