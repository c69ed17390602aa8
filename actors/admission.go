package actors

import (
	"fmt"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// This file decides who gets a slot, and whose session gives way for it.

// reservedShare is the share of the slots that subjects get which hold none: one in ten. Otherwise
// one subject could take every slot and keep all others out. It is rounded down, so fewer than ten
// slots are shared by who comes first.
const reservedShare = 10

// Reserved returns how many of n slots are for subjects that hold none.
func Reserved(n int) int { return n / reservedShare }

// reserved returns how many session slots are for subjects that hold none. Where the server knows
// only one subject, it would keep them for nobody.
func (e *Engine) reserved() int {
	if !e.many() {
		return 0
	}
	return Reserved(e.limits.MaxSessions)
}

// holdings are the slots in use, by the subject that has them. The manager keeps them, since counting
// its children for each client that comes takes longer than opening a session.
type holdings struct {
	of   map[string]int
	with map[int]int // how many subjects have so many slots
	most int         // the most slots that one subject has
}

// add adds one slot to those of a subject, or takes one from them (-1).
func (h *holdings) add(subject string, n int) {
	had := h.of[subject]
	if h.of[subject] = had + n; had+n == 0 {
		delete(h.of, subject)
	}
	h.with[had+n]++
	if h.with[had]--; h.with[had] <= 0 { // negative for those that had none, which is no number
		delete(h.with, had)
	}
	h.most = max(h.most, had+n)
	if h.with[h.most] == 0 {
		h.most--
	}
}

// own gives the slot of a child to a subject.
func (m *manager) own(id, subject string) {
	m.owners[id] = subject
	m.held.add(subject, 1)
}

// disown forgets a child that is dead, and returns the client that waited for its slot, if any.
func (m *manager) disown(id string) (next openSession, promised bool) {
	next, promised = m.unpromise(id)
	if subject, ok := m.owners[id]; ok {
		delete(m.owners, id)
		m.held.add(subject, -1)
	}
	delete(m.evictable, id)
	return next, promised
}

// promise notes that a client gets the slot of a session that is asked to end. From now on it counts
// for that client.
func (m *manager) promise(id string, next openSession) {
	m.held.add(m.owners[id], -1)
	m.held.add(next.subject, 1)
	m.evicting[id] = next
	delete(m.evictable, id)
}

// unpromise takes that back.
func (m *manager) unpromise(id string) (next openSession, promised bool) {
	if next, promised = m.evicting[id]; promised {
		delete(m.evicting, id)
		m.held.add(next.subject, -1)
		m.held.add(m.owners[id], 1)
	}
	return next, promised
}

// shortage is a limit that keeps a subject from a further session.
type shortage struct {
	reason string // label of the metric
	limit  string // in the error's data
	value  int
	text   string
}

// Reasons for which a session is refused, beside the causes draining and internal.
const (
	refusedFull    = string(wire.CauseSessionLimit) // all slots are in use
	refusedSubject = "subject_limit"                // its subject has as many as one may
	refusedReserve = "reserved"                     // the free ones are for subjects that have none
)

// shortageOf returns what keeps the subject from a further session; nil: a slot is free for it.
func (m *manager) shortageOf(ctx actor.Context, subject string) *shortage {
	l, reserved, total := m.engine.limits, m.engine.reserved(), len(ctx.Children())
	switch held := m.held.of[subject]; {
	case l.MaxSessionsPerSubject > 0 && held >= l.MaxSessionsPerSubject:
		return &shortage{
			refusedSubject, "max-sessions-per-subject", l.MaxSessionsPerSubject,
			fmt.Sprintf("this subject has %d sessions on this server, which is its limit: close one, or try again later", held),
		}
	case total >= l.MaxSessions:
		return &shortage{
			refusedFull, "max-sessions", l.MaxSessions,
			"all sessions of this server are in use: try again later",
		}
	case held > 0 && total >= l.MaxSessions-reserved:
		return &shortage{
			refusedReserve, "reserved-sessions", reserved,
			fmt.Sprintf("the last %d of this server's %d sessions are for subjects that have none, and this one has %d: "+
				"close one, or try again later", reserved, l.MaxSessions, held),
		}
	}
	return nil
}

func (s *shortage) error() *wire.Error {
	err := wire.Errorf(wire.CodeSessionLimit, "%s", s.text)
	err.Data = &wire.ErrorData{Limit: s.limit, Value: float64(s.value), RetryAfterSeconds: 5}
	return err
}

// victim returns the session that gives way for another of the subject: an evictable one of the
// subject that holds most, the oldest of these, or none. A subject takes from itself and from those
// that hold more than it does; so at its own limit, which is also theirs, only from itself.
func (m *manager) victim(ctx actor.Context, subject string) (string, *actor.PID) {
	h, victim := &m.held, ""
	for id, since := range m.evictable {
		owner := m.owners[id]
		if _, asked := m.evicting[id]; asked {
			continue // its client came back and left again meanwhile
		}
		if owner != subject && h.of[owner] <= h.of[subject] {
			continue
		}
		most := h.of[m.owners[victim]]
		if victim == "" || h.of[owner] > most || h.of[owner] == most && since.Before(m.evictable[victim]) {
			victim = id
		}
	}
	return victim, findChild(ctx, victim)
}

// nameOf returns the name of a child: of a session, its id.
func nameOf(ctx actor.Context, child *actor.PID) string {
	return strings.TrimPrefix(child.Id, ctx.Self().Id+"/")
}
