package actors

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestSessionInEveryPhase sends a session every event in every phase, by the messages that
// bring them, and compares the phase that follows and all that the session then sends.
func TestSessionInEveryPhase(t *testing.T) {
	want := parseCells(t)
	for _, state := range sessionStates {
		for _, ev := range sessionTestEvents {
			t.Run(state.name+"/"+ev.name, func(t *testing.T) {
				cell, ok := want[state.name+" "+ev.name]
				if !ok {
					t.Fatal("the table has no such cell")
				}
				synctest.Test(t, func(t *testing.T) {
					b := newSessionBench(t)
					defer b.stop()
					state.reach(b)
					if got := b.phase(); got != state.phase {
						t.Fatalf("the state is reached in phase %s, want %s", got, state.phase)
					}
					b.effects()
					ev.send(b)
					if got := b.phase().String() + " " + b.effects(); strings.TrimSpace(got) != cell {
						t.Errorf("\n got %s\nwant %s", got, cell)
					}
				})
			})
		}
	}
	if len(want) != len(sessionStates)*len(sessionTestEvents) {
		t.Errorf("the table has %d cells, want %d", len(want), len(sessionStates)*len(sessionTestEvents))
	}
}

// sessionCells has a line for each state and event: the phase that follows, and what is sent. c1
// is the connection that the session began with, c2 another one. bye is disconnect with its cause.
const sessionCells = `
running:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     ending     cancel(session_closed)
    close           ending     c1 answered, c1 canceled, cancel(session_closed)
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        ending     c1 canceled, cancel(drain)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
completed:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     stopped    stop
    close           delivering c1 answered
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        closing    c1 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
acknowledged:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving    evictable
    client_done     stopped    stop
    close           closing    c1 answered, c1 bye(session_ended)
    last_end        serving
    expired         serving
    expired_before  serving
    idle            closing    c1 bye(session_ended)
    evict           serving    evict refused
    drain           closing    c1 bye(draining), c1 draining
    deadline        closing    c1 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
resumed:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     stopped    stop
    close           delivering c1 answered
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        closing    c1 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
other_reads:
    attach          serving    c2 answered, c2 follows, in use
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     serving
    close           delivering c1 answered
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining, c2 draining
    deadline        closing    c1 bye(draining), c2 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), c2 bye(internal), stop
detached_running:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 attached, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     serving
    close           serving
    last_end        serving
    expired         ending     cancel(session_closed)
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving
    deadline        ending     cancel(drain)
    timeout         serving
    timeout_before  serving
    failure         stopped    stop
detached_unread:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 attached, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     serving
    close           serving
    last_end        serving
    expired         stopped    stop
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving
    deadline        stopped    stop
    timeout         serving
    timeout_before  serving
    failure         stopped    stop
detached_read:
    attach          serving    c2 answered, c2 attached, c2 follows, in use
    attach_again    serving    c1 answered, c1 attached, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     serving
    close           serving
    last_end        serving
    expired         stopped    stop
    expired_before  serving
    idle            stopped    stop
    evict           stopped    stop
    drain           stopped    stop
    deadline        stopped    stop
    timeout         serving
    timeout_before  serving
    failure         stopped    stop
ephemeral:
    attach          serving    c2 bye(no_session), c2 refused -32006
    attach_again    serving    c1 answered, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            stopped    stop
    client_done     stopped    stop
    close           delivering c1 answered
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        closing    c1 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
draining:
    attach          serving    c2 answered, c2 attached, c2 draining, c2 follows, in use
    attach_again    serving    c1 answered, c1 draining, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     ending     cancel(session_closed)
    close           ending     c1 answered, c1 canceled, cancel(session_closed)
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        ending     c1 canceled, cancel(drain)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
draining_unread:
    attach          serving    c2 answered, c2 attached, c2 draining, c2 follows, in use
    attach_again    serving    c1 answered, c1 draining, c1 follows, in use
    ack             closing    c1 bye(draining)
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     stopped    stop
    close           delivering c1 answered
    last_end        serving
    expired         serving
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving    c1 draining
    deadline        closing    c1 bye(draining)
    timeout         serving
    timeout_before  serving
    failure         stopped    c1 bye(internal), stop
detached_draining:
    attach          serving    c2 answered, c2 attached, c2 draining, c2 follows, in use
    attach_again    serving    c1 answered, c1 attached, c1 draining, c1 follows, in use
    ack             serving
    ack_of_other    serving
    ack_of_less     serving
    lost            serving
    client_done     serving
    close           serving
    last_end        serving
    expired         stopped    stop
    expired_before  serving
    idle            serving
    evict           serving    evict refused
    drain           serving
    deadline        stopped    stop
    timeout         serving
    timeout_before  serving
    failure         stopped    stop
ending:
    attach          ending     c2 bye(no_session), c2 refused -32006
    attach_again    ending     c1 bye(no_session), c1 refused -32006
    ack             ending
    ack_of_other    ending
    ack_of_less     ending
    lost            ending
    client_done     ending
    close           ending     c1 answered
    last_end        delivering
    expired         ending
    expired_before  ending
    idle            ending
    evict           ending     evict refused
    drain           ending     c1 draining
    deadline        ending
    timeout         ending
    timeout_before  ending
    failure         stopped    stop
delivering:
    attach          delivering c2 bye(no_session), c2 refused -32006
    attach_again    delivering c1 bye(no_session), c1 refused -32006
    ack             delivering
    ack_of_other    closing    c1 bye(session_ended), c2 bye(session_ended)
    ack_of_less     delivering
    lost            delivering
    client_done     delivering
    close           delivering c1 answered
    last_end        delivering
    expired         delivering
    expired_before  delivering
    idle            delivering
    evict           delivering evict refused
    drain           delivering c1 draining, c2 draining
    deadline        closing    c1 bye(session_ended), c2 bye(session_ended)
    timeout         closing    c1 bye(session_ended), c2 bye(session_ended)
    timeout_before  delivering
    failure         stopped    stop
closing:
    attach          closing    c2 bye(no_session), c2 refused -32006
    attach_again    closing    c1 bye(no_session), c1 refused -32006
    ack             closing
    ack_of_other    closing
    ack_of_less     closing
    lost            stopped    stop
    client_done     stopped    stop
    close           closing    c1 answered
    last_end        closing
    expired         closing
    expired_before  closing
    idle            closing
    evict           closing
    drain           closing    c1 draining
    deadline        closing
    timeout         stopped    stop
    timeout_before  closing
    failure         stopped    stop
`

