package k8s

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The delays after a failed request.
const (
	// refusedDelay follows a refusal. The answer stays the same until an administrator grants the
	// permission, so retries are rare, but a permission that is granted later still takes effect.
	refusedDelay = time.Hour
	// minDelay and maxDelay bound the growing delays during an outage. At maxDelay, a hundred pods
	// that lost the API server together send twenty requests per minute and kind of report.
	minDelay = 2 * time.Second
	maxDelay = 5 * time.Minute
)

// backoff decides when a kind of request may be retried after a failure. It logs once that requests
// fail and once that they succeed again. It belongs to one goroutine.
//
// The backoffs of client-go v0.37 (util/flowcontrol, util/workqueue) know neither refusals nor
// Retry-After.
type backoff struct {
	messages backoffMessages
	max      time.Duration // of delays after failures that are not refusals
	log      *slog.Logger
	// refusalGrace is how long refusals count as an outage: an API server that is starting refuses
	// every request until it has read the RBAC rules.
	refusalGrace time.Duration

	retryAt      time.Time     // no request before this
	delay        time.Duration // after the last of consecutive failures; 0: the last request succeeded
	refused      bool          // the last answer was a refusal
	refusedSince time.Time     // the first of consecutive refusals
	toldRefusal  bool          // the log has the message refused since the last success
}

// backoffMessages are the log messages, each written once per outage.
type backoffMessages struct{ refused, failed, recovered string }

// newReportBackoff returns the backoff of a kind of report, such as "pod annotations".
func newReportBackoff(what string, log *slog.Logger) backoff {
	return backoff{log: log, max: maxDelay, messages: backoffMessages{
		refused:   what + " are not reported: the API server refuses them",
		failed:    what + " cannot be reported now",
		recovered: what + " are reported again",
	}}
}

// ready reports whether a request may be sent.
func (b *backoff) ready(now time.Time) bool { return !now.Before(b.retryAt) }

func (b *backoff) succeeded() {
	if b.delay > 0 {
		b.log.Info(b.messages.recovered)
	}
	b.delay, b.refused, b.toldRefusal = 0, false, false
}

func (b *backoff) failed(now time.Time, err error) {
	refused := isRefusal(err)
	first := b.delay == 0
	if refused && !b.refused {
		b.refusedSince = now
	}
	b.refused = refused
	lasting := refused && now.Sub(b.refusedSince) >= b.refusalGrace
	if lasting {
		b.delay = refusedDelay
	} else {
		b.delay = min(max(2*b.delay, minDelay), b.max)
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok { // Retry-After
			b.delay = min(max(b.delay, time.Duration(seconds)*time.Second), maxDelay)
		}
	}
	// Adding up to half of the delay keeps pods from retrying in step.
	b.retryAt = now.Add(b.delay + rand.N(b.delay/2))
	switch {
	case refused && !b.toldRefusal && (first || lasting):
		b.toldRefusal = true
		b.log.Warn(b.messages.refused, "err", err, "retry_in", b.delay)
	case first:
		b.log.Warn(b.messages.failed, "err", err, "retry_in", b.delay)
	}
}

// isRefusal reports whether the API server would answer the same request the same way again. It
// would not after 401, because client-go reads the token file again before the next request, nor
// after 410, because a new list gives a watch a newer resource version.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case 401, 408, 409, 410, 429:
		return false
	default:
		return code >= 400 && code < 500
	}
}
