package relay

import (
	"errors"
	"fmt"
)

// errEnvelope is the error for an envelope that no release sends.
var errEnvelope = errors.New("not an envelope of this protocol")

// maxPodName is the most bytes of a pod's name (a DNS subdomain, RFC 1123).
const maxPodName = 253

// Check validates an envelope before anything else looks at it. It accepts an unknown kind or body,
// and a later version: their receivers ignore them.
func Check(e *Envelope) error {
	switch {
	case e == nil:
		return fmt.Errorf("%w: empty", errEnvelope)
	case e.GetVersion() == 0:
		return fmt.Errorf("%w: without a version", errEnvelope)
	case e.GetFrom() == "" || len(e.GetFrom()) > maxPodName:
		return fmt.Errorf("%w: from a pod with a name of %d bytes", errEnvelope, len(e.GetFrom()))
	case len(e.GetIncarnation()) != len(Incarnation{}):
		return fmt.Errorf("%w: an incarnation of %d bytes", errEnvelope, len(e.GetIncarnation()))
	}
	if f, ok := e.GetKind().(*Envelope_Frame); ok && len(f.Frame.GetLink()) != len(LinkID{}) {
		return fmt.Errorf("%w: a link of %d bytes", errEnvelope, len(f.Frame.GetLink()))
	}
	var query []byte
	switch kind := e.GetKind().(type) {
	case *Envelope_Query:
		query = kind.Query.GetId()
	case *Envelope_Answer:
		query = kind.Answer.GetId()
	default:
		return nil
	}
	if len(query) != len(QueryID{}) {
		return fmt.Errorf("%w: a query of %d bytes", errEnvelope, len(query))
	}
	return nil
}
