package actors

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// execution is what a session keeps of one command. The process actor owns the
// running of it and reports; the session owns this record. The process actor
// uses the first group of fields, which do not change.
type execution struct {
	id          string
	session     string
	subject     string
	requested   time.Time
	plan        *plan
	tree        Tree
	transcript  *transcript.Transcript
	trace       *executionTrace
	endRecorded atomic.Bool // see Engine.recordEnd
	released    atomic.Bool // see release
	endOverride atomic.Pointer[endOverride]
	readers     sync.WaitGroup // of its pipes
	inputTaken  atomic.Int64   // bytes of stdin that are in its pipe or wait for room there

	pid       *actor.PID // the process actor; nil once it has stopped
	state     wire.State
	command   int // process id of the command, also its group; 0 until it runs
	started   time.Time
	completed *wire.Completed
	dead      bool     // nothing of it lives
	read      progress // by clients that do not follow it any more

	// Of one that retains what is unread: the id of the connection whose acknowledgements let output
	// go, and since when there is none. See session_reader.go.
	reader      string
	readerLost  time.Time
	readerTimer *time.Timer

	recorded time.Time // when its recording was read last

	size *wire.Terminal // of its terminal, now; nil: it has none. See session_terminal.go

	waiting []waiter // requests to be answered when it has started, or not
}

// endOverride is why a session that stops kills the tree, and when. The process actor may be
// the one that reports the end, and would take it for the command's own.
type endOverride struct {
	reason wire.Reason
	at     time.Time
}

// waiter is an execute request that waits for the command to run, or a connection
// that resumed the session meanwhile.
type waiter struct {
	conn     *actor.PID
	id       wire.ID // of execute; not for resumed, which has been answered
	attached bool
	resumed  bool
	window   int64 // of the follower; 0: none
}

func (x *execution) status() wire.ExecutionStatus {
	return wire.ExecutionStatus{
		Terminal: x.size,
		State:    x.state, PID: x.command, PGID: x.command, Offset: x.transcript.End(),
		InputOffset: x.inputTaken.Load(), StartedAt: x.requested.UTC().Format(time.RFC3339Nano), Completed: x.completed,
	}
}

// feed makes the Feed that streams the transcript from an offset.
func (x *execution) feed(after, window int64) Feed {
	t := x.transcript
	return Feed{ExecutionID: x.id, Encoding: x.plan.encoding, Window: window, Open: func(notify func()) (Cursor, error) {
		return t.Cursor(after, notify)
	}}
}

// release counts the execution out, once: before a client can learn that nothing of it lives, since
// the client may start the next one in another session.
func (x *execution) release(e *Engine) {
	if x.released.CompareAndSwap(false, true) {
		e.executions.release(x.subject)
	}
}

// abandon ends a record whose session stops: the tree dies, and the transcript
// is removed, unless a recording of it lingers. For an execution that ended in order the tree is dead already.
func (x *execution) abandon(e *Engine, reason wire.Reason) {
	stopTimer(x.readerTimer)
	x.endOverride.Store(&endOverride{reason, time.Now()})
	x.tree.Kill()
	if !x.dead {
		x.dead = true
		x.release(e)
		e.recordEnd(x, x.started, x.killed(reason))
	}
	if !e.linger(x) {
		e.remove(x)
	}
}

func (e *Engine) remove(x *execution) {
	if err := x.transcript.Remove(); err != nil {
		e.log.Warn("cannot remove a transcript", "session", x.session, "execution", x.id, "err", err)
	}
}

// killed describes the end of an execution that has no process actor to do so.
func (x *execution) killed(reason wire.Reason) *wire.Completed {
	c := &wire.Completed{
		ExecutionID: x.id, Status: wire.StatusFailed, PID: x.command, PGID: x.command,
		ExitCode: -9, Signal: "SIGKILL", Reason: reason,
	}
	if reason == wire.ReasonInternal {
		c.Error = failedInside()
	}
	if !x.started.IsZero() {
		c.ExecutionTime = time.Since(x.started).Seconds()
	}
	x.count(c)
	return c
}

func failedInside() *wire.Error {
	return wire.Errorf(wire.CodeInternal, "the execution failed inside the server; its processes were killed")
}

// count fills in what became of the output.
func (x *execution) count(c *wire.Completed) {
	n := x.transcript.Counts()
	c.OutputBytes, c.DroppedLines, c.DroppedBytes = n.OutputBytes, n.DroppedLines, n.DroppedBytes
	c.TruncatedLines, c.TruncatedBytes = n.TruncatedLines, n.TruncatedBytes
	c.DroppedReason = dropWarning(n.DropReason)
}

// dropWarning returns the code of the warning about dropped output, or nothing if the transcript
// gave none.
func dropWarning(reason transcript.DropReason) string {
	switch reason {
	case transcript.DropLimit:
		return wire.WarnOutputLimit
	case transcript.DropWrite, transcript.DropBudget, transcript.DropOwner:
		return wire.WarnTranscriptWrite
	default:
		return ""
	}
}
