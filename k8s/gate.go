package k8s

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The pauses after a report that failed.
const (
	// refusedPause follows a refusal. Asking again changes nothing until somebody grants
	// the permission, so it is rare, and still makes up for one granted later.
	refusedPause = time.Hour
	// minPause and maxPause bound the growing pauses of an outage. A hundred pods
	// that lost the API server together are ten requests a minute then.
	minPause = 2 * time.Second
	maxPause = 5 * time.Minute
)

// gate decides when a kind of report may be tried after it failed, and says in
// the log once that it fails, and once that it works again. It belongs to one
// goroutine.
type gate struct {
	what string // for the log, such as "pod annotations"
	log  *slog.Logger

	opens   time.Time     // no request before this
	pause   time.Duration // after the last of a series of failures; 0: the last request succeeded
	refused bool          // the last answer was a refusal
}

func (g *gate) open(now time.Time) bool { return !now.Before(g.opens) }

func (g *gate) succeeded() {
	if g.pause > 0 {
		g.log.Info(g.what + " are reported again")
	}
	g.pause, g.refused = 0, false
}

func (g *gate) failed(now time.Time, err error) {
	refused := isRefusal(err)
	first := g.pause == 0 || refused && !g.refused
	g.refused = refused
	if refused {
		g.pause = refusedPause
	} else {
		g.pause = min(max(2*g.pause, minPause), maxPause)
		if after, ok := apierrors.SuggestsClientDelay(err); ok {
			g.pause = min(max(g.pause, time.Duration(after)*time.Second), maxPause)
		}
	}
	// Up to half of it more, so that pods do not come back in step.
	g.opens = now.Add(g.pause + rand.N(g.pause/2))
	switch {
	case first && refused:
		g.log.Warn(g.what+" are not reported: the API server refuses them", "err", err, "retry_in", g.pause)
	case first:
		g.log.Warn(g.what+" cannot be reported now", "err", err, "retry_in", g.pause)
	}
}

// isRefusal reports whether the same request would get the same answer again.
// 401 is not one: the next request comes with a token that was read anew.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case 401, 408, 409, 429:
		return false
	default:
		return code >= 400 && code < 500
	}
}
