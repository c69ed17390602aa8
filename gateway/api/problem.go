package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
)

type problem wire.Problem

func (p *problem) Error() string { return p.Detail }

// problemOf returns what the client is told of an error.
func problemOf(err error) *problem {
	var p *problem
	var silent *actors.PodSilentError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, actors.ErrNoSession):
		return &problem{Status: http.StatusNotFound, Detail: "no such session, or it is not yours"}
	case errors.Is(err, actors.ErrNoExecution):
		return &problem{
			Status: http.StatusNotFound,
			Detail: "the session has no such execution, or has forgotten it: see " + Prefix + "sessions/ID",
		}
	case errors.Is(err, actors.ErrNoTerminal):
		return &problem{Status: http.StatusNotFound, Detail: "the execution has no terminal: its output is at .../output"}
	case errors.Is(err, actors.ErrBadOffset):
		return &problem{Status: http.StatusBadRequest, Detail: err.Error() + ": begin at 0, or at next_offset of a page"}
	case errors.Is(err, actors.ErrNoPod):
		return &problem{Status: http.StatusNotFound, Detail: "the service has no such pod: see " + Prefix + "pods"}
	case errors.Is(err, actors.ErrBadContinue):
		return &problem{Status: http.StatusBadRequest, Detail: err.Error()}
	case errors.As(err, &silent):
		return &problem{
			Status: http.StatusGatewayTimeout, Pod: silent.Pod,
			Detail: "the pod that holds the session does not answer: " + silent.Reason,
		}
	}
	return &problem{Status: http.StatusInternalServerError, Detail: "the request failed inside the server: see its log"}
}

// answer sets the headers that belong to the problem.
func (p *problem) answer(header http.Header) answer {
	p.Title = http.StatusText(p.Status)
	header.Set("Content-Type", "application/problem+json")
	switch p.Status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", `Bearer realm="troupe"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if header.Get("Retry-After") == "" {
			header.Set("Retry-After", "2")
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		b = []byte(`{"title":"Internal Server Error","status":500,"detail":"the error could not be encoded"}`)
	}
	return answer{status: p.Status, body: json.RawMessage(append(b, '\n'))}
}
