package relay

// Ended is the one way a link ended. The set is closed; metrics and logs use it as it is.
type Ended string

const (
	// EndedDone: the client was gone, and the owner knows.
	EndedDone Ended = "done"
	// EndedPeerDead: nothing was heard of the peer, though it was asked.
	EndedPeerDead Ended = "peer_dead"
	// EndedPeerRestarted: the peer's process is another one now.
	EndedPeerRestarted Ended = "peer_restarted"
	// EndedPeerUnknown: there is no such pod.
	EndedPeerUnknown Ended = "peer_unknown"
	// EndedReset: the peer lives and does not know the link, or gave it up.
	EndedReset Ended = "reset"
	// EndedOverflow: too many control bytes were unacknowledged.
	EndedOverflow Ended = "overflow"
	// EndedProtocol: the other end did what no version does, or this one failed at it.
	EndedProtocol Ended = "protocol"
	// EndedSilent: the peer lives, and the link's other end did not answer.
	EndedSilent Ended = "silent"
)

// EndedCauses lists every Ended, for metrics.
func EndedCauses() []Ended {
	return []Ended{
		EndedDone, EndedPeerDead, EndedPeerRestarted, EndedPeerUnknown,
		EndedReset, EndedOverflow, EndedProtocol, EndedSilent,
	}
}

// ownerLost reports whether the owner's pod is gone, and its sessions with it. After
// any other end the session is in its resume window, and the client may come back.
func (e Ended) ownerLost() bool {
	return e == EndedPeerDead || e == EndedPeerRestarted || e == EndedPeerUnknown
}
