package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// hasSessions is a check for eventually: the pod that the ingress leads to has n sessions.
func (r *release) hasSessions(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		status, body, err := r.get(ctx, "/health")
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("/health: %d %q, %w", status, body, err)
		}
		var health struct {
			Active int `json:"active_sessions"`
		}
		if err := json.Unmarshal([]byte(body), &health); err != nil {
			return err
		}
		if health.Active != n {
			return fmt.Errorf("%d sessions, want %d", health.Active, n)
		}
		return nil
	}
}

// attempt is one of many clients that come at once.
type attempt struct {
	conn *raw   // nil when it was refused
	pod  string // where the session is
	err  error
}

// TestHundredSessionsAndNotOneMore: 105 clients come at once through the
// ingress. Protects from: a ceiling that is off by one under load, a refusal
// without its code, a close that a client cannot tell from a failure, a slot
// that is not freed, and an operator who is not told.
func TestHundredSessionsAndNotOneMore(t *testing.T) {
	const clients = ceiling + 5
	r := suite.shared
	pod := r.pod(t)
	eventually(t, time.Minute, "the sessions of earlier tests are gone", r.hasSessions(0))

	accepted, refused := r.storm(t, clients)
	if len(accepted) != ceiling || len(refused) != clients-ceiling {
		t.Fatalf("%d accepted and %d refused of %d, want %d and %d", len(accepted), len(refused), clients, ceiling,
			clients-ceiling)
	}
	for _, err := range refused {
		if err := isRefusal(err); err != nil {
			t.Error(err)
		}
	}
	eventOn(t, pod, "SessionLimitReached")
	if err := r.hasSessions(ceiling)(t.Context()); err != nil {
		t.Error(err)
	}

	for _, c := range accepted[:3] {
		if err := c.done(); err != nil {
			t.Fatal(err)
		}
	}
	// A slot is free when its session's processes are dead, which is after the close.
	eventually(t, 30*time.Second, "three slots are free", r.hasSessions(ceiling-3))
	again, refusedAgain := r.storm(t, 4)
	if len(again) != 3 || len(refusedAgain) != 1 {
		t.Errorf("after 3 sessions ended, %d of 4 new clients were accepted, want 3", len(again))
	}
	for _, c := range append(accepted[3:], again...) {
		_ = c.done() // as many as possible: the count below decides
	}
	eventually(t, time.Minute, "all slots are free", r.hasSessions(0))
	r.works(t)
}

// storm opens n sessions at once and returns those that were accepted, and how the others were
// refused.
func (r *release) storm(t *testing.T, n int) (accepted []*raw, refused []error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	attempts := make([]attempt, n)
	var wg sync.WaitGroup
	for i := range attempts {
		wg.Go(func() { attempts[i] = r.attempt(ctx, throughIngress) })
	}
	wg.Wait()
	for _, a := range attempts {
		if a.err != nil {
			refused = append(refused, a.err)
			continue
		}
		accepted = append(accepted, a.conn)
		t.Cleanup(func() { _ = a.conn.ws.CloseNow() })
	}
	return accepted, refused
}

// attempt opens a session. A refusal is read to its end: the error, then the close.
func (r *release) attempt(ctx context.Context, dial dialer) attempt {
	c, status, err := r.dialRaw(ctx, dial)
	if err != nil {
		return attempt{err: fmt.Errorf("handshake, status %d: %w", status, err)}
	}
	m, err := c.next(ctx)
	if err == nil && m.Method == wire.MethodConnected {
		var greeting wire.Connected
		if err = json.Unmarshal(m.Params, &greeting); err == nil {
			return attempt{conn: c, pod: greeting.Pod}
		}
	}
	if err == nil && m.Err != nil {
		_, end := c.next(ctx)
		err = errors.Join(m.Err, end)
	}
	_ = c.ws.CloseNow()
	return attempt{err: errors.Join(errors.New("no session"), err)}
}

// isRefusal checks that a client at the ceiling was told -32001, when to come back, and closed with
// 1013.
func isRefusal(err error) error {
	var refusal *wire.Error
	if !errors.As(err, &refusal) || refusal.Code != wire.CodeSessionLimit {
		return fmt.Errorf("refused with %w, want %d", err, wire.CodeSessionLimit)
	}
	if refusal.Data == nil || refusal.Data.Value != ceiling || refusal.Data.RetryAfterSeconds <= 0 {
		return fmt.Errorf("the refusal's data is %s, want the limit and when to retry", compact(refusal.Data))
	}
	if closeCode(err) != wire.CauseSessionLimit.Code() {
		return fmt.Errorf("after the refusal came %w, want close code 1013", err)
	}
	return nil
}