func parseCells(t *testing.T) map[string]string {
	t.Helper()
	cells, state := map[string]string{}, ""
	for line := range strings.Lines(sessionCells) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case name == "":
		case !ok:
			state = strings.TrimSuffix(name, ":")
		default:
			cells[state+" "+name] = strings.Join(strings.Fields(rest), " ")
		}
	}
	return cells
}

// sessionStates are the phases of a session, with what else decides.
var sessionStates = []struct {
	name  string
	phase sessionPhase
	reach func(*sessionBench)
}{
	{"running", serving, func(b *sessionBench) { b.execute() }},
	{"completed", serving, func(b *sessionBench) { b.execute(); b.die() }},
	{"acknowledged", serving, func(b *sessionBench) { b.execute(); b.die(); b.ack("c1") }},
	{"resumed", serving, func(b *sessionBench) { b.execute(); b.die(); b.ack("c1"); b.attach("c1") }},
	{"other_reads", serving, func(b *sessionBench) { b.execute(); b.attach("c2"); b.die(); b.ack("c1") }},
	{"detached_running", serving, func(b *sessionBench) { b.execute(); b.closed(wire.CauseClientGone) }},
	{"detached_unread", serving, func(b *sessionBench) { b.execute(); b.die(); b.closed(wire.CauseClientGone) }},
	{"detached_read", serving, func(b *sessionBench) { b.execute(); b.die(); b.ack("c1"); b.closed(wire.CauseClientGone) }},
	{"ephemeral", serving, func(b *sessionBench) { b.execute(); b.die(); b.do(func() { b.s.ephemeral = true }) }},
	{"draining", serving, func(b *sessionBench) { b.execute(); b.drain() }},
	{"draining_unread", serving, func(b *sessionBench) { b.execute(); b.drain(); b.die() }},
	{"detached_draining", serving, func(b *sessionBench) {
		b.execute()
		b.die()
		b.closed(wire.CauseClientGone)
		b.drain()
	}},
	{"ending", ending, func(b *sessionBench) { b.execute(); b.request(&wire.CloseParams{}) }},
	{"delivering", delivering, func(b *sessionBench) {
		b.execute()
		b.attach("c2")
		b.die()
		b.ack("c1")
		b.request(&wire.CloseParams{})
	}},
	{"closing", closing, func(b *sessionBench) { b.execute(); b.die(); b.ack("c1"); b.request(&wire.CloseParams{}) }},
}

