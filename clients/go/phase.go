package troupe

// phase is the state of an Execution's receiving side: it decides what happens to its messages.
type phase uint8

const (
	// phasePending: execute is not answered yet. A resume does not name the execution.
	phasePending phase = iota
	// phaseReceiving: messages are queued for Next.
	phaseReceiving
	// phaseParked: the consumer does not read. Messages are dropped and fetched again later.
	phaseParked
	// phaseFetching: the consumer reads again, and the server was asked to continue from
	// Execution.offset. Messages are dropped until it answers.
	phaseFetching
	// phaseSkipping: the server has answered. Output from before the answer, which lies ahead of
	// offset, is dropped until the first piece that continues at offset.
	phaseSkipping
	// phaseDiscarding: Discard was called. Output only advances offset.
	phaseDiscarding
	// phaseEnded: the end was received, and nothing follows it. Final.
	phaseEnded
	// phaseFailed: the session ended first. Final.
	phaseFailed

	phaseCount
)

// step is an event that may move an Execution to another phase.
type step uint8

const (
	stepAnswered  step = iota // the server answered execute
	stepStalled               // the consumer took nothing for Options.StallTimeout
	stepDrained               // Next found the queue of a parked execution empty
	stepFetched               // the server answered the fetch on the connection that it was sent on
	stepResumed               // a new connection resumes the execution at offset
	stepContinued             // a piece of output that continues at offset was queued
	stepDiscarded             // the consumer called Discard
	stepCompleted             // the end was queued, and no process lives on to write more
	stepFailed                // the session ended for this Client

	stepCount
)

// after returns the phase that follows p after s. A step that does not appear with a phase changes
// nothing in it; Ended and Failed are never left.
func (p phase) after(s step) phase {
	switch s {
	case stepAnswered:
		if p == phasePending {
			return phaseReceiving
		}
	case stepStalled:
		if p == phaseReceiving || p == phaseSkipping {
			return phaseParked
		}
	case stepDrained:
		if p == phaseParked {
			return phaseFetching
		}
	case stepFetched:
		if p == phaseFetching {
			return phaseSkipping
		}
	case stepResumed:
		if p == phaseParked || p == phaseFetching || p == phaseSkipping {
			return phaseReceiving
		}
	case stepContinued:
		if p == phaseSkipping {
			return phaseReceiving
		}
	case stepDiscarded:
		if p < phaseEnded {
			return phaseDiscarding
		}
	case stepCompleted:
		if p.queues() {
			return phaseEnded
		}
	case stepFailed:
		if p < phaseEnded {
			return phaseFailed
		}
	}
	return p
}

// queues reports whether messages are queued, or at least counted, in this phase.
func (p phase) queues() bool {
	return p == phasePending || p == phaseReceiving || p == phaseSkipping || p == phaseDiscarding
}

// resumable reports whether a resume names an execution in this phase.
func (p phase) resumable() bool {
	return p != phasePending && p != phaseEnded && p != phaseFailed
}
