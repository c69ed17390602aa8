package relay

import "time"

// This file is how a link learns what is missing, and sends it again.

// resend sends everything again that was sent and is missing.
func (l *link) resend(now time.Time) {
	l.armed, l.resentProbe = now, l.probes
	for seq := l.gone + 1; seq <= l.out; seq++ {
		l.counters.Resends.Add(1)
		l.transmit(seq)
	}
}

// answered learns what is missing. The same gap is made up for once: if that is
// lost again, the answer to a probe tells, which was sent later than the frames.
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
		// What was sent last says that nothing more is taken. The other end misses it.
		if l.out > l.gone && now.Sub(l.armed) >= firstRetry {
			l.resend(now)
		}
		return
	}
	l.post(&Frame{Body: &Frame_Acknowledge{&Ack{Probe: p.GetNumber(), Next: p.GetNext()}}})
}

// tick does what is due.
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

// probe asks what has arrived. Frames are sent again only when there is an answer,
// so that a peer that cannot keep up is not sent more because of it.
func (l *link) probe(now time.Time) {
	l.unanswered++
	l.armed, l.asked = now, now
	l.retry = min(2*l.retry, lastRetry)
	if l.first && l.out > 0 {
		// The other end may not know the link yet, and must not be asked about it.
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

// next returns when tick has something to do. A link that has ended has nothing.
func (l *link) next() time.Time {
	if l.ended != "" {
		return time.Time{}
	}
	return earliest(l.ackDue, l.probeDue())
}

// reconnected asks at once what the reset has cost.
func (l *link) reconnected(now time.Time) {
	if l.ended == "" && l.out > l.gone {
		l.retry = firstRetry / 2 // probe doubles it
		l.probe(now)
	}
}
