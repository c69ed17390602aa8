package actors

import (
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// A session is in one of these phases. Within serving it is attached or detached,
// as it has connections or not.
//
//	serving ───→ ending ───→ delivering ───→ closing ───→ stopped
//	   │                                        ↑
//	   └────────────────────────────────────────┘
//
// Events move it on. "·" changes nothing, "–" cannot happen.
//
//	                 serving    ending     delivering  closing
//	attach           ·          refused    refused     refused
//	connection lost  ·          ·          ·           ·
//	client done      ending     ·          ·           ·
//	resume expired   ending     –          –           –
//	idle             ending     ·          ·           ·
//	evict            ending     refused    refused     ·
//	drain            ·          ·          ·           ·
//	drain deadline   ending     ·          closing     closing
//	close timeout    ·          ·          closing     stopped
//	failure          stopped    stopped    stopped     stopped
//
// In serving, a lost connection that was the last one detaches the session, and an eviction is
// refused unless it is detached, runs nothing and has no unread end. It is not idle while a connection
// has not acknowledged the end of what it follows. After each message settled looks at what the
// session has, and moves it on again:
//
//	serving    → closing     a drain has begun, nothing lives, and every end is acknowledged, by some
//	                         connection and by each that is attached and follows
//	ending     → delivering  nothing lives
//	delivering → closing     no attached connection follows what it has not acknowledged to the end
//	closing    → stopped     no connection is left
//
// docs/model/session.pml is this machine as a Promela model.
type sessionPhase uint8

const (
	serving    sessionPhase = iota // takes requests
	ending                         // waits for the executions that it has cancelled
	delivering                     // waits for its clients to acknowledge the ends; see deliveryTimer
	closing                        // has told its clients to go
	stopped

	sessionPhases = iota
)

func (p sessionPhase) String() string {
	return [sessionPhases]string{"serving", "ending", "delivering", "closing", "stopped"}[p]
}

// sessionEvent is a row of the first table.
type sessionEvent uint8

const (
	eventAttach sessionEvent = iota
	eventConnectionLost
	eventClientDone // a close request, a delete, or the end of the connection that the session ends with
	eventResumeExpired
	eventIdle
	eventEvict
	eventDrain
	eventDrainDeadline
	eventCloseTimeout
	eventFailure

	sessionEvents = iota
)

// sessionTable is the first table. What is refused or cannot happen changes nothing.
var sessionTable = [sessionEvents][sessionPhases]sessionPhase{
	eventAttach:         {serving, ending, delivering, closing, stopped},
	eventConnectionLost: {serving, ending, delivering, closing, stopped},
	eventClientDone:     {ending, ending, delivering, closing, stopped},
	eventResumeExpired:  {ending, ending, delivering, closing, stopped},
	eventIdle:           {ending, ending, delivering, closing, stopped},
	eventEvict:          {ending, ending, delivering, closing, stopped},
	eventDrain:          {serving, ending, delivering, closing, stopped},
	eventDrainDeadline:  {ending, ending, closing, closing, stopped},
	eventCloseTimeout:   {serving, ending, closing, stopped, stopped},
	eventFailure:        {stopped, stopped, stopped, stopped, stopped},
}

// closeTimeout is how long clients may take to close once they were told to go. Before the drain's
// deadline only those are told that have acknowledged what they follow, or have stopped to. It is
// above the gateway's write timeout, after which a client that does not read is cut off anyway.
const closeTimeout = 12 * time.Second

// session is the actor that owns what one client has: its executions, their
// transcripts, and the connections that follow them. Nothing else changes them.
type session struct {
	engine     *Engine
	id         string
	subject    string
	tokenKey   [32]byte // of resume tokens, which are not kept
	workspace  string   // name of its directories, from its first execution on
	created    time.Time
	connecting time.Time           // when the client of the first connection came
	ephemeral  bool                // ends with its connection
	options    wire.SessionOptions // with its own resume window
	self       *actor.PID

	// Executions.
	executions map[string]*execution
	finished   []string     // ids of dead executions, oldest first
	live       int          // executions that are not dead
	screenRoom atomic.Int64 // what is left of ScreenBytes

	// Connections.
	conns         map[string]*attachedConn // by PID
	lastActivity  time.Time
	detachedSince time.Time // zero: a connection is attached, or the phase is not serving
	idleTimer     *time.Timer
	resumeTimer   *time.Timer

	// The end.
	phase         sessionPhase
	reason        wire.Reason // given to the executions; empty while serving
	cause         wire.Cause
	drainDeadline time.Time // zero: no drain has begun
	drainOver     bool      // the deadline has passed
	closeTimer    *time.Timer
	closeSince    time.Time // when closeTimer was set; see closeTimeoutOver
}

func newSession(e *Engine, id string, open openSession) *session {
	s := &session{
		engine: e, id: id, subject: open.subject, connecting: open.asked, created: time.Now(), lastActivity: time.Now(),
		executions: map[string]*execution{}, conns: map[string]*attachedConn{}, ephemeral: open.endsWithConnection,
		options: open.options,
	}
	s.screenRoom.Store(ScreenBytes)
	s.options.ResumeWindow = e.limits.resumeWindow(open.options.ResumeWindow)
	s.conns[open.conn.Id] = &attachedConn{pid: open.conn, follows: map[string]*following{}}
	return s
}

func (s *session) receive(ctx actor.Context) {
	if _, stopping := ctx.Message().(*actor.Stopping); stopping || s.phase == stopped {
		if ctx.Sender() != nil {
			ctx.Respond(notAnswered{})
		}
		return // see cleanup
	}
	s.handle(ctx)
	s.settle(ctx)
}

func (s *session) handle(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		s.started(ctx)
	case request:
		s.request(ctx, msg)
	case attach:
		s.attach(ctx, msg)
	case connectionClosed:
		s.connectionClosed(ctx, msg)
	case executionStarted:
		s.executionStarted(ctx, msg)
	case terminalTyped:
		s.terminalTyped(ctx, msg)
	case executionPaused:
		s.stateChanged(ctx, msg.execution, wire.StatePaused, wire.MethodPaused, "paused")
	case executionResumed:
		s.stateChanged(ctx, msg.execution, wire.StateRunning, wire.MethodResumed, "resumed")
	case executionCanceling:
		s.stateChanged(ctx, msg.execution, wire.StateCanceling, wire.MethodCanceled, "canceled")
	case executionExiting:
		s.stateChanged(ctx, msg.execution, wire.StateExiting, "", "")
	case executionCompleted:
		s.executionCompleted(ctx, msg)
	case survivorsDead:
		s.executionDead(ctx, msg.execution)
	case treeReaped:
		s.treeReaped(ctx, msg)
	case askSession:
		s.asked(ctx, msg.query)
	case evict:
		s.evict(ctx)
	case drain:
		s.drain(ctx, msg)
	case drainDeadline:
		s.drainOver = true
		s.cancel(ctx, eventDrainDeadline, wire.ReasonDrain, wire.CauseDraining)
	case idleCheck:
		s.idleCheck(ctx)
	case readerGone:
		s.readerGone(ctx, msg)
	case resumeWindowOver:
		if s.detachedSince.Equal(msg.since) {
			s.cancel(ctx, eventResumeExpired, wire.ReasonSessionClosed, causeExpired)
		}
	case closeTimeoutOver:
		if s.closeSince.Equal(msg.since) {
			s.event(ctx, eventCloseTimeout)
		}
	case *actor.Terminated:
		s.terminated(ctx, msg)
	}
}

