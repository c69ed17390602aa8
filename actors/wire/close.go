package wire

// Cause is the reason why a connection ended. The set is closed. Each cause has a WebSocket close
// code, is logged by name and counted.
type Cause string

const (
	CauseClientDone Cause = "client_done" // the client closed with 1000: its session ends
	// the client closed otherwise, or the network failed: its session is kept for the resume window
	CauseClientGone   Cause = "client_gone"
	CausePingTimeout  Cause = "ping_timeout"  // no pong for two ping intervals
	CauseWriteTimeout Cause = "write_timeout" // the client took nothing for the write timeout
	CauseReadTimeout  Cause = "read_timeout"  // a message was begun, or resume expected, and did not come in time
	CauseSlowConsumer Cause = "slow_consumer" // the client left too many notifications unread
	CauseTooBig       Cause = "too_big"       // a frame was larger than max-message
	CauseSessionLimit Cause = "session_limit" // no session was free
	CauseSessionEnded Cause = "session_ended" // the session was closed or expired
	CauseNoSession    Cause = "no_session"    // no such session, or the wrong token
	CauseSessionLost  Cause = "session_lost"  // the pod that owned the session is gone
	CauseDraining     Cause = "draining"      // the server is stopping
	CauseInternal     Cause = "internal"      // a defect in troupe
)

// Causes lists every Cause, for metrics and documentation.
func Causes() []Cause {
	return []Cause{
		CauseClientDone, CauseClientGone, CausePingTimeout, CauseWriteTimeout, CauseReadTimeout,
		CauseSlowConsumer, CauseTooBig,
		CauseSessionLimit, CauseSessionEnded, CauseNoSession, CauseSessionLost, CauseDraining, CauseInternal,
	}
}

// Code returns the WebSocket close code (RFC 6455 section 7.4 and the IANA
// registry; 4000 to 4999 are private) that the server sends for the cause.
func (c Cause) Code() int {
	switch c {
	case CauseClientDone, CauseSessionEnded:
		return 1000
	case CauseTooBig:
		return 1009
	case CauseInternal:
		return 1011
	case CauseDraining:
		return 1012
	case CauseSessionLimit:
		return 1013
	case CauseNoSession:
		return 4006
	case CauseSessionLost:
		return 4007
	case CausePingTimeout:
		return 4010
	case CauseWriteTimeout, CauseReadTimeout, CauseSlowConsumer:
		return 4011
	default:
		return 1001
	}
}
