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
	// that lost the API server together are twenty requests a minute at most then, of
	// each kind of report.
	minPause = 2 * time.Second
	maxPause = 5 * time.Minute
)

// gate decides when a kind of report may be tried after it failed, and says in
// the log once that it fails, and once that it works again. It belongs to one
// goroutine.
type gate struct {
	words gateWords
	max   time.Duration // of pauses after failures that are no refusals
	log   *slog.Logger
	// patience is how long a refusal is taken for an outage: an API server that starts
	// refuses everything until it has read who may do what.
	patience time.Duration

	opens   time.Time     // no request before this
	pause   time.Duration // after the last of a series of failures; 0: the last request succeeded
	refused bool          // the last answer was a refusal
	since   time.Time     // of the first of a series of refusals
}

// gateWords are what the log says, each once per outage.
type gateWords struct{ refused, failed, again string }

// reports returns the gate of a kind of report, such as "pod annotations".
func reports(what string, log *slog.Logger) gate {
	return gate{log: log, max: maxPause, words: gateWords{
		refused: what + " are not reported: the API server refuses them",
		failed:  what + " cannot be reported now",
		again:   what + " are reported again",
	}}
}

func (g *gate) open(now time.Time) bool { return !now.Before(g.opens) }

func (g *gate) succeeded() {
	if g.pause > 0 {
		g.log.Info(g.words.again)
	}
	g.pause, g.refused = 0, false
}

func (g *gate) failed(now time.Time, err error) {
	refused := isRefusal(err)
	first := g.pause == 0 || refused && !g.refused
	if refused && !g.refused {
		g.since = now
	}
	g.refused = refused
	if refused && now.Sub(g.since) >= g.patience {
		g.pause = refusedPause
	} else {
		g.pause = min(max(2*g.pause, minPause), g.max)
		if after, ok := apierrors.SuggestsClientDelay(err); ok {
			g.pause = min(max(g.pause, time.Duration(after)*time.Second), maxPause)
		}
	}
	// Up to half of it more, so that pods do not come back in step.
	g.opens = now.Add(g.pause + rand.N(g.pause/2))
	switch {
	case first && refused:
		g.log.Warn(g.words.refused, "err", err, "retry_in", g.pause)
	case first:
		g.log.Warn(g.words.failed, "err", err, "retry_in", g.pause)
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
