package relay

import "time"

const (
	// tombstoneTTL is how long a table remembers a link that has ended. A late Open comes from a
	// connection that was reset, and such connections are closed within seconds.
	tombstoneTTL = time.Minute
	// maxTombstones bounds the memory of tombstones to about 1 MiB.
	maxTombstones = 16 << 10
	// resetAgain is the minimum interval between Resets for one link. It must be below firstRetry, the
	// minimum interval at which the other end asks.
	resetAgain = 200 * time.Millisecond
)

// tombstones are the links that have ended or were refused.
type tombstones struct {
	lastReset map[LinkID]time.Time // zero: none was sent
	order     []tombstone          // oldest first
}

type tombstone struct {
	link      LinkID
	createdAt time.Time
}

func (s *tombstones) add(now time.Time, link LinkID) {
	s.expire(now)
	if s.lastReset == nil {
		s.lastReset = map[LinkID]time.Time{}
	}
	if _, ok := s.lastReset[link]; ok {
		return
	}
	s.lastReset[link] = time.Time{}
	s.order = append(s.order, tombstone{link, now})
}

func (s *tombstones) expire(now time.Time) {
	n := 0
	for n < len(s.order) && (now.Sub(s.order[n].createdAt) > tombstoneTTL || len(s.order)-n >= maxTombstones) {
		delete(s.lastReset, s.order[n].link)
		n++
	}
	s.order = s.order[n:]
}

func (s *tombstones) has(now time.Time, link LinkID) bool {
	s.expire(now)
	_, ok := s.lastReset[link]
	return ok
}

// mayReset reports whether the other end of a link may be sent a Reset now. If so, it records the
// time, so the caller must send the Reset. A link that was refused once stays refused.
func (s *tombstones) mayReset(now time.Time, link LinkID) bool {
	s.add(now, link)
	last := s.lastReset[link]
	if !last.IsZero() && now.Sub(last) < resetAgain {
		return false
	}
	s.lastReset[link] = now
	return true
}
