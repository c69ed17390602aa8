package relay

import "sync/atomic"

const (
	// DefaultBudget bounds what all links of a pod hold together beyond their allowances, in bytes:
	// requests, answers and notifications that are unacknowledged or half there.
	DefaultBudget = 10 << 20
	// Allowance is what a link may hold without the budget, so that small messages pass whatever other
	// links hold.
	Allowance = 16 << 10
)

// Budget is shared by the links of a pod. MaxControl bounds one link, so that one client of a busy
// peer may have its largest requests under way; the budget bounds all of them. Its methods may be
// called from any goroutine. A nil Budget has no bound.
type Budget struct {
	max  int64
	used atomic.Int64
}

// NewBudget returns a budget of max bytes.
func NewBudget(limit int64) *Budget { return &Budget{max: limit} }

// Used returns how much is used, in bytes.
func (b *Budget) Used() int64 { return b.used.Load() }

// Resize changes what somebody holds from one number of bytes to another. It returns false, and
// changes nothing, if the budget has no room for the difference.
func (b *Budget) Resize(from, to int) bool {
	if b == nil {
		return true
	}
	more := int64(max(to-Allowance, 0) - max(from-Allowance, 0))
	if used := b.used.Add(more); more > 0 && used > b.max {
		b.used.Add(-more)
		return false
	}
	return true
}
