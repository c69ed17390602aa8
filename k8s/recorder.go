package k8s

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// repeatInterval is the minimum time between two writes for one reason. A client that reconnects
	// every 5 s to a full pod therefore causes two writes per minute.
	repeatInterval = 30 * time.Second
	// seriesGap ends a series: an occurrence after it becomes a new Event. It is the default of
	// client-go's aggregator (defaultAggregateIntervalInSeconds in tools/record, v0.37).
	seriesGap = 10 * time.Minute
	// flushTimeout bounds Close. The pod is terminating, and its Events are not worth more time.
	flushTimeout = 2 * time.Second
)

// RecorderConfig configures a Recorder.
type RecorderConfig struct {
	Client *Client // required
	Pod    Pod     // required
}

// Recorder writes Events on its own pod. It writes the first occurrence of a reason at once, counts
// repetitions, and writes the count to the same Event at most every 30 s. Pending occurrences need
// no bound: there is one entry per reason. A nil Recorder records nothing.
type Recorder struct {
	cfg     RecorderConfig
	backoff backoff
	series  map[Reason]*series // written; used by run's goroutine only

	mu      sync.Mutex
	pending map[Reason]occurrences // not written yet

	wake   chan struct{} // capacity 1
	stop   chan struct{} // closed by Close
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

// occurrences counts what happened for one reason.
type occurrences struct {
	count       int
	first, last time.Time
	message     string // of the last
}

// merge returns the sum of o and of occurrences that came later.
func (o occurrences) merge(later occurrences) occurrences {
	if o.count == 0 {
		return later
	}
	return occurrences{count: o.count + later.count, first: o.first, last: later.last, message: later.message}
}

// series is an Event that was written and to which repetitions are added.
type series struct {
	name string
	occurrences
	next time.Time // the earliest next write
}

// NewRecorder starts a Recorder. The caller must Close it.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Client == nil {
		return nil, errors.New("k8s: RecorderConfig.Client is required")
	}
	if err := cfg.Pod.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Recorder{
		cfg: cfg, backoff: newReportBackoff("pod events", cfg.Client.log),
		series: make(map[Reason]*series), pending: make(map[Reason]occurrences),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), cancel: cancel, done: make(chan struct{}),
	}
	go r.run(ctx)
	return r, nil
}

// Record adds an occurrence of a reason. It does not block. When several occurrences are written
// together, the Event has the last message.
func (r *Recorder) Record(reason Reason, message string) {
	if r == nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	r.pending[reason] = r.pending[reason].merge(occurrences{count: 1, first: now, last: now, message: message})
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close writes the pending occurrences, unless the last write failed and its retry is not due, and
// returns within 2 s.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.once.Do(func() {
		timeout := time.AfterFunc(flushTimeout, r.cancel)
		defer timeout.Stop()
		close(r.stop)
		<-r.done
		r.cancel()
	})
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	for {
		next := r.write(ctx, false)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-r.wake:
		case <-r.stop:
			timer.Stop()
			r.write(ctx, true)
			return
		}
		timer.Stop()
	}
}

// write writes what is due, the earliest first, and returns when to call it next. On the last call
// everything is due.
func (r *Recorder) write(ctx context.Context, last bool) (next time.Time) {
	next = time.Now().Add(seriesGap) // Record wakes us earlier
	for _, reason := range r.reasons() {
		now := time.Now()
		if !r.backoff.ready(now) {
			return r.backoff.retryAt
		}
		s := r.series[reason]
		if s != nil && !last && now.Before(s.next) {
			next = earlier(next, s.next)
			continue
		}
		o := r.take(reason)
		if err := r.writeOne(ctx, reason, o); err != nil {
			r.putBack(reason, o)
			if ctx.Err() != nil { // Close timed out
				return next
			}
			r.backoff.failed(time.Now(), err)
			return r.backoff.retryAt
		}
		r.backoff.succeeded()
	}
	return next
}

// writeOne adds o to the Event of its series, or creates an Event.
func (r *Recorder) writeOne(ctx context.Context, reason Reason, o occurrences) error {
	c, pod := r.cfg.Client, r.cfg.Pod
	if s := r.series[reason]; s != nil && o.first.Sub(s.last) < seriesGap {
		all := s.merge(o)
		err := c.repeatEvent(ctx, pod, s.name, all)
		if err == nil {
			s.occurrences, s.next = all, time.Now().Add(repeatInterval)
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		// It has expired: kube-apiserver's --event-ttl is 1 h by default.
		delete(r.series, reason)
	}
	name, err := c.createEvent(ctx, pod, reason, o)
	if err != nil {
		return err
	}
	r.series[reason] = &series{name: name, occurrences: o, next: time.Now().Add(repeatInterval)}
	return nil
}

// reasons returns the pending reasons, in the order of their first occurrence.
func (r *Recorder) reasons() []Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Reason, 0, len(r.pending))
	for reason := range r.pending {
		all = append(all, reason)
	}
	slices.SortFunc(all, func(a, b Reason) int { return r.pending[a].first.Compare(r.pending[b].first) })
	return all
}

func (r *Recorder) take(reason Reason) occurrences {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.pending[reason]
	delete(r.pending, reason)
	return o
}

// putBack undoes take. More may have been recorded since.
func (r *Recorder) putBack(reason Reason, o occurrences) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if later, ok := r.pending[reason]; ok {
		o = o.merge(later)
	}
	r.pending[reason] = o
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
