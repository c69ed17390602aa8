package k8s

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// lostGrace is how long a pod that left the EndpointSlices is Undecided before it
	// is Unknown, in which time it may move from one slice to another, or lose its
	// address for a moment. It is as long as a client that resumes is made to wait.
	lostGrace = 3 * time.Second
	// sureFor is how long after the API server was last heard a pod may be called
	// Unknown. Later that needs another list first: a watch may be dead and not know it.
	// It is also the least time between two lists that questions cause.
	sureFor = 5 * time.Second
	// watchFor is the least time a watch is asked for, and half of the longest. At its
	// end all is listed again, so that what a watch missed, or a connection that died
	// silently, is made up for within four minutes.
	watchFor = 2 * time.Minute
	// watchSlack is how long after that a watch may still end by itself.
	watchSlack = 10 * time.Second
	// steady is how long list and watch have to work before they count as working. A watch
	// that ends later than this is begun anew at once, one that ends earlier after a pause.
	steady = 10 * time.Second
	// spread is the longest pause before a new list after a watch that worked. An API
	// server that restarts ends the watches of all pods together.
	spread = time.Second
	// maxMembershipPause bounds the growing pauses of an outage: a hundred pods that
	// lost the API server together are ten requests a second then, and know what is new
	// at most 15 s after it is back.
	maxMembershipPause = 10 * time.Second
	// refusalGrace is how long the permission may be missing before it is asked for
	// each hour only. An API server that restarts refuses for some seconds; installers
	// that grant late do so within the minute.
	refusalGrace = 2 * time.Minute
)

// Knowledge is what a Membership knows of a pod.
type Knowledge int

const (
	// Unknown pods are in no EndpointSlice, and were in none 3 s ago.
	Unknown Knowledge = iota
	// Known pods are, or were when the API server was last heard.
	Known
	// Undecided is what is said of all others: nothing was ever read, or nothing is
	// being read now, or the pod has been missing for less than 3 s.
	Undecided
)

// Member is a pod of the service.
type Member struct {
	Pod  string // its name
	Addr string // host:port of the port that MembershipConfig names
}

// MembershipConfig says of which service.
type MembershipConfig struct {
	Client    *Client // required
	Namespace string  // required
	Service   string  // name of the Service whose EndpointSlices list the pods; required
	Port      string  // name of the port; required
}

func (c *MembershipConfig) validate() error {
	if c.Client == nil || c.Namespace == "" || c.Service == "" || c.Port == "" {
		return errors.New("k8s: MembershipConfig.Client, Namespace, Service and Port are required")
	}
	return nil
}

// Membership follows which pods a Service has, by list and watch of its
// EndpointSlices. Pods that are not ready or that terminate are members: they have
// sessions. What is known outlasts the API server. All methods are safe for
// concurrent use, and none waits for the API server.
type Membership struct {
	cfg     MembershipConfig
	backoff backoff
	cancel  context.CancelFunc
	done    chan struct{}
	doubt   chan struct{} // has room for one: somebody asked what nobody can be sure of

	// The goroutine's own.
	slices map[string]*endpointSlice // by name
	next   time.Time                 // the earliest next list
	noPort bool                      // it was said that no port has the name

	mu      sync.Mutex
	members map[string]string    // addresses by pod; replaced, never changed
	lost    map[string]time.Time // pods that left, and when
	heard   time.Time            // what is known was true then; zero: never

	subscribers sync.Mutex // not taken with mu; held while they are called
	changed     map[*func()]struct{}
}

// NewMembership starts a Membership, which knows nothing yet. The caller ends it with Close.
func NewMembership(cfg MembershipConfig) (*Membership, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Membership{
		cfg: cfg, cancel: cancel, done: make(chan struct{}), doubt: make(chan struct{}, 1),
		backoff: backoff{
			log: cfg.Client.log, max: maxMembershipPause, refusalGrace: refusalGrace,
			messages: backoffMessages{
				refused:   "peers cannot be found: the API server refuses to list and watch EndpointSlices",
				failed:    "peers cannot be followed now, those known stay",
				recovered: "peers are followed again",
			},
		},
		lost: make(map[string]time.Time), changed: make(map[*func()]struct{}),
	}
	cfg.Client.metrics.exportMembership()
	go m.run(ctx)
	return m, nil
}

// Close ends the Membership at once; a request under way is cut off. What it knew it still answers.
func (m *Membership) Close() {
	m.cancel()
	<-m.done
}

