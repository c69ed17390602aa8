package k8s

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/util/flowcontrol"
)

const (
	// maxNegative is the longest that a refusal is reused: whoever is given the
	// permission, or whose token was not known to every API server yet, need not wait longer.
	maxNegative = 10 * time.Second
	// acquainted is how long a token that was good is remembered as such. It is not
	// believed for it, only reviewed in a lane of its own.
	acquainted = time.Hour
	// maxAnswers bounds either cache: about 1 MB of memory when full.
	maxAnswers = 4096
	// reviewLimit bounds a review from the request to the answer. A client's handshake has no more than 10 s.
	reviewLimit = 9 * time.Second
)

// The bounds of a lane. Together they let a hundred clients that come at once in,
// and keep one that sends random tokens from troubling the API server, which has
// other clients too.
const (
	laneSlots   = 16  // reviews under way
	laneWaiting = 256 // reviews under way or waiting; beyond, clients are told at once to come again
	laneRate    = 100 // reviews begun in a second, of two requests each at most
	laneBurst   = 200
)

// AuthConfig says what a client has to bring.
type AuthConfig struct {
	Client    *Client // required
	Audience  string  // that the token must be meant for; required
	Namespace string  // in which the client must have the permission; required

	// Cache is how long an answer is reused: a token that was revoked is good for so
	// long. 0: each connection is reviewed. Refusals are reused for 10 s at most.
	Cache time.Duration
}

// Authenticator finds out by a TokenReview who a client is, and by a
// SubjectAccessReview whether it may open sessions: verb create on
// sessions.troupe.dev in a namespace.
type Authenticator struct {
	cfg     AuthConfig
	key     []byte // of digests
	ctx     context.Context
	cancel  context.CancelFunc
	reviews sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	good    *answers // fresh for cfg.Cache, then only known to have been good
	bad     *answers
	flights map[digest]*flight

	// Tokens that were good lately do not wait behind those that were never seen: a
	// flood of random ones keeps newcomers out, but not those who come back.
	known, strangers *lane
}

// flight is one review and all who wait for it.
type flight struct {
	done   chan struct{}
	answer answer // valid once done is closed
}

// lane bounds reviews.
type lane struct {
	waiting int // under Authenticator.mu
	slots   chan struct{}
	rate    flowcontrol.RateLimiter
}

func newLane() *lane {
	return &lane{slots: make(chan struct{}, laneSlots), rate: flowcontrol.NewTokenBucketRateLimiter(laneRate, laneBurst)}
}

// NewAuthenticator makes an Authenticator. The caller ends it with Close.
func NewAuthenticator(cfg AuthConfig) (*Authenticator, error) {
	if cfg.Client == nil || cfg.Audience == "" || cfg.Namespace == "" {
		return nil, errors.New("k8s: AuthConfig.Client, Audience and Namespace are required")
	}
	if cfg.Cache < 0 {
		return nil, fmt.Errorf("k8s: AuthConfig.Cache must not be negative, got %v", cfg.Cache)
	}
	a := &Authenticator{
		cfg: cfg, key: make([]byte, 32), flights: make(map[digest]*flight),
		good:  newAnswers(max(acquainted, cfg.Cache), maxAnswers),
		bad:   newAnswers(min(cfg.Cache, maxNegative), maxAnswers),
		known: newLane(), strangers: newLane(),
	}
	rand.Read(a.key) // never fails: see crypto/rand
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a, nil
}

// Close cuts reviews off. Whoever waits for one gets an error.
func (a *Authenticator) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.reviews.Wait()
}

// Authenticate returns the user's name. The error is ErrBadToken, a *DeniedError,
// or one that says why the question could not be answered, such as the API
// server's; those are not remembered. Requests with the same token share one
// review, which goes on when ctx ends: only the waiting ends then.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (subject string, err error) {
	if token == "" {
		return "", ErrBadToken
	}
	f, ans, err := a.ask(newDigest(a.key, token), token)
	if err != nil {
		return "", err
	}
	if f == nil {
		return ans.subject, ans.err
	}
	select {
	case <-f.done:
		return f.answer.subject, f.answer.err
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a review of the token: %w", ctx.Err())
	}
}

// ask returns an answer that is fresh enough, or else the review to wait for.
func (a *Authenticator) ask(id digest, token string) (*flight, answer, error) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	ans, at, known := a.good.get(now, id)
	if known && now.Sub(at) < a.cfg.Cache {
		return nil, ans, nil
	}
	if ans, _, ok := a.bad.get(now, id); ok {
		return nil, ans, nil
	}
	if f := a.flights[id]; f != nil {
		return f, answer{}, nil
	}
	l := a.strangers
	if known {
		l = a.known
	}
	switch {
	case a.closed:
		return nil, answer{}, errClosed
	case l.waiting >= laneWaiting:
		return nil, answer{}, errBusy
	}
	l.waiting++
	f := &flight{done: make(chan struct{})}
	a.flights[id] = f
	a.reviews.Go(func() { a.fly(f, l, id, token) })
	return f, answer{}, nil
}

// fly makes a review and tells everybody.
func (a *Authenticator) fly(f *flight, l *lane, id digest, token string) {
	ctx, cancel := context.WithTimeout(a.ctx, reviewLimit)
	defer cancel()
	var ans answer
	if err := l.enter(ctx); err != nil {
		ans.err = fmt.Errorf("waiting to review the token: %w", err)
	} else {
		ans = a.review(ctx, token)
		<-l.slots
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	l.waiting--
	delete(a.flights, id)
	switch {
	case ans.err == nil:
		a.bad.remove(id)
		a.good.put(now, id, ans)
	case isRefused(ans.err):
		a.good.remove(id)
		a.bad.put(now, id, ans)
	}
	f.answer = ans
	close(f.done)
}

// enter waits for a slot; who got one gives it back.
func (l *lane) enter(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.rate.Wait(ctx); err != nil {
		<-l.slots
		return err
	}
	return nil
}

// isRefused tells an answer from the lack of one.
func isRefused(err error) bool {
	var denied *DeniedError
	return errors.Is(err, ErrBadToken) || errors.As(err, &denied)
}
