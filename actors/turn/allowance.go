package turn

import "time"

const (
	// AllowedBytes is what an Allowance covers in each AllowedPeriod.
	AllowedBytes  = 64 << 10
	AllowedPeriod = 100 * time.Millisecond
	// perRead is what a read counts for beside its bytes.
	perRead = 1 << 10
)

// Allowance is what may be read from one place without turns, so that those who send or print little
// wait for none: 64 KiB and 64 reads in each 100 ms. It is for one goroutine at a time. The zero
// value is ready for use.
type Allowance struct {
	began time.Time
	spent int
}

// Exceeds notes that n bytes were read, and reports whether that is more than the allowance.
func (a *Allowance) Exceeds(n int) bool {
	if now := time.Now(); now.Sub(a.began) >= AllowedPeriod {
		a.began, a.spent = now, 0
	}
	a.spent += perRead + n
	return a.spent > AllowedBytes
}
