package relay

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// This file is the world of the simulation: virtual time, pods that crash and stand
// still, and a network that delays, loses and reorders as connections between pods do.

// simFailure is what a broken invariant panics with.
type simFailure string

type event struct {
	at  time.Time
	seq uint64
	run func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// world is one run.
type world struct {
	rng   *rand.Rand
	start time.Time
	now   time.Time
	queue events
	seq   uint64
	trace func(format string, args ...any) // nil unless a seed is replayed

	pods  []*simPod
	users []*user
	wires map[[2]int]*simWire
	upset []upset // what may make a peer seem dead

	window, mostWindow  int // one link has the latter, four have the former each
	maxControl, maxBody int
	counters            Counters
	frames              int // envelopes sent that are no heartbeats
	executed            map[string]bool
	blocked             int                    // how often a command waited for its reader
	connects            map[LinkID]Incarnation // origins that opened a connection
	ends                map[LinkID]Ended       // of origins
	healed              bool
	events              int
}

// upset is a period in which one pod could not hear another. If to is -1, no pod could hear it.
type upset struct {
	from, to   int
	begin, end time.Time
}

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 7)), start: simStart, now: simStart,
		wires: map[[2]int]*simWire{}, executed: map[string]bool{},
		connects: map[LinkID]Incarnation{}, ends: map[LinkID]Ended{},
	}
	w.window = []int{tinyWindow, 2 * tinyWindow, 64 << 10}[w.rng.IntN(3)]
	w.mostWindow = w.window << (2 * w.rng.IntN(2))
	w.maxBody = []int{200, 2000, maxBody}[w.rng.IntN(3)]
	w.maxControl = DefaultMaxControl
	if w.rng.IntN(20) == 0 {
		w.maxControl = 6000
	}
	n := 2 + w.rng.IntN(2)
	for i := range n {
		w.pods = append(w.pods, &simPod{w: w, index: i, name: fmt.Sprintf("pod-%d", i)})
	}
	for i := range n {
		for j := range n {
			w.wires[[2]int{i, j}] = &simWire{w: w, from: i, to: j}
		}
	}
	for _, p := range w.pods {
		p.starts()
	}
	for i := range 1 + w.rng.IntN(3) {
		w.users = append(w.users, newUser(w, i))
	}
	return w
}

func (w *world) failf(format string, args ...any) {
	panic(simFailure(fmt.Sprintf("at %v: ", w.now.Sub(w.start)) + fmt.Sprintf(format, args...)))
}

func (w *world) logf(format string, args ...any) {
	if w.trace != nil {
		w.trace("%10v  "+format, append([]any{w.now.Sub(w.start)}, args...)...)
	}
}

func (w *world) after(d time.Duration, run func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now.Add(d), w.seq, run})
}

// upTo returns a random duration.
func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// run handles events until cond holds or d has passed; it returns whether cond holds.
func (w *world) run(d time.Duration, cond func() bool) bool {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.run()
		if w.events++; w.events > 2_000_000 {
			w.failf("it never ends")
		}
		if cond != nil && cond() {
			return true
		}
	}
	w.now = end
	return cond == nil
}

// simPod is a pod: a table, the ends of links, and an engine.
type simPod struct {
	w           *world
	index       int
	name        string
	incarnation Incarnation
	up          bool
	life        int
	paused      time.Time // until then

	table     *Table
	tableDue  time.Time
	heard     map[Incarnation]time.Time // last, from each life of the others
	misled    []time.Time               // until then, by pod, it may take the last life for over
	proxies   map[LinkID]*simProxy
	origins   map[LinkID]*simOrigin
	sockets   []*socket
	sessions  map[string]*simSession
	opened    int
	mailUntil time.Time
}

