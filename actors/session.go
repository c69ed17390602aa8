package actors

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// lingerTime is how long a session that has ended keeps its transcripts for
// clients that are still being sent the end of them. It is above the gateway's
// default write timeout, after which such a client is cut off anyway.
const lingerTime = 12 * time.Second

// returnTime is how long a session that a drain ends can be resumed after the last end of a command. That it was written to
// the socket does not say that it arrived: a client whose network failed at that moment comes back for it.
const returnTime = 5 * time.Second

// session is the actor that owns what one client has: its executions, their
// transcripts, and the connections that follow them. Nothing else changes them.
type session struct {
	engine  *Engine
	id      string
	subject string
	token   [sha256.Size]byte // of the resume token, which is not kept
	created time.Time
	asked   time.Time // when its first connection came
	self    *actor.PID

	executions map[string]*execution
	finished   []string // ids of dead executions, oldest first
	live       int      // executions that are not dead

	conns     map[string]*attachedConn // by PID
	ephemeral bool                     // ends with its connection

	lastActivity  time.Time
	detachedSince time.Time // zero while a connection is attached
	idleTimer     *time.Timer
	resumeTimer   *time.Timer
	lingerTimer   *time.Timer

	drainDeadline time.Time   // zero: not draining
	ending        wire.Reason // empty: not ending; else the reason its executions are given
	endCause      wire.Cause
	saidGoodbye   bool      // disconnect has been sent to the connections
	lastEnd       time.Time // of a command
}

// attachedConn is a connection and the executions it follows.
type attachedConn struct {
	pid     *actor.PID
	follows map[string]bool
}

func newSession(e *Engine, id string, open openSession) *session {
	s := &session{
		engine: e, id: id, subject: open.subject, asked: open.asked, created: time.Now(), lastActivity: time.Now(),
		executions: map[string]*execution{}, conns: map[string]*attachedConn{}, ephemeral: open.endsWithConnection,
	}
	s.conns[open.conn.Id] = &attachedConn{pid: open.conn, follows: map[string]bool{}}
	return s
}

func (s *session) receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		s.started(ctx)
	case request:
		s.request(ctx, msg)
	case attach:
		s.attach(ctx, msg)
	case connectionClosed:
		s.connectionClosed(ctx, msg)
	case executionStarted:
		s.executionStarted(ctx, msg)
	case executionPaused:
		s.stateChanged(ctx, msg.execution, wire.StatePaused, wire.MethodPaused, "paused")
	case executionResumed:
		s.stateChanged(ctx, msg.execution, wire.StateRunning, wire.MethodResumed, "resumed")
	case executionCanceling:
		s.stateChanged(ctx, msg.execution, wire.StateCanceling, wire.MethodCanceled, "canceled")
	case executionExiting:
		s.stateChanged(ctx, msg.execution, wire.StateExiting, "", "")
	case executionCompleted:
		s.executionCompleted(ctx, msg)
	case survivorsDead:
		s.executionDead(ctx, msg.execution)
	case treeReaped:
		s.treeReaped(ctx, msg)
	case evict:
		s.evict(ctx)
	case drain:
		s.drain(ctx, msg)
	case drainDeadline:
		s.cancel(ctx, wire.ReasonDrain, wire.CauseDraining)
	case idleCheck:
		s.idleCheck(ctx)
	case resumeWindowOver:
		if s.detachedSince.Equal(msg.since) {
			s.cancel(ctx, wire.ReasonSessionClosed, causeExpired)
		}
	case lingerOver:
		if s.saidGoodbye {
			ctx.Stop(s.self)
		}
	case *actor.Terminated:
		s.terminated(ctx, msg)
	}
}

func (s *session) started(ctx actor.Context) {
	s.self = ctx.Self()
	token := randomHex(16)
	s.token = sha256.Sum256([]byte(token))
	s.idleTimer = s.engine.after(s.engine.limits.IdleTimeout, s.self, idleCheck{})
	for _, c := range s.conns {
		ctx.Watch(c.pid)
		ctx.Send(c.pid, attached{session: s.self})
		ctx.Send(c.pid, notify{method: wire.MethodConnected, params: &wire.Connected{
			SessionID: s.id, Version: wire.Version, Capabilities: []string{"execute", "control", "stream", "input", "signal", "resume"},
			ResumeToken: token, Limits: s.engine.limits.Wire(), Pod: s.engine.pod, Containment: s.engine.runner.Containment(),
		}})
	}
	s.engine.metrics.openSeconds.Observe(time.Since(s.asked).Seconds())
	s.engine.log.Info("session opened", "session", s.id, "subject", s.subject)
}

