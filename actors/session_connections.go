package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is how connections come to a session and go.

// attach adds a connection, or takes an attached one back to earlier offsets.
func (s *session) attach(ctx actor.Context, msg attach) {
	if !s.admits(msg) {
		refuseAttach(ctx, msg)
		return
	}
	if err := s.checkOffsets(msg.params.Executions); err != nil {
		ctx.Send(msg.conn, reply{id: msg.id, err: err})
		return
	}
	s.lastActivity = time.Now()
	c := s.conns[msg.conn.Id]
	if c == nil {
		c = &attachedConn{pid: msg.conn, follows: map[string]*following{}}
		s.conns[msg.conn.Id] = c
		ctx.Watch(msg.conn)
		ctx.Send(msg.conn, attached{session: s.self})
		s.engine.metrics.resumed.Inc()
	}
	s.event(ctx, eventAttach)
	s.setDetached(time.Time{})
	stopTimer(s.resumeTimer)
	ctx.Send(s.engine.manager, sessionEvictable{session: s.id})
	s.resumed(ctx, c, msg)
	if !s.drainDeadline.IsZero() {
		s.notifyDraining(ctx, c)
	}
}

// admits reports whether the connection may attach: it has the token, its subject is
// the owner, and the phase lets it.
func (s *session) admits(msg attach) bool {
	if !s.issued(msg.params.ResumeToken) || msg.subject != s.subject {
		return false
	}
	if s.ephemeral && s.conns[msg.conn.Id] == nil {
		return false
	}
	return sessionTable[eventAttach][s.phase] == serving
}

// connectionClosed takes a connection out. How it ended decides what becomes of the session.
func (s *session) connectionClosed(ctx actor.Context, msg connectionClosed) {
	c := s.conns[msg.conn.Id]
	if c == nil {
		return
	}
	delete(s.conns, msg.conn.Id)
	ctx.Unwatch(msg.conn)
	s.leave(ctx, c)
	if msg.cause == wire.CauseClientDone && len(s.conns) > 0 {
		return // it leaves the session to the others
	}
	if msg.cause == wire.CauseClientDone || s.ephemeral {
		s.cancel(ctx, eventClientDone, wire.ReasonSessionClosed, msg.cause)
		return
	}
	s.event(ctx, eventConnectionLost)
	if s.phase == serving && len(s.conns) == 0 {
		s.detach(ctx)
	}
}

// detach starts the resume window.
func (s *session) detach(ctx actor.Context) {
	s.setDetached(time.Now())
	s.lastActivity = s.detachedSince
	s.resumeTimer = s.engine.after(s.options.ResumeWindow, s.self, resumeWindowOver{since: s.detachedSince})
	s.offerSlot(ctx)
}

// setDetached records since when no client is connected; zero: one is.
func (s *session) setDetached(since time.Time) {
	switch was, is := !s.detachedSince.IsZero(), !since.IsZero(); {
	case is && !was:
		s.engine.detached.Add(1)
	case was && !is:
		s.engine.detached.Add(-1)
	}
	s.detachedSince = since
}

// offerSlot tells the manager if this session may be evicted.
func (s *session) offerSlot(ctx actor.Context) {
	if s.isEvictable() {
		ctx.Send(s.engine.manager, sessionEvictable{session: s.id, since: s.detachedSince})
	}
}

// isEvictable reports whether the session is detached, runs nothing, and has no unread end.
func (s *session) isEvictable() bool {
	return !s.detachedSince.IsZero() && s.live == 0 && !s.unread()
}

// evict begins the end, or refuses it if the client has come back: what it then began may take long,
// also to end. A session whose clients have been told to go answers with its end.
func (s *session) evict(ctx actor.Context) {
	if s.phase != closing && !s.isEvictable() {
		ctx.Send(s.engine.manager, evictRefused{session: s.id})
		return
	}
	s.cancel(ctx, eventEvict, wire.ReasonSessionClosed, causeEvicted)
}
