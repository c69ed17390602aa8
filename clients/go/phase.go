package troupe

// phase is the state of an Execution's receiving side: it decides what happens to its messages.
//
//	pending ──answered──► receiving ──completed──► ended
//	   └──────discarded──────►┴──► discarding ──completed──► ended
//
// Every phase but ended becomes failed when the session ends first.
type phase uint8

const (
	// phasePending: execute is not answered yet. A resume does not name the execution.
	phasePending phase = iota
	// phaseReceiving: messages are queued for Next.
	phaseReceiving
	// phaseDiscarding: Discard was called. Output only advances offset, and is acknowledged.
	phaseDiscarding
	// phaseEnded: the end was received, and nothing follows it. Final. A resume still names the
	// execution while the consumer has not taken the end, which is therefore not acknowledged.
	phaseEnded
	// phaseFailed: the session ended first. Final.
	phaseFailed

	phaseCount
)

// step is an event that may move an Execution to another phase.
type step uint8

const (
	stepAnswered  step = iota // the server answered execute
	stepDiscarded             // the consumer called Discard
	stepCompleted             // the end was received, and no process lives on to write more
	stepFailed                // the session ended for this Client

	stepCount
)

// after returns the phase that follows p after s. A step that does not appear with a phase changes
// nothing in it; Ended and Failed are never left.
func (p phase) after(s step) phase {
	switch {
	case p >= phaseEnded:
	case s == stepAnswered && p == phasePending:
		return phaseReceiving
	case s == stepDiscarded:
		return phaseDiscarding
	case s == stepCompleted:
		return phaseEnded
	case s == stepFailed:
		return phaseFailed
	}
	return p
}

// queues reports whether messages are queued, or at least counted, in this phase.
func (p phase) queues() bool { return p < phaseEnded }

// resumable reports whether a resume names an execution in this phase.
func (p phase) resumable() bool { return p != phasePending && p != phaseFailed }
