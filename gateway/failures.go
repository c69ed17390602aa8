package gateway

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// MaxFailures is how many wrong tokens an address may send at once: more than a person mistypes, and than a handful
	// of clients behind one proxy whose token has expired.
	MaxFailures = 30
	// failureInterval is how soon it may send another one.
	failureInterval = 2 * time.Second
	// MaxFailed bounds the addresses that are remembered. Beyond it one is forgotten, and has all its failures again:
	// who has that many addresses gains little by it, and nobody else loses anything.
	MaxFailed = 1024
)

// tooManyFailures refuses a wrong token of an address that has sent too many.
type tooManyFailures struct {
	wait time.Duration
}

func (e *tooManyFailures) Error() string {
	return fmt.Sprintf("wrong tokens come too often from this address, which all clients behind a proxy share: "+
		"check yours, and try again in %.0f s", e.seconds())
}

func (e *tooManyFailures) seconds() float64 { return math.Ceil(e.wait.Seconds()) }

// RetryLater sets the headers that belong to an error of Authorize: when to try again, if the address has sent too many
// wrong tokens, and that the connection ends.
func RetryLater(header http.Header, err error) {
	var often *tooManyFailures
	if errors.As(err, &often) {
		header.Set("Retry-After", fmt.Sprintf("%.0f", often.seconds()))
		header.Set("Connection", "close")
	}
}

// failures counts wrong tokens by the address that they come from. It decides how a failure is answered, never whether
// a token is checked: a right one passes whatever its neighbours have sent, so nobody behind a NAT or an ingress is
// locked out by another. Guessing needs no such lock: a token file takes no token below 96 bits. What the count saves
// is what failures cost, which is a line of the log each, and a connection for all of them.
//
// An address is that of the TCP connection. X-Forwarded-For is what a client says, unless a proxy is known to have
// written it, and a client that chooses its address has all failures that it wants.
type failures struct {
	mu sync.Mutex
	// Until when all failures of an address are made up for, one each failureInterval
	// (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm).
	until map[netip.Addr]time.Time
}

// add counts a failure. It returns an error if the address has had too many, and how long until it may have another.
func (f *failures) add(remote string) error {
	at, _ := netip.ParseAddrPort(remote) // of a listener without addresses all clients are one
	now, from := time.Now(), networkOf(at.Addr())
	f.mu.Lock()
	defer f.mu.Unlock()
	until, known := f.until[from]
	if until.Before(now) {
		until = now
	}
	until = until.Add(failureInterval)
	if wait := until.Sub(now) - MaxFailures*failureInterval; wait > 0 {
		return &tooManyFailures{wait}
	}
	if !known && len(f.until) >= MaxFailed {
		f.forget(now)
	}
	if f.until == nil {
		f.until = make(map[netip.Addr]time.Time)
	}
	f.until[from] = until
	return nil
}

// forget makes room for an address: it drops those that have nothing to make up for, or else any.
func (f *failures) forget(now time.Time) {
	var last netip.Addr
	for from, made := range f.until {
		last = from
		if made.Before(now) {
			delete(f.until, from)
		}
	}
	if len(f.until) >= MaxFailed {
		delete(f.until, last)
	}
}
