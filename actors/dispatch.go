package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// dispatcher runs mailboxes on goroutines that are kept for the next one.
// protoactor's own starts a goroutine whenever a mailbox has something to do
// (actor/dispatcher.go in v0.0.0-20240822202345-3c0e61ca19c9), and each of them grows
// its stack again on the way into Receive: a fifth of what BenchmarkExecuteTrue costs.
type dispatcher struct {
	work chan func() // unbuffered: taken by an idle worker, if there is one
	idle chan struct{}
	stop chan struct{}
	once sync.Once
}

var _ actor.Dispatcher = (*dispatcher)(nil)

// maxIdleWorkers is how many goroutines wait for work, each with a stack of some
// KiB: enough for a hundred clients that come at once.
const maxIdleWorkers = 128

func newDispatcher() *dispatcher {
	return &dispatcher{work: make(chan func()), idle: make(chan struct{}, maxIdleWorkers), stop: make(chan struct{})}
}

// Schedule runs f soon. It never waits: without an idle worker there is a new one.
func (d *dispatcher) Schedule(f func()) {
	select {
	case d.work <- f:
	default:
		go d.run(f)
	}
}

// Throughput is how many messages a mailbox handles before it yields.
func (d *dispatcher) Throughput() int { return 300 }

// run is a worker: after its first task it waits for more, if not enough others do.
func (d *dispatcher) run(f func()) {
	for {
		f()
		select {
		case d.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-d.work:
			<-d.idle
		case <-d.stop:
			return
		}
	}
}

// close ends the idle workers. Tasks that come later run on goroutines that end with them.
func (d *dispatcher) close() { d.once.Do(func() { close(d.stop) }) }
