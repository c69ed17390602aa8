package actors

import "github.com/troupe-dev/troupe/actors/wire"

// A session id is the name of the pod that owns the session, a dot and 32 hexadecimal digits: the
// first incarnationDigits are those of the pod's incarnation, the others are random.
const (
	sessionDigits     = 32
	incarnationDigits = 8 // enough to tell the incarnations of one pod apart
)

// newSessionID returns an id that names this pod and its incarnation.
func (e *Engine) newSessionID() string {
	return e.pod + "." + e.incarnation.String()[:incarnationDigits] + randomHex((sessionDigits-incarnationDigits)/2)
}

// ownerOf returns the pod that owns a session, and what its id has of that pod's incarnation. ok is
// false for what is no session id.
func ownerOf(session string) (pod, incarnation string, ok bool) {
	dot := len(session) - sessionDigits - 1
	if dot < 1 || session[dot] != '.' {
		return "", "", false
	}
	for _, c := range []byte(session[dot+1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", "", false
		}
	}
	return session[:dot], session[dot+1:][:incarnationDigits], true
}

// ofEarlierIncarnation reports whether this pod owned a session before it restarted.
func (e *Engine) ofEarlierIncarnation(session string) bool {
	pod, incarnation, ok := ownerOf(session)
	return e.cluster != nil && ok && pod == e.pod && incarnation != e.incarnation.String()[:incarnationDigits]
}

// sessionLost answers a request for a session whose pod is gone.
func sessionLost() *wire.Error {
	return wire.Errorf(wire.CodeSessionLost, "the pod that owned the session is gone, and the session with it")
}
