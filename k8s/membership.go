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

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// lostGrace is how long a pod that left the EndpointSlices is Unresolved before it is Unknown.
	// During this time it may move to another slice, or get its address back. A resuming client waits
	// equally long.
	lostGrace = 3 * time.Second
	// maxStaleness is the maximum age of the last news from the API server at which a pod may be
	// called Unknown. If the news is older, another list comes first, because a dead watch may look
	// like a quiet one. It is also the minimum time between two lists that lookups cause.
	maxStaleness = 5 * time.Second
	// minWatchTimeout is the minimum timeout of a watch, and half of the maximum. A list follows each
	// watch, so a change that a watch missed, or that a silently dead connection lost, is noticed
	// within four minutes.
	minWatchTimeout = 2 * time.Minute
	// watchGrace is how long after its timeout the API server may take to end a watch.
	watchGrace = 10 * time.Second
	// minHealthy is how long a watch must last to count as a success. After a success the next list
	// comes at once, otherwise after a delay.
	minHealthy = 10 * time.Second
	// maxJitter bounds the delay before the next list after a success. An API server that restarts
	// ends the watches of all pods at the same time.
	maxJitter = time.Second
	// maxListDelay bounds the growing delays during an outage. At this delay, a hundred pods that lost
	// the API server together send ten requests per second, and learn of new pods within 15 s of its
	// return.
	maxListDelay = 10 * time.Second
	// membershipRefusalGrace is how long the permission may be missing before retries slow down to one
	// per hour. An API server that restarts refuses requests for some seconds; an installer that
	// creates the Role late does so within a minute.
	membershipRefusalGrace = 2 * time.Minute
)

// Knowledge is what a Membership knows about a pod.
type Knowledge int

const (
	// Unknown pods are in no EndpointSlice, and have been in none for 3 s.
	Unknown Knowledge = iota
	// Known pods are in an EndpointSlice, or were at the last news from the API server.
	Known
	// Unresolved pods may or may not exist: there has been no list yet, or no recent news, or the pod
	// left the EndpointSlices less than 3 s ago.
	Unresolved
)

// Member is a pod of the service.
type Member struct {
	Pod  string // its name
	Addr string // host:port of the port that MembershipConfig names
}

// MembershipConfig configures a Membership.
type MembershipConfig struct {
	Client    *Client // required
	Namespace string  // required
	Service   string  // the Service whose EndpointSlices list the pods; required
	Port      string  // the name of the port; required
}

func (c *MembershipConfig) validate() error {
	if c.Client == nil || c.Namespace == "" || c.Service == "" || c.Port == "" {
		return errors.New("k8s: MembershipConfig.Client, Namespace, Service and Port are required")
	}
	return nil
}

// Membership follows the pods of a Service by listing and watching its EndpointSlices. Pods that
// are not ready or are terminating are members, because they have sessions. When the API server is
// down, the last known members stay. All methods are safe for concurrent use and return without
// waiting for the API server, except Subscribe's stop.
type Membership struct {
	cfg    MembershipConfig
	cancel context.CancelFunc
	done   chan struct{}
	resync chan struct{} // capacity 1; asks for a new list

	// Used by run's goroutine only.
	backoff      backoff
	slices       map[string]*discoveryv1.EndpointSlice // by name
	nextList     time.Time                             // the earliest
	warnedNoPort bool                                  // since a slice last had the port

	mu       sync.Mutex
	members  map[string]string    // addresses by pod; replaced, never modified
	lost     map[string]time.Time // when each pod left
	syncedAt time.Time            // members were current then; zero: there has been no list

	subscribersMu sync.Mutex // never locked together with mu; held during calls
	subscribers   map[*func()]struct{}
}

// NewMembership starts a Membership that has no members yet. The caller must Close it.
func NewMembership(cfg MembershipConfig) (*Membership, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Membership{
		cfg: cfg, cancel: cancel, done: make(chan struct{}), resync: make(chan struct{}, 1),
		backoff: backoff{
			log: cfg.Client.log, max: maxListDelay, refusalGrace: membershipRefusalGrace,
			messages: backoffMessages{
				refused:   "peers cannot be found: the API server refuses to list and watch EndpointSlices",
				failed:    "peers cannot be followed now; the last known ones stay",
				recovered: "peers are followed again",
			},
		},
		lost: make(map[string]time.Time), subscribers: make(map[*func()]struct{}),
	}
	cfg.Client.metrics.exportMembership()
	go m.run(ctx)
	return m, nil
}

// Close stops the Membership at once and cancels a running request. The last members remain.
func (m *Membership) Close() {
	m.cancel()
	<-m.done
}

