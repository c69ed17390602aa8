package actors

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// Every message between actors. Requests are imperative, facts are in the past
// tense. Messages are values and are not changed after they are sent.

// From the gateway to a connection.
type (
	// clientRequest: gateway → connection. Answered by Sink.Reply unless id is empty.
	clientRequest struct {
		id     wire.ID
		params any
	}
	// socketClosed: gateway → connection. The connection tells its session and stops.
	socketClosed struct {
		cause     wire.Cause
		delivered map[string]int64
	}
	// sessionStopped: connection → itself. Its session has stopped, and all that it sent is handled.
	sessionStopped struct{}
)

// From anyone to a connection. Each is passed to the Sink as it is.
type (
	// reply: manager, session, process → connection. The answer to one request.
	reply struct {
		id     wire.ID
		result any
		err    *wire.Error
	}
	// notify: session → connection. A notification for the client.
	notify struct {
		method string
		params any
	}
	// follow: session → connection. Output of an execution, from an offset on.
	follow struct{ feed Feed }
	// disconnect: session, manager → connection. Close the socket once it has been sent what is
	// queued.
	disconnect struct{ cause wire.Cause }
	// attached: session → connection. Requests go to this session from now on.
	attached struct{ session *actor.PID }
)

// resumeOverdue: connection's timer → connection. The client may not have sent resume.
type resumeOverdue struct{}

// To and from the manager.
type (
	// openSession: connection → manager. Answered by the new session with attached and
	// connected, or by the manager with an error reply and disconnect.
	openSession struct {
		asked              time.Time // when the connection came
		subject            string
		conn               *actor.PID
		endsWithConnection bool
		options            wire.SessionOptions
		proxyPod           string // the pod that asks for a client of its own; empty: this one
		mayPlace           bool   // answered with placeElsewhere rather than refused or by an eviction
	}
	// placeElsewhere: manager → connection. There is no room here.
	placeElsewhere struct{}
	// resumeElsewhere: connection → itself. Look again for the pod that owns the session.
	resumeElsewhere struct {
		request clientRequest
		params  *wire.ResumeParams
		until   time.Time
	}
	// linkMessage: a link's end → its connection. Something has happened to a link to another pod.
	linkMessage struct {
		link  *proxyLink
		event linkEvent
	}
	// findSession: connection → manager. Answered with sessionFound, and forwarded to the
	// session as attach; or answered with an error reply and disconnect.
	findSession struct {
		session string
		attach  attach
	}
	// sessionFound: manager → connection. The answer to findSession comes from this session.
	sessionFound struct{ session *actor.PID }
	// sessionEvictable: session → manager. The session is detached, runs nothing, and its
	// client has read everything: it may be evicted.
	sessionEvictable struct {
		session string
		since   time.Time // zero: no longer
	}
	// evict: manager → session. Answered by the session's end or by evictRefused.
	evict struct{}
	// evictRefused: session → manager. Its client came back.
	evictRefused struct{ session string }
	// listSessions: engine → manager. Responded to with []sessionRef.
	listSessions struct{ only string } // empty: all
	// drain: engine → manager, manager → sessions. The server stops: start nothing new.
	drain struct{ deadline time.Time }
	// drainDeadline: manager's timer → manager, manager → sessions. Cancel what still runs.
	drainDeadline struct{}
)

// To a session.
type (
	// attach: manager → session. Answered with a reply to id; on success also attached and follows.
	attach struct {
		conn    *actor.PID
		id      wire.ID
		subject string
		params  wire.ResumeParams
	}
	// request: connection → session. Answered with a reply to id, by the session or the process.
	request struct {
		conn   *actor.PID
		id     wire.ID
		params any
	}
	// askSession: engine → session. Responded to with a queryResult or notAnswered.
	askSession struct{ query *sessionQuery }
	// connectionClosed: connection → session. The socket has closed.
	connectionClosed struct {
		conn  *actor.PID
		cause wire.Cause
	}
	// idleCheck: session's timer → session. It may have been idle for the idle timeout.
	idleCheck struct{}
	// resumeWindowOver: session's timer → session. Ignored unless it is still detached since then.
	resumeWindowOver struct{ since time.Time }
	// readerGone: session's timer → session. Ignored unless the execution has had no reader since then.
	readerGone struct {
		execution string
		since     time.Time
	}
	// closeTimeoutOver: session's timer → session. Clients had their time to read the end, or to
	// come back for it. Ignored if the timer has been set again since.
	closeTimeoutOver struct{ since time.Time }
)

