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
	// repeatInterval is the least time between two writes for one reason. A client
	// that tries again every 5 s at the ceiling makes two a minute.
	repeatInterval = 30 * time.Second
	// seriesGap ends a series: what happens after it is a new Event. client-go's is as long.
	seriesGap = 10 * time.Minute
	// flushLimit is how long Close may take. The pod is going away, and its Events
	// are worth less than the time.
	flushLimit = 2 * time.Second
)

// RecorderConfig says for whom Events are written.
type RecorderConfig struct {
	Client *Client // required
	Pod    Pod     // required
}

// Recorder writes Events on the own pod. The first of a reason is written at
// once; what repeats is counted and written every 30 s at most, on the same
// Event. What is not written yet is one entry per reason, so that it needs no
// bound. A nil Recorder records nothing.
type Recorder struct {
	cfg    RecorderConfig
	gate   gate
	series map[Reason]*series // written; the goroutine's own

	mu      sync.Mutex
	pending map[Reason]occurrences // not written yet

	wake   chan struct{} // has room for one
	stop   chan struct{} // closed by Close
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

// occurrences are what happened for one reason.
type occurrences struct {
	count       int
	first, last time.Time
	message     string // of the last
}

// and returns both, o having come before later.
func (o occurrences) and(later occurrences) occurrences {
	if o.count == 0 {
		return later
	}
	return occurrences{count: o.count + later.count, first: o.first, last: later.last, message: later.message}
}

// series is an Event that was written and may be written on.
type series struct {
	name string
	occurrences
	next time.Time // the earliest next write
}

// NewRecorder starts a Recorder. The caller ends it with Close.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Client == nil {
		return nil, errors.New("k8s: RecorderConfig.Client is required")
	}
	if err := cfg.Pod.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Recorder{
		cfg: cfg, gate: reports("pod events", cfg.Client.log),
		series: make(map[Reason]*series), pending: make(map[Reason]occurrences),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), cancel: cancel, done: make(chan struct{}),
	}
	go r.run(ctx)
	return r, nil
}

// Record notes that something happened. It does not block. Of several that are
// written together, the last message stands.
func (r *Recorder) Record(reason Reason, message string) {
	if r == nil {
		return
	}
	now := time.Now()
	r.mu.Lock()
	r.pending[reason] = r.pending[reason].and(occurrences{count: 1, first: now, last: now, message: message})
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Close writes what is not written yet, unless the API server has failed before,
// and returns after 2 s at the latest.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.once.Do(func() {
		limit := time.AfterFunc(flushLimit, r.cancel)
		defer limit.Stop()
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

// write writes what is due, in the order in which it happened, and returns when
// to look again. At last everything is due.
func (r *Recorder) write(ctx context.Context, last bool) (next time.Time) {
	next = time.Now().Add(seriesGap) // Record wakes us earlier
	for _, reason := range r.reasons() {
		now := time.Now()
		if !r.gate.open(now) {
			return r.gate.opens
		}
		s := r.series[reason]
		if s != nil && !last && now.Before(s.next) {
			next = earlier(next, s.next)
			continue
		}
		o := r.take(reason)
		if err := r.writeOne(ctx, reason, o); err != nil {
			r.giveBack(reason, o)
			if ctx.Err() != nil { // Close has waited long enough
				return next
			}
			r.gate.failed(time.Now(), err)
			return r.gate.opens
		}
		r.gate.succeeded()
	}
	return next
}

// writeOne counts o on its Event, or makes one.
func (r *Recorder) writeOne(ctx context.Context, reason Reason, o occurrences) error {
	c, pod := r.cfg.Client, r.cfg.Pod
	if s := r.series[reason]; s != nil && o.first.Sub(s.last) < seriesGap {
		all := s.and(o)
		err := c.repeatEvent(ctx, pod, s.name, all)
		if err == nil {
			s.occurrences, s.next = all, time.Now().Add(repeatInterval)
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		delete(r.series, reason) // the API server keeps Events for an hour
	}
	name, err := c.createEvent(ctx, pod, reason, o)
	if err != nil {
		return err
	}
	r.series[reason] = &series{name: name, occurrences: o, next: time.Now().Add(repeatInterval)}
	return nil
}

// reasons returns those with something to write, what happened first before the others.
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

// giveBack undoes take. More may have happened since.
func (r *Recorder) giveBack(reason Reason, o occurrences) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if later, ok := r.pending[reason]; ok {
		o = o.and(later)
	}
	r.pending[reason] = o
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