// sessionTestEvents are the rows of the table, and the end of the last execution.
var sessionTestEvents = []struct {
	name string
	send func(*sessionBench)
}{
	{"attach", func(b *sessionBench) { b.attach("c2") }},
	{"attach_again", func(b *sessionBench) { b.attach("c1") }},
	{"ack", func(b *sessionBench) { b.ack("c1") }},
	{"ack_of_other", func(b *sessionBench) { b.ack("c2") }},
	{"ack_of_less", func(b *sessionBench) {
		b.tell(request{conn: b.conns["c1"], params: &wire.AckParams{ExecutionID: "x"}})
	}},
	{"lost", func(b *sessionBench) { b.closed(wire.CauseClientGone) }},
	{"client_done", func(b *sessionBench) { b.closed(wire.CauseClientDone) }},
	{"close", func(b *sessionBench) { b.request(&wire.CloseParams{}) }},
	{"last_end", func(b *sessionBench) { b.die() }},
	{"expired", func(b *sessionBench) {
		b.do(func() {
			if !b.s.detachedSince.IsZero() {
				b.tell(resumeWindowOver{since: b.s.detachedSince})
			}
		})
	}},
	{"expired_before", func(b *sessionBench) { b.tell(resumeWindowOver{since: time.Now().Add(-time.Hour)}) }},
	{"idle", func(b *sessionBench) {
		b.do(func() { b.s.lastActivity = time.Now().Add(-b.h.limits.IdleTimeout) })
		b.tell(idleCheck{})
	}},
	{"evict", func(b *sessionBench) { b.tell(evict{}) }},
	{"drain", func(b *sessionBench) { b.drain() }},
	{"deadline", func(b *sessionBench) { b.tell(drainDeadline{}) }},
	{"timeout", func(b *sessionBench) { b.do(func() { b.tell(closeTimeoutOver{since: b.s.closeSince}) }) }},
	{"timeout_before", func(b *sessionBench) { b.tell(closeTimeoutOver{since: time.Now().Add(-time.Hour)}) }},
	{"failure", func(b *sessionBench) { b.do(func() { panic("injected") }) }},
}

// sessionBench is a session without a manager and without real connections.
type sessionBench struct {
	t     *testing.T
	h     *harness
	s     *session
	pid   *actor.PID
	conns map[string]*actor.PID
	token string

	mu   sync.Mutex
	sent []string
}

