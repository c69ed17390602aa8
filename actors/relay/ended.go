package relay

// Ended is how a link ended. The set is closed; metrics and logs use it as it is.
type Ended string

const (
	// EndedDone: the client was gone, and the owner knows.
	EndedDone Ended = "done"
	// EndedPeerDead: the peer was silent although it was asked.
	EndedPeerDead Ended = "peer_dead"
	// EndedPeerRestarted: the peer has another incarnation now.
	EndedPeerRestarted Ended = "peer_restarted"
	// EndedPeerUnknown: there is no such pod.
	EndedPeerUnknown Ended = "peer_unknown"
	// EndedReset: the peer is alive, and does not know the link or has given it up.
	EndedReset Ended = "reset"
	// EndedOverflow: too many control bytes were unacknowledged.
	EndedOverflow Ended = "overflow"
	// EndedProtocol: the other end did something that no release does, or this end failed.
	EndedProtocol Ended = "protocol"
	// EndedSilent: the peer is alive, and the other end of the link did not answer.
	EndedSilent Ended = "silent"
)

// EndedCauses lists every Ended, for metrics.
func EndedCauses() []Ended {
	return []Ended{
		EndedDone, EndedPeerDead, EndedPeerRestarted, EndedPeerUnknown,
		EndedReset, EndedOverflow, EndedProtocol, EndedSilent,
	}
}

// ownerLost reports whether the owner's pod is gone, and its sessions with it. After any other end
// the session is in its resume window, and the client may resume.
func (e Ended) ownerLost() bool {
	return e == EndedPeerDead || e == EndedPeerRestarted || e == EndedPeerUnknown
}
