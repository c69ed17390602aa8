package relay

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/troupe-dev/troupe/actors/wire"
)

// encodeRequest makes a message of a request. It returns nil for params that are none of wire's.
func encodeRequest(id wire.ID, params any) *Request {
	r := &Request{Id: id}
	switch params.(type) {
	case *wire.ExecuteParams:
		r.Method = wire.MethodExecute
	case *wire.ControlParams:
		r.Method = wire.MethodControl
	case *wire.InputParams:
		r.Method = wire.MethodInput
	case *wire.SignalParams:
		r.Method = wire.MethodSignal
	case *wire.StatusParams:
		r.Method = wire.MethodStatus
	case *wire.CloseParams:
		r.Method = wire.MethodClose
	case *wire.PongParams:
		r.Method = wire.MethodPong
	case *wire.ResumeParams:
		r.Method = wire.MethodResume
	default:
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // or a page of HTML were six times as long as it came
	if e.Encode(params) != nil {
		return nil
	}
	r.Params = b.Bytes()
	return r
}

// decodeRequest makes params of a request, checked as those that a client sends here.
func decodeRequest(r *Request) (any, *wire.Error) {
	frame, err := wire.AppendRequest(nil, nil, r.GetMethod(), json.RawMessage(r.GetParams()))
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternal, "the request was damaged on its way between pods: %v", err)
	}
	req, werr := wire.Decode(frame)
	return req.Params, werr
}

// encodeReply makes a message of an answer.
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

// decodeReply is the reverse. What no code here looks into stays as it came.
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

// asJSON passes JSON on, and nothing else.
func asJSON(b []byte) any {
	if !json.Valid(b) {
		return nil
	}
	return json.RawMessage(b)
}

// encodeMark returns the two members of a piece that carry a mark, at most one of them set.
func encodeMark(mark any) (warning, completed []byte) {
	switch m := mark.(type) {
	case *wire.Warning:
		warning, _ = json.Marshal(m) // strings and numbers
	case *wire.Completed:
		completed, _ = json.Marshal(m)
	}
	return warning, completed
}

// decodeMark is the reverse: nil for a piece without a mark, false for a damaged one.
func decodeMark(p *Piece) (mark any, ok bool) {
	switch {
	case len(p.GetWarning()) > 0:
		m := new(wire.Warning)
		return m, json.Unmarshal(p.GetWarning(), m) == nil
	case len(p.GetCompleted()) > 0:
		m := new(wire.Completed)
		return m, json.Unmarshal(p.GetCompleted(), m) == nil
	}
	return nil, true
}

// knownCause returns a cause of a newer version as one that this version has.
func knownCause(s string) wire.Cause {
	if c := wire.Cause(s); slices.Contains(wire.Causes(), c) {
		return c
	}
	return wire.CauseClientGone
}