func (s *session) started(ctx actor.Context) {
	s.self = ctx.Self()
	rand.Read(s.tokenKey[:]) // never fails: see crypto/rand
	s.idleTimer = s.engine.after(s.engine.limits.IdleTimeout, s.self, idleCheck{})
	for _, c := range s.conns {
		ctx.Watch(c.pid)
		ctx.Send(c.pid, attached{session: s.self})
		ctx.Send(c.pid, notify{method: wire.MethodConnected, params: s.connected(s.issueToken())})
	}
	s.engine.metrics.openSeconds.Observe(time.Since(s.connecting).Seconds())
	s.engine.log.Info("session opened", "session", s.id, "subject", s.subject)
}

// removeWorkspace removes the session's directories once its trees are dead.
func (s *session) removeWorkspace() {
	if s.workspace == "" {
		return
	}
	runner, name, done := s.engine.runner, s.workspace, s.engine.runner.OwnerDone(s.id)
	if closed(done) {
		runner.RemoveWorkspace(name)
		return
	}
	go func() {
		<-done
		runner.RemoveWorkspace(name)
	}()
}

// connected is the first message to the client that opens the session.
func (s *session) connected(token string) *wire.Connected {
	_, abi := s.engine.runner.Isolation()
	c := &wire.Connected{
		SessionID: s.id, Version: wire.Version,
		Capabilities: []string{
			wire.CapabilityExecute, wire.CapabilityControl, wire.CapabilityStream, wire.CapabilityInput,
			wire.CapabilitySignal, wire.CapabilityResume, wire.CapabilityAck, wire.CapabilityRetain,
			wire.CapabilityBinary, wire.CapabilityInputOffset, wire.CapabilityTerminal, wire.CapabilityScreen,
		},
		ResumeToken: token, Limits: s.limits(), Pod: s.engine.pod, Containment: s.engine.runner.Containment(),
		Isolation: s.engine.isolation(), IsolationABI: abi, Name: s.options.Name, Labels: s.options.Labels,
	}
	if c.Isolation == wire.IsolationSession {
		c.Capabilities = append(c.Capabilities, wire.CapabilityIsolation)
	}
	return c
}

