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

// holdings are the slots in use, by the subject that has them.
type holdings struct {
	of    map[string]int
	total int
}

// holdings counts the manager's children. A session that is being evicted counts for the client
// that gets its slot.
func (m *manager) holdings(ctx actor.Context) holdings {
	h := holdings{of: map[string]int{}}
	for _, child := range ctx.Children() {
		subject := m.owners[nameOf(ctx, child)]
		if next, evicting := m.evicting[nameOf(ctx, child)]; evicting {
			subject = next.subject
		}
		h.of[subject]++
		h.total++
	}
	return h
}

// most returns the most slots that one subject has.
func (h holdings) most() int {
	most := 0
	for _, n := range h.of {
		most = max(most, n)
	}
	return most
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
func (m *manager) shortageOf(h holdings, subject string) *shortage {
	l, reserved := m.engine.limits, m.engine.reserved()
	switch held := h.of[subject]; {
	case l.MaxSessionsPerSubject > 0 && held >= l.MaxSessionsPerSubject:
		return &shortage{
			refusedSubject, "max-sessions-per-subject", l.MaxSessionsPerSubject,
			fmt.Sprintf("this subject has %d sessions on this server, which is its limit: close one, or try again later", held),
		}
	case h.total >= l.MaxSessions:
		return &shortage{
			refusedFull, "max-sessions", l.MaxSessions,
			"all sessions of this server are in use: try again later",
		}
	case held > 0 && h.total >= l.MaxSessions-reserved:
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
func (m *manager) victim(ctx actor.Context, h holdings, subject string) (string, *actor.PID) {
	victim := ""
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