// notAnswered: an actor that stops → who waits for its answer to a request.
type notAnswered struct{}

// sessionRef is what the manager knows of a session.
type sessionRef struct {
	id, subject string
	pid         *actor.PID
}

// From a process to its session.
type (
	// executionStarted: process → session. The command runs.
	executionStarted struct {
		execution string
		pid       int
	}
	// terminalTyped: process → session. The terminal has taken what a connection typed.
	terminalTyped struct {
		execution string
		conn      *actor.PID
	}

	// executionPaused, executionResumed, executionCanceling: process → session. Told to all
	// connections.
	executionPaused    struct{ execution string }
	executionResumed   struct{ execution string }
	executionCanceling struct{ execution string }
	// executionExiting: process → session. The command has exited, its end is near.
	executionExiting struct{ execution string }
	// executionCompleted: process → session. The end is in the transcript. With kept, survivors live
	// on.
	executionCompleted struct {
		execution string
		completed *wire.Completed
		kept      bool
	}
	// survivorsDead: process → session, after executionCompleted with kept. The survivors are dead.
	survivorsDead struct{ execution string }
	// treeReaped: watcher → session. The tree of a failed process actor is dead.
	treeReaped struct{ execution string }
)

// To a process.
type (
	// controlExecution: session → process. Answered with a reply to id on conn.
	controlExecution struct {
		conn *actor.PID
		id   wire.ID
		typ  string
	}
	// writeInput: session → process. Answered on conn when the bytes are in the pipe.
	writeInput struct {
		conn   *actor.PID
		id     wire.ID
		data   []byte
		eof    bool
		offset *int64 // of data, in stdin or, with a writer, in what it typed; nil: behind what came before
		writer string // see wire.InputParams
	}
	// resizeTerminal: session → process. Give its terminal this size.
	resizeTerminal struct{ size proc.Size }
	// signalExecution: session → process. Answered on conn.
	signalExecution struct {
		conn   *actor.PID
		id     wire.ID
		signal string
	}
	// cancelExecution: session → process. Cancel it for this reason.
	cancelExecution struct{ reason wire.Reason }
	// treeEvent: runner → process.
	treeEvent struct{ event proc.Event }
	// streamEnded, streamCaughtUp: reader goroutine → process. End of the pipe, or nothing left
	// in it of what it held when it was asked to catch up.
	streamEnded    struct{ stream int }
	streamCaughtUp struct{ stream int }
	// outputSeen: reader goroutine → process, once: the first byte.
	outputSeen struct{}
	// droppingBegan: reader goroutine → process, once.
	droppingBegan struct{ code string }
	// inputWritten: writer goroutine → process. The first request of the queue is in the pipe, or
	// failed.
	inputWritten struct {
		written int
		err     error
	}
	// silenceCheck, deadlineCheck, graceOver, survivorGraceOver, pipesOverdue: process's timers →
	// process. A time of Limits or of the request may have passed.
	silenceCheck      struct{}
	deadlineCheck     struct{}
	graceOver         struct{}
	survivorGraceOver struct{}
	pipesOverdue      struct{}
)

// linkEvent is something that happens to a link to another pod, at either end: one of the
// following.
type linkEvent interface{ linkEvent() }

type (
	// linkFrame: transport → link. A frame of the link has arrived.
	linkFrame struct {
		frame *relay.Frame
		held  relay.Held // what its output refers to; nil: memory of its own
	}
	// linkPeerLost: cluster → link. The peer is dead, has restarted or does not exist: the link has
	// ended.
	linkPeerLost struct{ cause relay.Ended }
	// linkReconnected: transport → link. The connection to the peer is a new one, so frames may be
	// lost.
	linkReconnected struct{}
	// linkWoken: gateway's writer → proxy, when it has read output; transcript → origin, when there is
	// more.
	linkWoken struct{}
	// linkDue: timer → link. The proxy or origin has something to do.
	linkDue struct{}
)

// free gives the memory of a frame back. Where a frame is dropped instead, Go collects that.
func (e linkFrame) free() {
	if e.held != nil {
		e.held.Free()
	}
}

func (linkFrame) linkEvent()       {}
func (linkPeerLost) linkEvent()    {}
func (linkReconnected) linkEvent() {}
func (linkWoken) linkEvent()       {}
func (linkDue) linkEvent()         {}