// limits returns the limits in force for the session.
func (s *session) limits() wire.Limits {
	l := s.engine.limits.Wire()
	l.ResumeWindow = s.options.ResumeWindow.Seconds()
	return l
}

// cancel begins the session's end, unless it has begun. The reason is for its
// executions, the cause for the log and the metrics.
func (s *session) cancel(ctx actor.Context, ev sessionEvent, reason wire.Reason, cause wire.Cause) {
	if s.phase == serving {
		s.reason, s.cause = reason, cause
	}
	s.event(ctx, ev)
}

// event moves the session on by the first table.
func (s *session) event(ctx actor.Context, ev sessionEvent) { s.enter(ctx, sessionTable[ev][s.phase]) }

// settle moves the session on by the second table, until it stays where it is.
func (s *session) settle(ctx actor.Context) {
	for next := s.settled(); next != s.phase; next = s.settled() {
		s.enter(ctx, next)
	}
}

// settled is the second table.
func (s *session) settled() sessionPhase {
	switch s.phase {
	case serving:
		if !s.drainDeadline.IsZero() && s.live == 0 && !s.unread() && !s.awaitsClients() {
			return closing
		}
	case ending:
		if s.live == 0 {
			return delivering
		}
	case delivering:
		if s.drainOver || !s.awaitsClients() {
			return closing
		}
	case closing:
		if len(s.conns) == 0 {
			return stopped
		}
	case stopped:
	}
	return s.phase
}

// enter puts the session into a phase and does what belongs to the way there.
func (s *session) enter(ctx actor.Context, next sessionPhase) {
	was := s.phase
	if next == was {
		return
	}
	s.phase = next
	stopTimer(s.closeTimer)
	if was == serving {
		s.setDetached(time.Time{})
	}
	switch next {
	case serving:
	case ending:
		for _, x := range s.executions {
			if x.pid != nil {
				ctx.Send(x.pid, cancelExecution{reason: s.endReason(x)})
			}
		}
	case delivering:
		s.setCloseTimer(s.options.ResumeWindow)
	case closing:
		if was == serving { // without a cancel: settled saw that a drain has nothing to wait for
			s.reason, s.cause = wire.ReasonDrain, wire.CauseDraining
		}
		s.disconnect(ctx)
	case stopped:
		ctx.Stop(s.self)
	}
}

// disconnect tells the clients to go. All processes are dead and the end of every transcript is
// in it by then, so a connection that reads is sent process.completed before it is closed.
func (s *session) disconnect(ctx actor.Context) {
	cause := wire.CauseSessionEnded
	if s.cause == wire.CauseDraining {
		cause = wire.CauseDraining
	}
	for _, c := range s.conns {
		ctx.Send(c.pid, disconnect{cause: cause})
	}
	s.setCloseTimer(closeTimeout)
}