// attach adds a connection, or takes an attached one back to earlier offsets.
func (s *session) attach(ctx actor.Context, msg attach) {
	token := sha256.Sum256([]byte(msg.params.ResumeToken))
	if subtle.ConstantTimeCompare(token[:], s.token[:]) != 1 || msg.subject != s.subject || s.ending != "" && !s.mayReturn() || s.ephemeral && s.conns[msg.conn.Id] == nil {
		refuseAttach(ctx, msg)
		return
	}
	if err := s.checkOffsets(msg.params.Executions); err != nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: err})
		return
	}
	if s.saidGoodbye {
		s.unsay() // it has not heard it
	}
	s.lastActivity = time.Now()
	c := s.conns[msg.conn.Id]
	if c == nil {
		c = &attachedConn{pid: msg.conn, follows: map[string]bool{}}
		s.conns[msg.conn.Id] = c
		ctx.Watch(msg.conn)
		ctx.Send(msg.conn, attached{session: s.self})
		s.engine.metrics.resumed.Inc()
	}
	s.setDetached(time.Time{})
	stopTimer(s.resumeTimer)
	ctx.Send(s.engine.manager, sessionEvictable{session: s.id})
	s.resumed(ctx, c, msg)
	if !s.drainDeadline.IsZero() {
		s.notifyDraining(ctx, c)
		s.drainIfIdle(ctx)
	}
}

// connectionClosed detaches a connection; how it ended decides what becomes of the session.
func (s *session) connectionClosed(ctx actor.Context, msg connectionClosed) {
	c := s.conns[msg.conn.Id]
	if c == nil {
		return
	}
	delete(s.conns, msg.conn.Id)
	ctx.Unwatch(msg.conn)
	for id := range c.follows {
		_, unread := msg.delivered[id]
		unread = unread || msg.delivered == nil || slices.Contains(msg.missed, id)
		if x := s.executions[id]; !unread && x != nil && x.completed != nil {
			x.read = true
		}
	}
	switch {
	case s.saidGoodbye && len(s.conns) > 0:
	case s.mayReturn() && s.unread(): // it broke before it was sent the end
		s.unsay()
		s.detached(ctx)
	case s.saidGoodbye:
		s.leave(ctx)
	case msg.cause == wire.CauseClientDone:
		s.cancel(ctx, wire.ReasonSessionClosed, wire.CauseClientDone)
	case s.ephemeral:
		s.cancel(ctx, wire.ReasonSessionClosed, msg.cause)
	case len(s.conns) == 0:
		s.detached(ctx)
	}
}

// detached starts the resume window.
func (s *session) detached(ctx actor.Context) {
	s.setDetached(time.Now())
	s.lastActivity = s.detachedSince
	s.resumeTimer = s.engine.after(s.engine.limits.ResumeWindow, s.self, resumeWindowOver{since: s.detachedSince})
	s.offerSlot(ctx)
	s.drainIfIdle(ctx)
}

// setDetached notes since when nobody is connected; zero: somebody is.
func (s *session) setDetached(since time.Time) {
	switch was, is := !s.detachedSince.IsZero(), !since.IsZero(); {
	case is && !was:
		s.engine.detached.Add(1)
	case was && !is:
		s.engine.detached.Add(-1)
	}
	s.detachedSince = since
}

// offerSlot tells the manager when nobody would miss this session.
func (s *session) offerSlot(ctx actor.Context) {
	if s.isEvictable() {
		ctx.Send(s.engine.manager, sessionEvictable{session: s.id, since: s.detachedSince})
	}
}

func (s *session) isEvictable() bool {
	return !s.detachedSince.IsZero() && s.live == 0 && !s.unread()
}

// unread reports whether a finished execution has output that no connection was sent to its end.
func (s *session) unread() bool {
	for _, x := range s.executions {
		if !x.read {
			return true
		}
	}
	return false
}

func (s *session) evict(ctx actor.Context) {
	if !s.isEvictable() && s.ending == "" {
		ctx.Send(s.engine.manager, evictRefused{session: s.id})
		return
	}
	s.cancel(ctx, wire.ReasonSessionClosed, causeEvicted)
}

func (s *session) idleCheck(ctx actor.Context) {
	idle := time.Since(s.lastActivity)
	if s.live == 0 && idle >= s.engine.limits.IdleTimeout {
		s.cancel(ctx, wire.ReasonSessionClosed, causeIdle)
		return
	}
	wait := s.engine.limits.IdleTimeout
	if s.live == 0 {
		wait -= idle
	}
	s.idleTimer = s.engine.after(wait, s.self, idleCheck{})
}

// Causes of a session's end that are not the end of a connection.
const (
	causeExpired wire.Cause = "expired" // nobody came back within the resume window
	causeIdle    wire.Cause = "idle"    // nothing ran for the idle timeout
	causeEvicted wire.Cause = "yielded" // it gave way to a newcomer
	causeFailed  wire.Cause = "failed"  // its actor panicked
)

// sessionEnds lists the causes with which a session's end is counted.
func sessionEnds() []string {
	ends := []string{string(causeExpired), string(causeIdle), string(causeEvicted), string(causeFailed)}
	for _, c := range wire.Causes() {
		ends = append(ends, string(c))
	}
	return ends
}

