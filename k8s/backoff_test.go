package k8s

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// failure returns the error of an answer.
func failure(code int) error {
	return apierrors.NewGenericServerResponse(code, "get", schema.GroupResource{Resource: "pods"}, "p", "no", 0, false)
}

// retryAfter returns the error of an answer with a Retry-After header.
func retryAfter(seconds int32) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
		Details: &metav1.StatusDetails{RetryAfterSeconds: seconds},
	}}
}

// TestBackoffDelays: how long a kind of request pauses after consecutive failures.
func TestBackoffDelays(t *testing.T) {
	seconds := func(all ...int) (delays []time.Duration) {
		for _, s := range all {
			delays = append(delays, time.Duration(s)*time.Second)
		}
		return delays
	}
	network := errors.New("connection refused")
	for _, c := range []struct {
		name  string
		fails []error
		grace time.Duration // the failures are 10 s apart
		want  []time.Duration
	}{
		{"outage", []error{network, network, network, network, network}, 0, seconds(2, 4, 8, 16, 20)},
		{"server error", []error{failure(500), failure(503)}, 0, seconds(2, 4)},
		{"unauthorized", []error{failure(401)}, 0, seconds(2)},
		{"timeout", []error{failure(408)}, 0, seconds(2)},
		{"conflict", []error{failure(409)}, 0, seconds(2)},
		{"expired", []error{failure(410)}, 0, seconds(2)},
		{"throttled", []error{failure(429)}, 0, seconds(2)},
		{"not found", []error{failure(404)}, 0, seconds(3600)},
		{"forbidden", []error{failure(403), failure(403)}, 0, seconds(3600, 3600)},
		{"forbidden for a while", []error{failure(403), failure(403), failure(403)}, 15 * time.Second, seconds(2, 4, 3600)},
		{
			"forbidden, but not in a row",
			[]error{failure(403), failure(403), network, failure(403), failure(403)},
			15 * time.Second, seconds(2, 4, 8, 16, 20),
		},
		{"told when", []error{retryAfter(30)}, 0, seconds(30)},
		{"told earlier than planned", []error{network, network, retryAfter(1)}, 0, seconds(2, 4, 8)},
		{"told too late", []error{retryAfter(86_400)}, 0, []time.Duration{maxDelay}},
	} {
		b := backoff{log: slog.New(slog.DiscardHandler), max: 20 * time.Second, refusalGrace: c.grace}
		now := time.Now()
		for i, err := range c.fails {
			now = now.Add(10 * time.Second)
			b.failed(now, err)
			if b.delay != c.want[i] {
				t.Errorf("%s: delay %d is %v, want %v", c.name, i, b.delay, c.want[i])
			}
			if b.ready(now.Add(c.want[i]-1)) || !b.ready(now.Add(c.want[i]*3/2)) {
				t.Errorf("%s: after failure %d the next request is due after %v", c.name, i, b.retryAt.Sub(now))
			}
		}
	}
}

// TestBackoffJitter: pods that fail together do not retry together.
func TestBackoffJitter(t *testing.T) {
	now, earliest, latest := time.Now(), time.Duration(1<<62), time.Duration(0)
	for range 1000 {
		b := backoff{log: slog.New(slog.DiscardHandler), max: time.Minute}
		b.failed(now, errors.New("connection refused"))
		earliest, latest = min(earliest, b.retryAt.Sub(now)), max(latest, b.retryAt.Sub(now))
	}
	if earliest > minDelay*11/10 || latest < minDelay*14/10 {
		t.Errorf("a thousand pods retry after %v to %v", earliest, latest)
	}
}

// TestBackoffLog: one line when requests begin to fail, one when they are refused, one when they
// succeed again.
func TestBackoffLog(t *testing.T) {
	var out bytes.Buffer
	b := newReportBackoff("pod events", slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Now()
	for _, step := range []struct {
		err  error // nil: a success
		want string
	}{
		{nil, ""},
		{failure(500), "cannot be reported now"},
		{failure(500), ""},
		{failure(403), "refuses them"},
		{failure(403), ""},
		{nil, "reported again"},
		{nil, ""},
		{failure(403), "refuses them"},
		{failure(500), ""},
		{nil, "reported again"},
	} {
		out.Reset()
		if now = now.Add(time.Second); step.err == nil {
			b.succeeded()
		} else {
			b.failed(now, step.err)
		}
		lines := strings.Count(out.String(), "\n")
		if lines > 1 || (lines == 1) != (step.want != "") || !strings.Contains(out.String(), step.want) {
			t.Errorf("after %v the log says %q, want %q", step.err, &out, step.want)
		}
	}
	b.failed(now, failure(500))
	b.succeeded()
	if b.failed(now, failure(500)); b.delay != minDelay {
		t.Errorf("the first delay after a success is %v", b.delay)
	}
}

// TestBackoffLogOfAStartingServer: refusals that an API server gives while it starts are part of the outage
// that the log has told of. Those that last are told, and so are those that nothing came before.
func TestBackoffLogOfAStartingServer(t *testing.T) {
	var out bytes.Buffer
	b := newReportBackoff("pod events", slog.New(slog.NewTextHandler(&out, nil)))
	b.refusalGrace = time.Minute
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		err   error // nil: a success
		want  string
	}{
		{0, failure(500), "cannot be reported now"},
		{time.Second, failure(403), ""},
		{time.Second, failure(500), ""},
		{time.Second, failure(403), ""},
		{time.Second, nil, "reported again"},
		{time.Second, failure(500), "cannot be reported now"},
		{time.Second, failure(403), ""},
		{time.Minute, failure(403), "refuses them"},
		{time.Minute, failure(403), ""},
		{time.Second, nil, "reported again"},
		{time.Second, failure(403), "refuses them"},
		{time.Minute, failure(403), ""},
	} {
		out.Reset()
		if now = now.Add(step.after); step.err == nil {
			b.succeeded()
		} else {
			b.failed(now, step.err)
		}
		lines := strings.Count(out.String(), "\n")
		if lines > 1 || (lines == 1) != (step.want != "") || !strings.Contains(out.String(), step.want) {
			t.Errorf("%v later, after %v, the log says %q, want %q", step.after, step.err, &out, step.want)
		}
	}
}