func (s *session) setCloseTimer(d time.Duration) {
	s.closeSince = time.Now()
	s.closeTimer = s.engine.after(d, s.self, closeTimeoutOver{since: s.closeSince})
}

// Causes of a session's end that are not the end of a connection.
const (
	causeExpired wire.Cause = "expired" // no client came back within the resume window
	causeIdle    wire.Cause = "idle"    // nothing ran for the idle timeout
	causeEvicted wire.Cause = "yielded" // it made room for another; the label's value is older than the name
	causeFailed  wire.Cause = "failed"  // its actor panicked
	causeDeleted wire.Cause = "deleted" // it was ended through the HTTP API
)

// sessionEnds lists the causes with which a session's end is counted.
func sessionEnds() []string {
	ends := []string{
		string(causeExpired),
		string(causeIdle),
		string(causeEvicted),
		string(causeFailed),
		string(causeDeleted),
	}
	for _, c := range wire.Causes() {
		ends = append(ends, string(c))
	}
	return ends
}

// cleanup runs when the actor stops, in order or after a panic. Its process actors
// are stopped after it and kill what they own.
func (s *session) cleanup() {
	s.removeWorkspace()
	s.phase = sessionTable[eventFailure][s.phase]
	for _, t := range []*time.Timer{s.idleTimer, s.resumeTimer, s.closeTimer} {
		stopTimer(t)
	}
	if s.cause == "" {
		told := wire.CauseInternal
		s.reason, s.cause = wire.ReasonInternal, causeFailed
		if s.engine.closing.Load() {
			told = wire.CauseDraining
			s.reason, s.cause = wire.ReasonDrain, wire.CauseDraining
		}
		for _, c := range s.conns {
			s.engine.system.Root.Send(c.pid, disconnect{cause: told})
		}
	}
	s.setDetached(time.Time{})
	s.engine.metrics.ended.WithLabelValues(string(s.cause)).Inc()
	s.engine.log.Info("session ended", "session", s.id, "subject", s.subject, "cause", string(s.cause))
	for _, x := range s.executions {
		x.abandon(s.engine, s.reason)
	}
}

// drain announces that the server stops; settled ends a session in which nothing runs.
func (s *session) drain(ctx actor.Context, msg drain) {
	s.drainDeadline = msg.deadline
	for _, c := range s.conns {
		s.notifyDraining(ctx, c)
	}
	s.event(ctx, eventDrain)
}

func (s *session) notifyDraining(ctx actor.Context, c *attachedConn) {
	left := max(0, time.Until(s.drainDeadline).Seconds())
	ctx.Send(c.pid, notify{method: wire.MethodDraining, params: &wire.Draining{DeadlineSeconds: left}})
}

func (s *session) idleCheck(ctx actor.Context) {
	since := time.Since(s.lastActivity)
	detached := len(s.conns) == 0
	idle := s.live == 0 && !s.awaitsClients() && !(detached && s.unread()) // the resume window is for that
	if idle && since >= s.engine.limits.IdleTimeout {
		s.cancel(ctx, eventIdle, wire.ReasonSessionClosed, causeIdle)
		return
	}
	wait := s.engine.limits.IdleTimeout
	if idle {
		wait -= since
	}
	s.idleTimer = s.engine.after(wait, s.self, idleCheck{})
}

// terminated learns of connections and process actors that have stopped.
func (s *session) terminated(ctx actor.Context, msg *actor.Terminated) {
	if s.conns[msg.Who.Id] != nil {
		// Terminated overtakes what the connection sent before it: handle this in its turn.
		ctx.Send(s.self, connectionClosed{conn: msg.Who, cause: wire.CauseClientGone})
		return
	}
	for id, x := range s.executions {
		if x.pid == nil || !x.pid.Equal(msg.Who) {
			continue
		}
		x.pid = nil
		if !x.dead {
			s.processFailed(id, x)
		}
		return
	}
}

func stopTimer(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}
