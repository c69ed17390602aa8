package gateway

import (
	"runtime"
	"sync/atomic"
)

// turns are what a reader needs to handle what it read from a connection that has more, as one that
// is flooded always has. There is one less than processors. Without them, all flooded connections
// are runnable at all times, other clients wait behind them at each step of a request, and as no
// processor is ever idle, the scheduler looks for network events only every 10 ms.
var turns = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))

// turn is that of one reader. It is given back before the reader waits for anything.
type turn struct{ held atomic.Bool }

func (t *turn) take() {
	turns <- struct{}{}
	t.held.Store(true)
}

// giveBack may be called from any goroutine, and without a turn.
func (t *turn) giveBack() {
	if t.held.CompareAndSwap(true, false) {
		<-turns
	}
}
