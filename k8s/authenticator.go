package k8s

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// refusedTTL is the longest time for which a refusal is reused. A client that has just been
	// granted the permission, or whose token has not reached every API server yet, waits no longer.
	refusedTTL = 10 * time.Second
	// knownTTL is how long a token that once passed keeps its own rate limit. It is still reviewed
	// again after AuthConfig.Cache.
	knownTTL = time.Hour
	// maxAnswers bounds each of the two caches. A full one takes about 1 MB.
	maxAnswers = 4096
	// reviewTimeout bounds a review, including the wait for its limiter. A client's handshake may
	// take 10 s.
	reviewTimeout = 9 * time.Second
)

// AuthConfig configures an Authenticator.
type AuthConfig struct {
	Client    *Client // required
	Audience  string  // the audience that tokens must have; required
	Namespace string  // the namespace in which clients need the permission; required

	// Cache is how long an answer is reused, and so how long a revoked token stays valid.
	// 0: every connection is reviewed. A refusal is reused for at most 10 s.
	Cache time.Duration
}

// Authenticator identifies a client with a TokenReview and then asks with a SubjectAccessReview
// what it may do: verb create on sessions.troupe.dev in a namespace to open sessions, and others.
type Authenticator struct {
	cfg    AuthConfig
	key    []byte // of digests
	ctx    context.Context
	cancel context.CancelFunc

	calls   singleflight.Group // reviews by digest: concurrent requests for a token and a verb share one
	running sync.WaitGroup     // reviews

	mu      sync.Mutex
	closed  bool
	good    *answerCache // entries are valid for cfg.Cache, and mark a token as known for longer
	refused *answerCache

	// Tokens that passed recently do not queue behind tokens that were never seen: a flood of random
	// tokens delays new clients but not returning ones.
	known, unknown *limiter
}

// NewAuthenticator returns an Authenticator. The caller must Close it.
func NewAuthenticator(cfg AuthConfig) (*Authenticator, error) {
	if cfg.Client == nil || cfg.Audience == "" || cfg.Namespace == "" {
		return nil, errors.New("k8s: AuthConfig.Client, Audience and Namespace are required")
	}
	if cfg.Cache < 0 {
		return nil, fmt.Errorf("k8s: AuthConfig.Cache must not be negative, got %v", cfg.Cache)
	}
	a := &Authenticator{
		cfg: cfg, key: make([]byte, 32),
		good:    newAnswerCache(max(knownTTL, cfg.Cache), maxAnswers),
		refused: newAnswerCache(min(cfg.Cache, refusedTTL), maxAnswers),
		known:   newLimiter(), unknown: newLimiter(),
	}
	rand.Read(a.key) // never fails: https://pkg.go.dev/crypto/rand#Read
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a, nil
}

// Close cancels running reviews. Requests that wait for one fail.
func (a *Authenticator) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.running.Wait()
}

// Authenticate returns the name of the user, who may open sessions. See Authorize.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (subject string, err error) {
	return a.Authorize(ctx, token, sessionVerb)
}

// Authorize returns the name of the user, who has the verb on sessions.troupe.dev. The error is
// ErrBadToken, a *DeniedError, or one that says why there is no answer, such as a failure of the API
// server; only the first two are cached.
// Concurrent requests with the same token and verb share one review. The end of ctx ends only the wait
// for it: the review continues for the others.
func (a *Authenticator) Authorize(ctx context.Context, token, verb string) (subject string, err error) {
	if token == "" {
		return "", ErrBadToken
	}
	id := newDigest(a.key, verb, token)
	if ans, _, ok := a.cached(id); ok {
		return ans.subject, ans.err
	}
	select {
	case result := <-a.calls.DoChan(string(id[:]), func() (any, error) { return a.call(id, token, verb) }):
		if result.Err != nil {
			return "", result.Err
		}
		subject, _ = result.Val.(string)
		return subject, nil
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a review of the token: %w", ctx.Err())
	}
}

// cached returns the answer for a token if it may be reused, and otherwise whether the token is
// known.
func (a *Authenticator) cached(id digest) (ans answer, known, ok bool) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	ans, addedAt, known := a.good.get(now, id)
	if known && now.Sub(addedAt) < a.cfg.Cache {
		return ans, known, true
	}
	ans, _, ok = a.refused.get(now, id)
	return ans, known, ok
}

// call reviews a token within the limits and caches the answer.
func (a *Authenticator) call(id digest, token, verb string) (subject string, err error) {
	// An earlier call may have ended between the caller's look at the cache and this one's start.
	ans, known, ok := a.cached(id)
	if ok {
		return ans.subject, ans.err
	}
	if !a.begin() {
		return "", errClosed
	}
	defer a.running.Done()
	ctx, cancel := context.WithTimeout(a.ctx, reviewTimeout)
	defer cancel()

	limit := a.unknown
	if known {
		limit = a.known
	}
	if err := limit.acquire(ctx); err != nil {
		return "", fmt.Errorf("waiting to review the token: %w", err)
	}
	ans = a.review(ctx, token, verb)
	limit.release()
	a.cache(id, ans)
	return ans.subject, ans.err
}

// begin counts a review that Close has to wait for, unless the Authenticator is closed.
func (a *Authenticator) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.running.Add(1)
	}
	return !a.closed
}

// cache stores an answer. A failure to get one is not cached.
func (a *Authenticator) cache(id digest, ans answer) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case ans.err == nil:
		a.good.put(now, id, ans)
	case isRefused(ans.err):
		a.good.remove(id)
		a.refused.put(now, id, ans)
	}
}

// isRefused distinguishes a refusal from a failure to get an answer.
func isRefused(err error) bool {
	var denied *DeniedError
	return errors.Is(err, ErrBadToken) || errors.As(err, &denied)
}
