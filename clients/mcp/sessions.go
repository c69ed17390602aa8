package mcp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// caller is who a call is made for. Over stdio there is only one, the zero value.
type caller struct {
	subject       string // owns the sessions; part of the key of the cache, so that no one uses another's connection
	authorization string // the header of the call, for the connections that it makes
	remote        string // address of the client
}

// sessions reaches sessions by their ids. It keeps the connection that a call has used for the next
// one, because a handshake costs up to four round trips.
type sessions struct {
	cfg  *Config
	keep time.Duration // for which an unused connection is kept; 0: as long as the session lives

	mu     sync.Mutex
	known  map[sessionKey]*known
	kept   int // idle connections
	closed bool
	wg     sync.WaitGroup // connections that are being closed
}

type sessionKey struct{ subject, id string }

// known is a session that this process has a resume token for.
type known struct {
	token string
	idle  *troupe.Client // follows nothing; nil: none
	timer *time.Timer    // ends it, and forgets the session
}

func newSessions(cfg *Config, keep time.Duration) *sessions {
	return &sessions{cfg: cfg, keep: keep, known: make(map[sessionKey]*known)}
}

// errNoSession is what a model is told of a session that it cannot use: no answer says whether
// another subject has one of that id.
func errNoSession(id string) error {
	return fmt.Errorf("no session %.80q: it has ended, or was never yours; its commands are gone. Call open_session", id)
}

// open starts a session.
func (s *sessions) open(ctx context.Context, who caller, options wire.SessionOptions) (*troupe.Client, error) {
	opt := s.cfg.Options(who.call())
	options.ResumeWindow = opt.Session.ResumeWindow
	opt.Session = options
	c, err := troupe.Dial(ctx, s.cfg.URL, opt)
	if err != nil {
		return nil, s.cfg.Explain(err)
	}
	s.remember(sessionKey{who.subject, c.ID()}, c.Connected().ResumeToken)
	return c, nil
}

// remember keeps a session's token for a while.
func (s *sessions) remember(key sessionKey, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[key]
	if k == nil {
		k = &known{token: token}
		s.known[key] = k
	}
	s.arm(key, k)
}

// arm begins the time for which k is kept. s.mu is held.
func (s *sessions) arm(key sessionKey, k *known) {
	k.stop()
	if s.keep > 0 {
		k.timer = time.AfterFunc(s.keep, func() { s.expire(key, k) })
	}
}

// take returns a connection of a session that follows no execution. release gives it back.
func (s *sessions) take(ctx context.Context, who caller, id string) (*troupe.Client, error) {
	s.mu.Lock()
	if k := s.known[sessionKey{who.subject, id}]; k != nil && k.idle != nil {
		c := k.idle
		k.idle = nil
		s.kept--
		s.mu.Unlock()
		if c.Err() == nil {
			return c, nil
		}
	} else {
		s.mu.Unlock()
	}
	return s.attach(ctx, who, id, map[string]int64{})
}

// attach makes a connection of a session that follows executions from the given offsets on.
func (s *sessions) attach(
	ctx context.Context, who caller, id string, offsets map[string]int64,
) (*troupe.Client, error) {
	key := sessionKey{who.subject, id}
	s.mu.Lock()
	k := s.known[key]
	s.mu.Unlock()
	if k != nil {
		c, err := troupe.Attach(ctx, s.cfg.URL, id, k.token, offsets, s.cfg.Options(who.call()))
		if err == nil {
			return c, nil
		}
		if !gone(err) {
			return nil, s.cfg.Explain(err)
		}
		s.forget(key)
	}
	if s.cfg.Attach == nil {
		return nil, errNoSession(id)
	}
	token, err := s.cfg.Attach(ctx, who.call(), id)
	if gone(err) {
		return nil, errNoSession(id)
	}
	if err != nil {
		return nil, err
	}
	c, err := troupe.Attach(ctx, s.cfg.URL, id, token, offsets, s.cfg.Options(who.call()))
	if err != nil {
		if gone(err) {
			return nil, errNoSession(id)
		}
		return nil, s.cfg.Explain(err)
	}
	s.remember(key, token)
	return c, nil
}

// gone reports whether err says that a session does not exist.
func gone(err error) bool {
	return errors.Is(err, troupe.ErrNoSession) || errors.Is(err, troupe.ErrSessionLost) ||
		errors.Is(err, troupe.ErrSessionEnded)
}

// release takes a connection back. It is kept if it follows nothing any more, and else ended: the
// session and its commands go on without it.
func (s *sessions) release(who caller, c *troupe.Client) {
	key := sessionKey{who.subject, c.ID()}
	s.mu.Lock()
	k := s.known[key]
	if k != nil {
		s.arm(key, k)
	}
	kept := k != nil && k.idle == nil && !s.closed && c.Err() == nil && (s.cfg.MaxKept == 0 || s.kept < s.cfg.MaxKept)
	if kept && len(c.Executions()) == 0 {
		k.idle = c
		s.kept++
		s.mu.Unlock()
		return
	}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() { // over a network that is down it takes a while
		defer s.wg.Done()
		if kept && s.keep == 0 {
			s.replace(who, key)
		}
		c.Detach()
	}()
}

// replace makes the connection that keeps a session, which would end with its resume window.
func (s *sessions) replace(who caller, key sessionKey) {
	ctx, cancel := context.WithTimeout(context.Background(), troupe.DefaultHandshakeTimeout)
	defer cancel()
	c, err := s.attach(ctx, who, key.id, map[string]int64{})
	if err != nil {
		return // the next call will say so
	}
	s.mu.Lock()
	k := s.known[key]
	kept := k != nil && k.idle == nil && !s.closed
	if kept {
		k.idle = c
		s.kept++
	}
	s.mu.Unlock()
	if !kept {
		c.Detach()
	}
}

// expire ends a connection that was not used for a while, and forgets its session's token.
func (s *sessions) expire(key sessionKey, k *known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[key] == k {
		delete(s.known, key)
		s.detach(k)
	}
}

// forget drops a session that has ended.
func (s *sessions) forget(key sessionKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[key]; k != nil {
		delete(s.known, key)
		s.detach(k)
	}
}

// detach ends the idle connection of k. s.mu is held.
func (s *sessions) detach(k *known) {
	k.stop()
	if c := k.idle; c != nil {
		k.idle = nil
		s.kept--
		s.wg.Go(func() { c.Detach() })
	}
}

func (k *known) stop() {
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
}

// close ends all idle connections. Calls that are under way end theirs themselves.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	for key, k := range s.known {
		delete(s.known, key)
		s.detach(k)
	}
	s.mu.Unlock()
	s.wg.Wait()
}
