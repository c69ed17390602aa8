// Package turn shares out the processors. What somebody can cause without end, by connecting, by
// sending or by printing, is done in turns, of which there is one less than processors. So the queue
// of runnable goroutines stays short, in which everything else waits at each of its steps, and a
// processor is idle now and then. The Go scheduler looks for network events at once where one is,
// and every 10 ms where none is (findRunnable and sysmon in runtime/proc.go, Go 1.26).
//
// Turns are for all of a process, because its processors are.
package turn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is a kind of work. Those that wait for turns get the same time; whoever waits for one kind
// gets turns in the order in which they came.
type Kind uint8

// The kinds.
const (
	Requests Kind = iota // HTTP of clients
	Admin                // HTTP of probes and collectors
	Messages             // from clients that send much
	Output               // of commands that print much
	Peers                // from pods that send much
	kinds
)

const (
	// While a crowd waits, there is a pause behind each turn: as long as the last one had to wait for
	// a processor after it was given, if that was notable, and no longer than maxPause. What takes no
	// turns then gets the processors that the crowd would take, also from other processes.
	crowd    = 8
	notable  = 100 * time.Microsecond
	maxPause = time.Millisecond
	// A turn that is kept for so long is replaced. Nothing keeps one for more than the decoding of a
	// message; one that was lost would hold up all others for ever.
	patience = time.Second
)

// gate gives turns.
type gate struct {
	most    int
	mu      sync.Mutex
	free    int
	last    time.Time // when a turn was last given
	waiting [kinds][]*Turn
	crowd   int // how many wait
	used    [kinds]time.Duration
	clock   time.Duration // used of the kind that got the last turn: what a kind that did not wait starts with
	late    time.Duration // how long the last turn waited for a processor
}

var all = newGate(Most())

func newGate(turns int) *gate { return &gate{most: turns, free: turns} }

// Most returns how many turns there are.
func Most() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// Turn is that of one goroutine, which gives it back before it waits for anything. The zero value is
// ready for use.
type Turn struct {
	held    atomic.Bool
	kind    Kind
	began   time.Time
	granted chan struct{} // capacity 1; nil until it has waited
}

// Take waits for a turn, unless t has it.
func (t *Turn) Take(k Kind) { t.take(all, k) }

// GiveBack may be called from any goroutine, and without a turn.
func (t *Turn) GiveBack() { t.giveBack(all) }

// Held reports whether t has a turn.
func (t *Turn) Held() bool { return t.held.Load() }

// Pass waits for a turn and gives it back at once. It is for work that may wait in the middle: what
// follows is not done in turns, but begins at their rate.
func (t *Turn) Pass(k Kind) {
	t.Take(k)
	t.GiveBack()
}

func (t *Turn) take(g *gate, k Kind) {
	if t.held.Load() {
		return
	}
	if !g.enter(t, k) {
		g.await(t)
	}
	t.held.Store(true)
}

// await waits until t is given a turn.
func (g *gate) await(t *Turn) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case <-t.granted:
			g.runs(t)
			return
		case <-late.C:
			g.replace()
			late.Reset(patience)
		}
	}
}

// replace gives a turn instead of one that was kept for too long.
func (g *gate) replace() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.last) >= patience {
		g.give()
	}
}

func (t *Turn) giveBack(g *gate) {
	if t.held.CompareAndSwap(true, false) {
		g.leave(t)
	}
}

// enter takes a free turn. If there is none, t is to wait for granted.
func (g *gate) enter(t *Turn, k Kind) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.kind = k
	if g.free > 0 {
		g.free--
		t.began = time.Now()
		g.last = t.began
		return true
	}
	if t.granted == nil {
		t.granted = make(chan struct{}, 1)
	}
	if len(g.waiting[k]) == 0 {
		g.used[k] = max(g.used[k], g.clock)
	}
	g.waiting[k] = append(g.waiting[k], t)
	g.crowd++
	return false
}

// runs notes that t, which was given a turn, has got a processor.
func (g *gate) runs(t *Turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.late = now.Sub(t.began)
	t.began = now
}

// leave passes t's turn on.
func (g *gate) leave(t *Turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used[t.kind] += time.Since(t.began)
	if g.crowd < crowd || g.late < notable {
		g.give()
		return
	}
	time.AfterFunc(min(g.late, maxPause), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.give()
	})
}

// give gives a turn to the kind that has used least, or frees it. Called with mu held.
func (g *gate) give() {
	next := kinds
	for k := range kinds {
		if len(g.waiting[k]) > 0 && (next == kinds || g.used[k] < g.used[next]) {
			next = k
		}
	}
	if next == kinds {
		g.free = min(g.free+1, g.most)
		return
	}
	t := g.waiting[next][0]
	g.waiting[next][0] = nil
	g.waiting[next] = g.waiting[next][1:]
	g.crowd--
	g.clock = g.used[next]
	t.began = time.Now()
	g.last = t.began
	t.granted <- struct{}{}
}
