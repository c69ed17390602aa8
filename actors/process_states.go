package actors

import (
	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/wire"
)

// streamState is how far a pipe has been read.
type streamState uint8

const (
	streamOpen   streamState = iota
	streamAtRest             // all has been read that was in the pipe when catchUp was called
	streamAtEnd
)

// processEvent is what changes the state of an execution. SIGTERM begins a cancel, SIGKILL a kill.
//
//	starting ─Started→ running ⇄ paused
//	   │                  │        │
//	   └─── cancel ───────┴────────┴──→ canceling: TERM, grace, KILL
//	                      │                │
//	                   Exited → exiting ←──┘ Exited: read to EOF, kill survivors after SurvivorGrace
//	                      │        │
//	        (on_exit keep)│        └─ Dead and both pipes ended → exited
//	                      └→ kept ─ Dead → exited
//
// processTable has every change of state, the table at the top of process_control.go the
// answers to clients, and next what follows from the output that has been read.
// docs/model/process.pml is this machine as a Promela model.
type processEvent uint8

const (
	commandStarted  processEvent = iota
	treePaused                   // it was asked to, and stands still
	treeResumed                  // likewise
	commandExited                // whatever it left behind
	commandLeftKept              // it exited, and what it left behind is kept
	cancelBegun
	killBegun
	allReported
)

// processTable is the state that each event leads to. An event changes nothing in the states
// that it does not name.
var processTable = [...]map[wire.State]wire.State{
	commandStarted: {wire.StateStarting: wire.StateRunning},
	treePaused:     {wire.StateRunning: wire.StatePaused},
	treeResumed:    {wire.StatePaused: wire.StateRunning},
	commandExited: {
		wire.StateStarting: wire.StateExiting, wire.StateRunning: wire.StateExiting, wire.StatePaused: wire.StateExiting,
		wire.StateCanceling: wire.StateExiting,
	},
	commandLeftKept: {
		wire.StateStarting: wire.StateKept, wire.StateRunning: wire.StateKept, wire.StatePaused: wire.StateKept,
		wire.StateCanceling: wire.StateExiting, // what is cancelled is not kept
	},
	cancelBegun: {
		wire.StateRunning: wire.StateCanceling, wire.StatePaused: wire.StateCanceling, wire.StateKept: wire.StateCanceling,
	},
	killBegun: {
		wire.StateStarting: wire.StateCanceling, wire.StateRunning: wire.StateCanceling,
		wire.StatePaused: wire.StateCanceling, wire.StateExiting: wire.StateCanceling, wire.StateKept: wire.StateCanceling,
	},
	allReported: {
		wire.StateStarting: wire.StateExited, wire.StateRunning: wire.StateExited, wire.StatePaused: wire.StateExited,
		wire.StateCanceling: wire.StateExited, wire.StateExiting: wire.StateExited, wire.StateKept: wire.StateExited,
	},
}

// moved changes the state as the table says, and reports whether it did.
func (p *process) moved(ev processEvent) bool {
	next, ok := processTable[ev][p.state]
	if ok {
		p.state = next
	}
	return ok
}

// processStep is what an execution that ends does next.
type processStep uint8

const (
	stepWait          processStep = iota
	stepComplete                  // nothing lives and everything is read
	stepClosePipes                // something outside of the dead tree holds a pipe
	stepCompleteKept              // the command has exited; what it left behind stays
	stepKillSurvivors             // they hold no pipe any more, so they have nothing to say
)

// next decides by what is dead and what has been read.
func (p *process) next() processStep {
	ended := p.streams[stdout] == streamAtEnd && p.streams[stderr] == streamAtEnd
	read := p.streams[stdout] != streamOpen && p.streams[stderr] != streamOpen
	dead := p.dead != nil
	switch {
	case dead && ended && !p.stdin.writing:
		return stepComplete
	case dead && read && p.pipesOverdue:
		return stepClosePipes
	case p.state == wire.StateKept && read && p.reported == nil:
		return stepCompleteKept
	case p.state == wire.StateExiting && ended:
		return stepKillSurvivors
	}
	return stepWait
}

// advance takes the next step.
func (p *process) advance(ctx actor.Context) {
	switch p.next() {
	case stepWait:
	case stepComplete:
		p.complete(ctx)
	case stepClosePipes:
		for i, o := range p.lines {
			if p.streams[i] != streamAtEnd {
				_ = o.pipe.Close() // ends the reader, which reports the end
			}
		}
	case stepCompleteKept:
		p.completeKept(ctx)
	case stepKillSurvivors:
		p.killSurvivors()
	}
}
