package troupe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Execution is one command of the session, followed by its Client. Its methods
// may be called from several goroutines.
type Execution struct {
	c  *Client
	id string

	wake     chan struct{} // capacity 1: something changed for Next
	space    chan struct{} // capacity 1: something was taken from queue
	finished chan struct{} // closed when completed or err is set

	inputTurn   chan struct{} // capacity 1: held by the input that is under way
	inputOffset int64         // bytes sent to stdin; belongs to the holder of inputTurn
	writer      string        // names this Client among those that type into the terminal; "": there is none

	mu     sync.Mutex
	result wire.ExecuteResult

	// Receive state, advanced by the socket's reader; phase also by Discard.
	phase           phase
	offset          int64        // transcript position after the last queued event
	gapRetriedAt    int64        // position at which missing bytes were asked for again; -1: none
	lastWarn        wire.Warning // recognizes a warning that a resumed transcript repeats
	completedQueued bool         // survivors may still write after it

	// Consumer state.
	queue          []Event
	bytes          int   // cost of queue
	delivered      int64 // position after the last event that Next returned
	completedTaken bool  // Next returned the end
	atEnd          error // what Next returns once queue is empty; nil: it waits

	// What the current connection has brought, and what it was told of delivered and completedTaken.
	arrived          int64
	completedArrived bool
	acked            int64
	completedAcked   bool

	// End.
	completed *wire.Completed // set as soon as it is received, for Wait
	err       error           // the session's end
}

func newExecution(c *Client, id string, offset int64) *Execution {
	return &Execution{
		c: c, id: id, offset: offset, delivered: offset, arrived: offset, acked: offset, gapRetriedAt: -1,
		wake:     make(chan struct{}, 1),
		space:    make(chan struct{}, 1),
		finished: make(chan struct{}), inputTurn: make(chan struct{}, 1),
	}
}

// ID returns the execution's id, by which another Client of the session can follow it.
func (e *Execution) ID() string { return e.id }

// Result returns the server's answer to execute. For an attached execution PID and PGID come from
// the answer to resume.
func (e *Execution) Result() wire.ExecuteResult {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.result
}

// Offset returns the transcript position after the last event that Next returned.
func (e *Execution) Offset() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.delivered
}

// Next returns the next event, waiting for it if necessary. After the last one it returns io.EOF,
// which means that all output was delivered except for what a Gap or the counts of Completed
// reported. If the session ended first, it returns what is buffered and then the error that ended
// the session, such as ErrSessionLost. An error of ctx changes nothing.
func (e *Execution) Next(ctx context.Context) (Event, error) {
	for {
		e.mu.Lock()
		if len(e.queue) > 0 {
			ev := e.pop()
			due := e.ackDue()
			last := e.phase == phaseEnded && len(e.queue) == 0
			e.mu.Unlock()
			if due {
				e.c.acknowledge(e)
			}
			if last {
				e.c.forget(e)
			}
			return ev, nil
		}
		if err := e.atEnd; err != nil {
			e.mu.Unlock()
			signal(e.wake) // for the next waiter
			return nil, err
		}
		e.mu.Unlock()
		select {
		case <-e.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pop takes the first event. e.mu is held and queue is not empty.
func (e *Execution) pop() Event {
	ev := e.queue[0]
	e.queue[0] = nil
	e.queue = e.queue[1:]
	e.bytes -= cost(ev)
	if after, ok := span(ev); ok {
		e.delivered = after
	} else if _, ok := ev.(*Completed); ok {
		e.completedTaken = true
	}
	signal(e.space)
	if len(e.queue) > 0 {
		signal(e.wake) // several goroutines may wait
	} else {
		e.queue = nil // let go of the backing array's used part
	}
	return ev
}

// Wait returns once the end of the execution was received or its session has ended. It reads no
// output, and the end comes behind the output: call Next until io.EOF or Discard as well, or a
// command that prints more than Options.Window has no end that Wait could see.
func (e *Execution) Wait(ctx context.Context) (*wire.Completed, error) {
	select {
	case <-e.finished:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.completed != nil {
		done := *e.completed
		return &done, nil
	}
	return nil, e.err
}

// Discard drops the unread output and all further output. Wait still works.
func (e *Execution) Discard() {
	e.mu.Lock()
	e.phase = e.phase.after(stepDiscarded)
	e.atEnd = ErrDiscarded
	e.queue, e.bytes = nil, 0
	e.delivered, e.completedTaken = e.offset, e.completedQueued
	due := e.ackDue()
	ended := e.phase == phaseEnded
	e.mu.Unlock()
	if due {
		e.c.acknowledge(e)
	}
	if ended {
		e.c.forget(e)
	}
	signal(e.space)
	signal(e.wake)
}

// Pause stops the execution's whole process tree and its timers.
func (e *Execution) Pause(ctx context.Context) error { return e.control(ctx, wire.ControlPause) }

// Resume lets a paused execution continue.
func (e *Execution) Resume(ctx context.Context) error { return e.control(ctx, wire.ControlResume) }

// Cancel begins the execution's end: SIGTERM to its whole tree, SIGKILL after the server's grace.
// It does not wait for the end; Wait does. It is safe to repeat, even after the execution has
// ended.
func (e *Execution) Cancel(ctx context.Context) error { return e.control(ctx, wire.ControlCancel) }

func (e *Execution) control(ctx context.Context, kind string) error {
	_, err := e.c.Control(ctx, wire.ControlParams{Type: kind, ExecutionID: e.id})
	return err
}

// Signal sends a signal by name, such as "INT", to the command's process group.
// KILL kills the whole tree.
func (e *Execution) Signal(ctx context.Context, name string) error {
	return e.c.Signal(ctx, wire.SignalParams{ExecutionID: e.id, Signal: name})
}

// Resize says how large this Client's view of the execution's terminal is. The terminal takes the size
// of whoever typed last; a *Resized event says when it has changed. The server forgets the size with
// the connection: say it again after NoticeResumed.
func (e *Execution) Resize(ctx context.Context, cols, rows int) error {
	params := wire.ResizeParams{ExecutionID: e.id, Cols: cols, Rows: rows}
	return e.c.request(ctx, wire.MethodResize, params, nil, retrySafe)
}

// fail ends the execution with its session. Queued events stay readable.
func (e *Execution) fail(err error) {
	e.mu.Lock()
	e.phase = e.phase.after(stepFailed)
	if e.atEnd == nil {
		e.atEnd = err
	}
	if e.err == nil {
		e.err = err
		if e.completed == nil {
			close(e.finished)
		}
	}
	e.mu.Unlock()
	signal(e.space)
	signal(e.wake)
}

// detach ends the execution for this Client and drops what was not read. Another
// Client continues at offset; follow is false if nothing is left to follow.
func (e *Execution) detach() (offset int64, follow bool) {
	e.mu.Lock()
	follow = e.phase != phasePending && !(e.phase == phaseEnded && len(e.queue) == 0)
	offset = e.delivered
	e.queue, e.bytes = nil, 0
	if follow && errors.Is(e.atEnd, io.EOF) {
		e.atEnd = ErrDetached // the events before the end were dropped
	}
	e.mu.Unlock()
	e.fail(ErrDetached)
	return offset, follow
}

// String names the execution in logs and errors.
func (e *Execution) String() string { return fmt.Sprintf("execution %s", e.id) }

// signal sets a capacity-1 channel without blocking.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