func newSessionBench(t *testing.T) *sessionBench {
	b := &sessionBench{t: t, conns: map[string]*actor.PID{}}
	b.h = newHarness(t, newFakeRunner(func(tree *fakeTree) { tree.run() }), nil, b.probe)
	for _, name := range []string{"c1", "c2"} {
		b.conns[name] = b.h.system.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
			b.toConnection(name,
				ctx.Message())
		}))
	}
	b.s = newSession(b.h.Engine, "pod-0.s", openSession{subject: "alice", conn: b.conns["c1"]})
	b.pid = b.h.system.Root.Spawn(b.h.props("session", func(ctx actor.Context) {
		if f, ok := ctx.Message().(func()); ok {
			f()
			return
		}
		b.s.receive(ctx)
	}, b.s.cleanup))
	synctest.Wait()
	return b
}

func (b *sessionBench) stop() {
	_ = b.h.system.Root.StopFuture(b.pid).Wait()
	for _, c := range b.conns {
		_ = b.h.system.Root.StopFuture(c).Wait()
	}
	if tree := b.h.runner.tree("x"); tree != nil {
		tree.die(proc.Dead{})
	}
	synctest.Wait()
	b.h.stop(b.t)
}

func (b *sessionBench) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, fmt.Sprintf(format, args...))
}

// effects returns what was sent since the last call.
func (b *sessionBench) effects() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.sent
	b.sent = nil
	slices.Sort(sent) // messages to different actors have no order
	return strings.Join(sent, ", ")
}

func (b *sessionBench) toConnection(name string, msg any) {
	switch m := msg.(type) {
	case attached:
		b.note("%s attached", name)
	case reply:
		if m.err != nil {
			b.note("%s refused %d", name, m.err.Code)
		} else {
			b.note("%s answered", name)
		}
	case notify:
		if c, ok := m.params.(*wire.Connected); ok {
			b.token = c.ResumeToken
		}
		_, method, _ := strings.Cut(m.method, ".")
		b.note("%s %s", name, method)
	case follow:
		b.note("%s follows", name)
	case disconnect:
		b.note("%s bye(%s)", name, m.cause)
	}
}

func (b *sessionBench) probe(kind string, msg any) {
	switch m := msg.(type) {
	case sessionEvictable:
		if m.since.IsZero() {
			b.note("in use")
		} else {
			b.note("evictable")
		}
	case evictRefused:
		b.note("evict refused")
	case cancelExecution:
		b.note("cancel(%s)", m.reason)
	case *actor.Stopping:
		if kind == "session" {
			b.note("stop")
		}
	}
}

func (b *sessionBench) tell(msg any) { b.h.system.Root.Send(b.pid, msg) }

// do runs f in the session's actor, and waits for what follows.
func (b *sessionBench) do(f func()) {
	b.tell(f)
	synctest.Wait()
}

func (b *sessionBench) phase() sessionPhase {
	synctest.Wait()
	return b.s.phase // its actor is idle
}

func (b *sessionBench) request(params any) {
	b.tell(request{conn: b.conns["c1"], id: wire.ID("1"), params: params})
	synctest.Wait()
}

// execute starts a command that runs until die is called.
func (b *sessionBench) execute() {
	b.request(&wire.ExecuteParams{ExecutionID: "x", Command: "true"})
	b.h.runner.tree("x").stubborn = true
}

func (b *sessionBench) die() {
	if tree := b.h.runner.tree("x"); tree != nil {
		tree.exit(0)
	}
	synctest.Wait()
}

func (b *sessionBench) closed(cause wire.Cause) {
	b.tell(connectionClosed{conn: b.conns["c1"], cause: cause})
	synctest.Wait()
}

// ack acknowledges all output and the end.
func (b *sessionBench) ack(name string) {
	b.tell(request{conn: b.conns[name], params: &wire.AckParams{ExecutionID: "x", Completed: true}})
	synctest.Wait()
}

func (b *sessionBench) attach(name string) {
	b.tell(attach{
		conn: b.conns[name], id: wire.ID("2"), subject: "alice",
		params: wire.ResumeParams{ResumeToken: b.token},
	})
	synctest.Wait()
}

func (b *sessionBench) drain() {
	b.tell(drain{deadline: time.Now().Add(time.Minute)})
	synctest.Wait()
}