// Lookup returns a pod's address, host:port, if the pod is Known. If the answer would be Unknown,
// but the last news is too old to be sure, it is Unresolved and the EndpointSlices are listed
// again.
func (m *Membership) Lookup(pod string) (addr string, known Knowledge) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr, ok := m.members[pod]; ok {
		return addr, Known
	}
	if m.syncedAt.IsZero() || time.Since(m.syncedAt) > maxStaleness {
		select {
		case m.resync <- struct{}{}:
		default:
		}
		return "", Unresolved
	}
	if at, ok := m.lost[pod]; ok && time.Since(at) < lostGrace {
		return "", Unresolved
	}
	return "", Unknown
}

// Members returns all Known pods, sorted by name.
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

// Subscribe calls changed after each change of Members, one call at a time. stop waits for a call
// in progress, so changed must not call it.
func (m *Membership) Subscribe(changed func()) (stop func()) {
	key := &changed
	m.subscribersMu.Lock()
	defer m.subscribersMu.Unlock()
	m.subscribers[key] = struct{}{}
	return func() {
		m.subscribersMu.Lock()
		defer m.subscribersMu.Unlock()
		delete(m.subscribers, key)
	}
}

// run lists and watches until ctx ends.
func (m *Membership) run(ctx context.Context) {
	defer close(m.done)
	following := m.cfg.Client.metrics.following
	defer following.Set(0)
	for m.wait(ctx) {
		began := time.Now()
		err := m.listAndWatch(ctx)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil: // a lookup asked for a new list
			continue
		case now.Sub(began) >= minHealthy && m.backoff.delay == 0:
			m.nextList = now.Add(rand.N(maxJitter))
		default:
			following.Set(0)
			m.backoff.failed(now, err)
			m.nextList = m.backoff.retryAt
		}
		m.cfg.Client.log.Debug("peers will be listed again", "err", err, "in", m.nextList.Sub(now))
	}
}

// wait waits until the next list is due. It returns false if ctx ends first.
func (m *Membership) wait(ctx context.Context) bool {
	timer := time.NewTimer(time.Until(m.nextList))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// listAndWatch lists the slices and then watches them until a lookup asks for a new list, which
// returns nil, or the watch ends, as every watch does, which returns an error.
func (m *Membership) listAndWatch(ctx context.Context) error {
	c := m.cfg.Client
	began := time.Now()
	list, err := c.listSlices(ctx, m.cfg.Namespace, m.cfg.Service)
	if err != nil {
		return err
	}
	m.slices = make(map[string]*discoveryv1.EndpointSlice, len(list.Items))
	for i := range list.Items {
		m.slices[list.Items[i].Name] = &list.Items[i]
	}
	m.update(began)
	select {
	case <-m.resync: // this list answers it
	default:
	}
	c.metrics.following.Set(1)

	timeout := minWatchTimeout + rand.N(minWatchTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout+watchGrace)
	defer cancel()
	w, err := c.watchSlices(ctx, m.cfg.Namespace, m.cfg.Service, list.ResourceVersion, timeout)
	if err != nil {
		return err
	}
	defer func() {
		w.Stop()
		for range w.ResultChan() { // until its goroutine has ended
		}
	}()
	healthy := time.NewTimer(minHealthy)
	defer healthy.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errWatchEnded
			}
			if err := m.apply(e); err != nil {
				return err
			}
		case <-healthy.C:
			m.backoff.succeeded()
		case <-m.resync:
			return nil
		}
	}
}

// apply applies an event of the watch. An error ends the watch.
func (m *Membership) apply(e watch.Event) error {
	s, err := sliceOf(e)
	if err != nil {
		return err
	}
	switch e.Type {
	case watch.Deleted:
		delete(m.slices, s.Name)
	case watch.Added, watch.Modified:
		m.slices[s.Name] = s
	}
	m.update(time.Now())
	return nil
}

// update computes the members from the slices, which were current at syncedAt, and calls the
// subscribers if the members have changed.
func (m *Membership) update(syncedAt time.Time) {
	log := m.cfg.Client.log
	members, noPort := membersOf(m.slices, m.cfg.Namespace, m.cfg.Port)
	if noPort && !m.warnedNoPort {
		log.Warn("peers have no address: the Service has no port of the name",
			"service", m.cfg.Service, "port", m.cfg.Port)
	}
	m.warnedNoPort = noPort
	now := time.Now()

	m.mu.Lock()
	m.syncedAt = syncedAt
	maps.DeleteFunc(m.lost, func(_ string, at time.Time) bool { return now.Sub(at) >= lostGrace })
	changed := !maps.Equal(members, m.members)
	for pod := range m.members {
		if members[pod] == "" {
			m.lost[pod] = now
		}
	}
	if changed && log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("the pods of the service have changed", "before", len(m.members), "now", len(members))
	}
	m.members = members
	m.mu.Unlock()

	if !changed {
		return
	}
	m.cfg.Client.metrics.pods.Set(float64(len(members)))
	m.subscribersMu.Lock()
	defer m.subscribersMu.Unlock()
	for f := range m.subscribers {
		(*f)()
	}
}
