package relay

import "time"

// This file finds out which frames of a link are missing, and resends them.

// resend sends again every frame that was sent and is not acknowledged.
func (l *link) resend(now time.Time) {
	l.armed, l.resentProbe = now, l.probes
	for seq := l.gone + 1; seq <= l.out; seq++ {
		l.counters.Resends.Add(1)
		l.transmit(seq)
	}
}

// answered takes an Ack. It resends the frames of one gap only once. If they are lost again, the
// answer to a later probe says so.
func (l *link) answered(now time.Time, ack uint64, a *Ack) {
	if ack < l.gone || l.gone == l.out {
		return // old news
	}
	switch {
	case a.Probe > l.resentProbe && ack+1 < a.Next && a.Probe <= l.probes:
		l.resend(now)
	case a.Gap && l.resentGap <= l.gone:
		l.resentGap = l.gone + 1
		l.resend(now)
	}
}

func (l *link) probed(now time.Time, p *Probe) {
	if l.frozen {
		// The last frame said that nothing more is accepted, but the other end has not received it.
		if l.out > l.gone && now.Sub(l.armed) >= firstRetry {
			l.resend(now)
		}
		return
	}
	l.post(&Frame{Body: &Frame_Acknowledge{&Ack{Probe: p.GetNumber(), Next: p.GetNext()}}})
}

// tick does the work that is due.
func (l *link) tick(now time.Time) {
	if l.ended != "" {
		return
	}
	if !l.ackDue.IsZero() && !now.Before(l.ackDue) {
		l.postAck()
	}
	if now.Before(l.probeDue()) {
		return
	}
	if l.unanswered >= silentProbes && now.Sub(l.heard) >= silentAfter {
		l.fail(now, EndedSilent, Reset_SILENT)
		return
	}
	l.probe(now)
}

// probe asks which frames have arrived. Frames are resent only after an answer, so that a peer that
// cannot keep up does not get even more.
func (l *link) probe(now time.Time) {
	l.unanswered++
	l.armed, l.asked = now, now
	l.retry = min(2*l.retry, lastRetry)
	if l.first && l.out > 0 {
		// The other end may not know the link yet, and would answer a probe with a Reset.
		l.counters.Resends.Add(1)
		l.transmit(1)
		return
	}
	l.probes++
	l.post(&Frame{Body: &Frame_Probe{&Probe{Number: l.probes, Next: l.out + 1}}})
}

func (l *link) probeDue() time.Time {
	if l.out > l.gone {
		return l.armed.Add(l.retry)
	}
	due := l.heard
	if l.asked.After(due) {
		due = l.asked
	}
	return due.Add(keepAlive)
}

// next returns when tick has work to do, or zero if the link has ended.
func (l *link) next() time.Time {
	if l.ended != "" {
		return time.Time{}
	}
	return earliest(l.ackDue, l.probeDue())
}

// reconnected asks at once which frames were lost with the connection.
func (l *link) reconnected(now time.Time) {
	if l.ended == "" && l.out > l.gone {
		l.retry = firstRetry / 2 // probe doubles it
		l.probe(now)
	}
}