func (w *world) random16() (b [16]byte) {
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

func (p *simPod) starts() {
	w := p.w
	p.up, p.incarnation, p.life = true, w.random16(), p.life+1
	p.proxies, p.origins = map[LinkID]*simProxy{}, map[LinkID]*simOrigin{}
	p.sockets, p.sessions, p.paused, p.mailUntil = nil, map[string]*simSession{}, time.Time{}, time.Time{}
	p.tableDue, p.heard, p.misled = time.Time{}, map[Incarnation]time.Time{}, make([]time.Time, 8)
	p.table = NewTable(Self{p.name, p.incarnation}, TableConfig{
		Load:     func() *Heartbeat { return &Heartbeat{Sessions: uint32(len(p.sessions)), MaxSessions: maxSimSessions} },
		Counters: &w.counters,
	})
	var names []string
	for _, q := range w.pods {
		names = append(names, q.name)
	}
	p.handle(p.table.SetPeers(w.now, names))
	p.armTable()
	w.logf("%s starts", p.name)
}

func (w *world) pod(name string) *simPod {
	for _, p := range w.pods {
		if p.name == name {
			return p
		}
	}
	w.failf("no pod %q", name)
	return nil
}

// after runs something in this life of the pod, and not while it stands still.
func (p *simPod) after(d time.Duration, run func()) {
	life := p.life
	var step func()
	step = func() {
		switch {
		case !p.up || p.life != life:
		case p.w.now.Before(p.paused):
			// Its place among others that wait is kept.
			heap.Push(&p.w.queue, event{p.paused, p.w.seq, step})
			p.w.seq++
		default:
			run()
		}
	}
	p.w.after(d, step)
}

// mail runs something in its turn, as an actor does.
func (p *simPod) mail(run func()) {
	at := p.w.now.Add(p.w.upTo(300 * time.Microsecond))
	if at.Before(p.mailUntil) {
		at = p.mailUntil
	}
	p.mailUntil = at
	p.after(at.Sub(p.w.now), run)
}

func (p *simPod) armTable() {
	next := p.table.Next()
	if next.IsZero() || next.Equal(p.tableDue) {
		return
	}
	p.tableDue = next
	p.after(max(0, next.Sub(p.w.now)), func() {
		if p.tableDue.Equal(next) {
			p.tableDue = time.Time{}
			p.handle(p.table.Tick(p.w.now))
			p.armTable()
		}
	})
}

func (p *simPod) crash() {
	w := p.w
	w.logf("%s crashes", p.name)
	p.up = false
	w.upset = append(w.upset, upset{p.index, -1, w.now, w.now.Add(time.Hour)})
	for _, s := range p.sockets {
		s.podDied()
	}
	for _, q := range w.pods {
		if q != p && q.up {
			q.expectLost(p)
		}
	}
	for _, c := range w.sortedWires() {
		if c.from == p.index {
			c.resetWithin(800 * time.Millisecond) // what it sent last may come when it lives again
		}
	}
	down := w.upTo(12 * time.Second)
	if w.chance(40) {
		down = w.upTo(300 * time.Millisecond)
	}
	w.after(down, func() {
		if !p.up {
			p.starts()
		}
	})
}

// expectLost checks that clients attached through this pod learn of the owner's death in time.
func (p *simPod) expectLost(owner *simPod) {
	for _, s := range p.sockets {
		if s.proxy == nil || s.proxy.owner != owner || s.ended() {
			continue
		}
		died, life := p.w.now, owner.incarnation
		var check func()
		check = func() {
			if s.ended() || s.proxy.owner != owner {
				return
			}
			if p.stoodStillSince(died) {
				died = p.w.now
				p.after(5*time.Second, check)
				return
			}
			if heard := p.heard[life]; heard.After(died) { // late
				died = heard
				p.after(died.Add(5*time.Second).Sub(p.w.now), check)
				return
			}
			p.w.failf("%s: a client has not heard for 5 s that %s died", p.name, owner.name)
		}
		p.after(5*time.Second, check)
	}
}

// hears notes which pod an envelope comes from, and whether the pod cannot tell it from a restart:
// it is the first envelope to arrive from an incarnation that is already over.
func (p *simPod) hears(e *Envelope) {
	w, from, incarnation := p.w, p.w.pod(e.GetFrom()), Incarnation(e.GetIncarnation())
	if p.heard[incarnation].IsZero() && incarnation != from.incarnation {
		p.misled[from.index] = w.now.Add(DeadAfter + HeartbeatEvery)
		w.upset = append(w.upset, upset{from.index, p.index, w.now, p.misled[from.index]})
		w.logf("%s hears %s for the first time from a life that is over", p.name, from.name)
	}
	p.heard[incarnation] = w.now
}

func (p *simPod) stoodStillSince(t time.Time) bool {
	for _, u := range p.w.upset {
		if u.from == p.index && u.to == -1 && u.end.After(t) {
			return true
		}
	}
	return false
}

// mayBeDead reports whether owner may seem dead to p: it could not be heard for long in the last
// seconds.
func (w *world) mayBeDead(p, owner *simPod) bool {
	since := w.now.Add(-DeadAfter - 4*time.Second)
	var sum time.Duration
	for _, u := range w.upset {
		if (u.from == owner.index && (u.to == -1 || u.to == p.index)) && u.end.After(since) {
			sum += minTime(u.end, w.now).Sub(maxTime(u.begin, since))
		}
	}
	return sum > 2500*time.Millisecond
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// faults schedules what goes wrong in the first part of a run.
func (w *world) faults(d time.Duration) {
	for range w.rng.IntN(7) {
		w.after(w.upTo(d), func() {
			if w.healed {
				return
			}
			p := w.pods[w.rng.IntN(len(w.pods))]
			q := w.pods[(p.index+1+w.rng.IntN(len(w.pods)-1))%len(w.pods)]
			there, back := w.wires[[2]int{p.index, q.index}], w.wires[[2]int{q.index, p.index}]
			switch w.rng.IntN(10) {
			case 0, 1, 2:
				there.reset()
			case 3, 4:
				there.reset()
				back.reset()
			case 5:
				there.partition(w.upTo(8 * time.Second))
			case 6:
				span := w.upTo(8 * time.Second)
				there.partition(span)
				back.partition(span)
			case 7:
				p.standStill(2 * time.Second)
			case 8:
				p.standStill(w.upTo(8 * time.Second))
			case 9:
				if p.up {
					p.crash()
				}
			}
		})
	}
}

func (p *simPod) standStill(d time.Duration) {
	if !p.up || p.w.now.Before(p.paused) {
		return
	}
	p.w.logf("%s stands still for %v", p.name, d)
	p.paused = p.w.now.Add(d)
	p.w.upset = append(p.w.upset, upset{p.index, -1, p.w.now, p.paused})
}

// heal ends all that is wrong.
func (w *world) heal() {
	w.healed = true
	for _, c := range w.sortedWires() {
		c.cut = w.now
	}
	w.logf("all is well from now on")
	w.after(0, func() {
		for _, p := range w.pods {
			if !p.up {
				p.starts()
			}
		}
	})
}
