package relay

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/troupe-dev/troupe/actors/wire"
)

// encodeRequest returns the message for a request, or nil for params whose type package wire does
// not have.
func encodeRequest(id wire.ID, params any) *Request {
	r := &Request{Id: id}
	if in, ok := params.(*wire.InputParams); ok {
		text, err := in.MarshalJSON() // an Encoder would check it byte by byte
		if err != nil {
			return nil
		}
		r.Method, r.Params = wire.MethodInput, text
		return r
	}
	switch params.(type) {
	case *wire.ExecuteParams:
		r.Method = wire.MethodExecute
	case *wire.ControlParams:
		r.Method = wire.MethodControl
	case *wire.SignalParams:
		r.Method = wire.MethodSignal
	case *wire.ResizeParams:
		r.Method = wire.MethodResize
	case *wire.StatusParams:
		r.Method = wire.MethodStatus
	case *wire.CloseParams:
		r.Method = wire.MethodClose
	case *wire.PongParams:
		r.Method = wire.MethodPong
	case *wire.ResumeParams:
		r.Method = wire.MethodResume
	case *wire.AckParams:
		r.Method = wire.MethodAck
	default:
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // which would make a page of HTML up to six times as long
	if e.Encode(params) != nil {
		return nil
	}
	r.Params = b.Bytes()
	return r
}

// decodeRequest returns the params of a request, validated as if the client had sent it to this
// pod.
func decodeRequest(r *Request) (any, *wire.Error) {
	return wire.DecodeParams(r.GetMethod(), r.GetParams())
}

// encodeReply returns the message for an answer.
func encodeReply(id wire.ID, result any, werr *wire.Error) *Reply {
	r := &Reply{Id: id}
	if werr == nil {
		b, err := json.Marshal(result)
		if err != nil {
			werr = wire.Errorf(wire.CodeInternal, "the answer could not be encoded")
		} else {
			_, r.Resumed = result.(*wire.ResumeResult)
			r.Result = b
			return r
		}
	}
	r.Error, _ = json.Marshal(werr) // strings and numbers
	return r
}

// decodeReply is the reverse. It leaves JSON alone if no code here looks into it.
func decodeReply(r *Reply) (any, *wire.Error) {
	if e := r.GetError(); len(e) > 0 {
		werr := new(wire.Error)
		if json.Unmarshal(e, werr) != nil {
			werr = wire.Errorf(wire.CodeInternal, "the answer was damaged on its way between pods")
		}
		return nil, werr
	}
	if r.GetResumed() {
		res := new(wire.ResumeResult)
		if json.Unmarshal(r.GetResult(), res) == nil {
			return res, nil
		}
	}
	return asJSON(r.GetResult()), nil
}

// asJSON returns b if it is JSON, otherwise nil.
func asJSON(b []byte) any {
	if !json.Valid(b) {
		return nil
	}
	return json.RawMessage(b)
}

// encodeMark fills in the member of a piece for a mark, and reports whether it has one.
func encodeMark(p *Piece, mark any) bool {
	switch m := mark.(type) {
	case *wire.Warning:
		p.Warning, _ = json.Marshal(m) // strings and numbers
	case *wire.Completed:
		p.Completed, _ = json.Marshal(m)
	case *wire.Resized:
		p.Resized, _ = json.Marshal(m)
	case *wire.Screen:
		p.Screen, _ = json.Marshal(m)
	default:
		return false
	}
	return true
}

// decodeMark is the reverse. It returns nil for a piece without a mark, and false for a damaged
// one.
func decodeMark(p *Piece) (mark any, ok bool) {
	switch {
	case len(p.GetWarning()) > 0:
		m := new(wire.Warning)
		return m, json.Unmarshal(p.GetWarning(), m) == nil
	case len(p.GetCompleted()) > 0:
		m := new(wire.Completed)
		return m, json.Unmarshal(p.GetCompleted(), m) == nil
	case len(p.GetResized()) > 0:
		m := new(wire.Resized)
		return m, json.Unmarshal(p.GetResized(), m) == nil
	case len(p.GetScreen()) > 0:
		m := new(wire.Screen)
		return m, json.Unmarshal(p.GetScreen(), m) == nil
	}
	return nil, true
}

// knownCause returns s if this release has that cause. Otherwise it returns the cause for a client
// that is gone.
func knownCause(s string) wire.Cause {
	if c := wire.Cause(s); slices.Contains(wire.Causes(), c) {
		return c
	}
	return wire.CauseClientGone
}
