package actors

import (
	"sync"
	"time"
)

// lingerTime is how long a recording that is followed outlasts its session: whoever follows it looks for more twice a
// second, and would miss what a shell prints at its end, because troupe ends the session at once.
const lingerTime = 2 * time.Second

// lingering are the executions of sessions that have ended whose recordings were read a moment ago.
type lingering struct {
	mu  sync.Mutex
	all map[[2]string]*lingerer // by session and execution
}

type lingerer struct {
	x     *execution
	timer *time.Timer
}

// linger removes the transcript of x later, if its recording is being followed, and reports whether it will. Nothing
// of x may live.
func (e *Engine) linger(x *execution) bool {
	if x.completed == nil || time.Since(x.recorded) > lingerTime {
		return false
	}
	l := &e.lingering
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.closing.Load() {
		return false
	}
	if l.all == nil {
		l.all = make(map[[2]string]*lingerer)
	}
	key := [2]string{x.session, x.id}
	l.all[key] = &lingerer{x, time.AfterFunc(lingerTime, func() { e.forgetLingering(key) })}
	return true
}

func (e *Engine) forgetLingering(key [2]string) {
	l := &e.lingering
	l.mu.Lock()
	gone := l.all[key]
	delete(l.all, key)
	l.mu.Unlock()
	if gone != nil {
		gone.timer.Stop()
		e.remove(gone.x)
	}
}

// stopLingering removes what lingers. Nothing does afterwards.
func (e *Engine) stopLingering() {
	l := &e.lingering
	l.mu.Lock()
	keys := make([][2]string, 0, len(l.all))
	for key := range l.all {
		keys = append(keys, key)
	}
	l.mu.Unlock()
	for _, key := range keys {
		e.forgetLingering(key)
	}
}

// lingeringRecording answers a query for the recording of a session that has ended.
func (e *Engine) lingeringRecording(q *sessionQuery) queryResult {
	l := &e.lingering
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.all[[2]string{q.Session, q.Output.Execution}]
	if found == nil || !q.All && found.x.subject != string(q.Subject) {
		return queryResult{Error: queryNoSession}
	}
	return found.x.recording(q)
}