// Lookup returns a pod's address, host:port, if it is Known. Of a pod that is
// not, it makes sure: a question that cannot be answered now causes a new list.
func (m *Membership) Lookup(pod string) (addr string, known Knowledge) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr, ok := m.members[pod]; ok {
		return addr, Known
	}
	if m.heard.IsZero() || time.Since(m.heard) > sureFor {
		select {
		case m.doubt <- struct{}{}:
		default:
		}
		return "", Undecided
	}
	if at, ok := m.lost[pod]; ok && time.Since(at) < lostGrace {
		return "", Undecided
	}
	return "", Unknown
}

// Members returns all pods that are Known, by name.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	members := m.members
	m.mu.Unlock()
	all := make([]Member, 0, len(members))
	for _, pod := range slices.Sorted(maps.Keys(members)) {
		all = append(all, Member{Pod: pod, Addr: members[pod]})
	}
	return all
}

// Subscribe has changed called after each change of Members, one call at a time. stop
// waits for a call that is under way, so changed must not call it.
func (m *Membership) Subscribe(changed func()) (stop func()) {
	key := &changed
	m.subscribers.Lock()
	defer m.subscribers.Unlock()
	m.changed[key] = struct{}{}
	return func() {
		m.subscribers.Lock()
		defer m.subscribers.Unlock()
		delete(m.changed, key)
	}
}

// run lists and watches, again and again.
func (m *Membership) run(ctx context.Context) {
	defer close(m.done)
	following := m.cfg.Client.metrics.following
	defer following.Set(0)
	for m.pause(ctx) {
		began := time.Now()
		err := m.follow(ctx)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil: // only to list again, for who asked
			continue
		case now.Sub(began) >= steady && m.backoff.delay == 0:
			m.next = now.Add(rand.N(spread))
		default:
			following.Set(0)
			m.backoff.failed(now, err)
			m.next = m.backoff.retryAt
		}
		m.cfg.Client.log.Debug("peers are listed again", "err", err, "in", m.next.Sub(now))
	}
}

// pause waits for the time of the next list. It returns false if that is never.
func (m *Membership) pause(ctx context.Context) bool {
	timer := time.NewTimer(time.Until(m.next))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// follow lists and then watches, until somebody doubts the answer (no error) or the
// watch ends, which it always does (an error).
func (m *Membership) follow(ctx context.Context) error {
	began := time.Now()
	list, err := m.cfg.Client.listSlices(ctx, m.cfg.Namespace, m.cfg.Service)
	if err != nil {
		return err
	}
	m.slices = make(map[string]*endpointSlice, len(list.Items))
	for _, s := range list.Items {
		m.slices[s.Metadata.Name] = s
	}
	m.apply(began)
	select {
	case <-m.doubt: // answered
	default:
	}
	m.cfg.Client.metrics.following.Set(1)

	lasting := watchFor + rand.N(watchFor)
	ctx, cancel := context.WithTimeout(ctx, lasting+watchSlack)
	defer cancel()
	w, err := m.cfg.Client.watchSlices(ctx, m.cfg.Namespace, m.cfg.Service, list.Metadata.ResourceVersion, lasting)
	if err != nil {
		return err
	}
	defer w.close()
	works := time.NewTimer(steady)
	defer works.Stop()
	for {
		select {
		case e, ok := <-w.events:
			switch {
			case !ok:
				return w.err
			case e.Type == watchDeleted:
				delete(m.slices, e.slice.Metadata.Name)
			case e.slice != nil:
				m.slices[e.slice.Metadata.Name] = e.slice
			}
			m.apply(time.Now())
		case <-works.C:
			m.backoff.succeeded()
		case <-m.doubt:
			return nil
		}
	}
}

// apply makes of the slices what is known, as of a time, and tells subscribers of a change.
func (m *Membership) apply(at time.Time) {
	members, noPort := membersOf(m.slices, m.cfg.Namespace, m.cfg.Port)
	if noPort && !m.noPort {
		m.cfg.Client.log.Warn("peers have no address: the Service has no port of the name", "service", m.cfg.Service, "port", m.cfg.Port)
	}
	m.noPort = noPort
	now := time.Now()

	m.mu.Lock()
	m.heard = at
	for pod, left := range m.lost {
		if members[pod] != "" || now.Sub(left) >= lostGrace {
			delete(m.lost, pod)
		}
	}
	changed := !maps.Equal(members, m.members)
	for pod := range m.members {
		if members[pod] == "" {
			m.lost[pod] = now
		}
	}
	log := m.cfg.Client.log
	if changed && log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("the pods of the service have changed", "before", len(m.members), "now", len(members))
	}
	m.members = members
	m.mu.Unlock()

	if !changed {
		return
	}
	m.cfg.Client.metrics.pods.Set(float64(len(members)))
	m.subscribers.Lock()
	defer m.subscribers.Unlock()
	for f := range m.changed {
		(*f)()
	}
}