// cancel begins the session's end: its executions are cancelled, and when the last
// of them is dead the connections are closed and the slot is freed.
func (s *session) cancel(ctx actor.Context, reason wire.Reason, cause wire.Cause) {
	if s.ending != "" {
		return
	}
	s.ending, s.endCause = reason, cause
	for _, x := range s.executions {
		if x.pid != nil {
			ctx.Send(x.pid, cancelExecution{reason: reason})
		}
	}
	s.finishIfDead(ctx)
}

// finishIfDead says goodbye once no process is left. The end of every transcript
// is in it by then, so the goodbye comes after process.completed on each connection.
func (s *session) finishIfDead(ctx actor.Context) {
	if s.ending == "" || s.live > 0 || s.saidGoodbye {
		return
	}
	s.saidGoodbye = true
	if len(s.conns) == 0 {
		s.leave(ctx)
		return
	}
	cause := wire.CauseSessionEnded
	if s.endCause == wire.CauseDraining {
		cause = wire.CauseDraining
	}
	for _, c := range s.conns {
		ctx.Send(c.pid, disconnect{cause: cause})
	}
	s.lingerTimer = s.engine.after(lingerTime, s.self, lingerOver{})
}

// mayReturn reports whether a goodbye can be taken back. One that is said because a drain found
// nothing running can: a client whose socket broke meanwhile was not told the end of its
// commands, and may come back for it until the drain has passed.
func (s *session) mayReturn() bool {
	return s.saidGoodbye && s.endCause == wire.CauseDraining && time.Now().Before(s.drainDeadline)
}

// leave stops the session: while a drain lasts, not before a client can have come back for the end of a command.
func (s *session) leave(ctx actor.Context) {
	stopTimer(s.lingerTimer)
	wait := time.Until(s.lastEnd.Add(returnTime))
	if wait <= 0 || !s.mayReturn() {
		ctx.Stop(s.self)
		return
	}
	s.lingerTimer = s.engine.after(min(wait, time.Until(s.drainDeadline)), s.self, lingerOver{})
}

// unsay takes the goodbye back. No command was ended for it.
func (s *session) unsay() {
	s.ending, s.endCause, s.saidGoodbye = "", "", false
	stopTimer(s.lingerTimer)
}

// cleanup runs when the actor stops, in order or by a panic. Its process actors
// are stopped after it and kill what they own.
func (s *session) cleanup() {
	for _, t := range []*time.Timer{s.idleTimer, s.resumeTimer, s.lingerTimer} {
		stopTimer(t)
	}
	if s.endCause == "" {
		told := wire.CauseInternal
		s.ending, s.endCause = wire.ReasonInternal, causeFailed
		if s.engine.closing.Load() {
			told = wire.CauseDraining
			s.ending, s.endCause = wire.ReasonDrain, wire.CauseDraining
		}
		for _, c := range s.conns {
			s.engine.system.Root.Send(c.pid, disconnect{cause: told})
		}
	}
	s.setDetached(time.Time{})
	s.engine.metrics.ended.WithLabelValues(string(s.endCause)).Inc()
	s.engine.log.Info("session ended", "session", s.id, "subject", s.subject, "cause", string(s.endCause))
	for _, x := range s.executions {
		x.abandon(s.engine, s.ending)
	}
}

// drain announces the end and, if nothing runs, ends.
func (s *session) drain(ctx actor.Context, msg drain) {
	s.drainDeadline = msg.deadline
	for _, c := range s.conns {
		s.notifyDraining(ctx, c)
	}
	s.drainIfIdle(ctx)
}

func (s *session) notifyDraining(ctx actor.Context, c *attachedConn) {
	left := max(0, time.Until(s.drainDeadline).Seconds())
	ctx.Send(c.pid, notify{method: wire.MethodDraining, params: &wire.Draining{DeadlineSeconds: left}})
}

// drainIfIdle ends a draining session as soon as nothing runs in it, unless its
// client is away and has output left to read: it may come back until its resume
// window or the drain has passed, whichever is first.
func (s *session) drainIfIdle(ctx actor.Context) {
	if s.drainDeadline.IsZero() || s.live > 0 {
		return
	}
	if s.detachedSince.IsZero() || !s.unread() {
		s.cancel(ctx, wire.ReasonDrain, wire.CauseDraining)
	}
}

// terminated hears of connections and process actors that stopped.
func (s *session) terminated(ctx actor.Context, msg *actor.Terminated) {
	if s.conns[msg.Who.Id] != nil {
		// Terminated overtakes what the connection sent before: take this in turn.
		ctx.Send(s.self, connectionClosed{conn: msg.Who, cause: wire.CauseClientGone})
		return
	}
	for id, x := range s.executions {
		if x.pid == nil || !x.pid.Equal(msg.Who) {
			continue
		}
		x.pid = nil
		if !x.dead {
			s.processFailed(id, x)
		}
		return
	}
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}
