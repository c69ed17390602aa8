package fileserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/files"
	"github.com/troupe-dev/troupe/actors/wire"
)

// problem is what a client is told of an error. Its code is that of files.Error, or the reason of an end.
type problem struct {
	wire.Problem

	retryAfter   int    // seconds; 0: one, where trying again may help
	contentRange string // of 416
}

func (p *problem) Error() string { return p.Detail }

func problemf(status int, code, format string, args ...any) *problem {
	return &problem{Problem: wire.Problem{
		Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...),
	}}
}

// Refuse returns an error of Config.Caller that is answered with this status and text.
func Refuse(status int, detail string) error { return problemf(status, "", "%s", detail) }

func (p *problem) write(w http.ResponseWriter) {
	text, _ := json.Marshal(p.Problem) // it has strings and a number
	for _, name := range []string{"ETag", "Content-Length", "Content-Range", "Content-Disposition", "Last-Modified"} {
		w.Header().Del(name)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if p.contentRange != "" {
		w.Header().Set("Content-Range", p.contentRange)
	}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(max(p.retryAfter, 1)))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(text, '\n'))
}

// statuses of what the program refuses.
var statuses = map[files.Code]int{
	files.CodeInvalid:     http.StatusBadRequest,
	files.CodeOutside:     http.StatusForbidden,
	files.CodeNotFound:    http.StatusNotFound,
	files.CodeExists:      http.StatusConflict,
	files.CodeWrongKind:   http.StatusConflict,
	files.CodeDenied:      http.StatusForbidden,
	files.CodePrecond:     http.StatusPreconditionFailed,
	files.CodeChanged:     http.StatusConflict,
	files.CodeIncomplete:  http.StatusBadRequest,
	files.CodeDigest:      http.StatusUnprocessableEntity,
	files.CodeNoSpace:     http.StatusInsufficientStorage,
	files.CodeUnsupported: http.StatusUnprocessableEntity,
	files.CodeFailed:      http.StatusInternalServerError,
}

// wireStatuses of what the server refuses.
var wireStatuses = map[wire.Code]int{
	wire.CodeNotAllowed: http.StatusForbidden, wire.CodeExecutionLimit: http.StatusTooManyRequests,
	wire.CodeSessionLimit: http.StatusTooManyRequests, wire.CodeDraining: http.StatusServiceUnavailable,
}

// endedError is a run that ended otherwise than by its own will.
type endedError struct {
	completed *wire.Completed
	text      string
}

func (e *endedError) Error() string {
	if e.completed.Error != nil {
		return e.completed.Error.Message
	}
	if text := strings.TrimSpace(e.text); text != "" {
		return text
	}
	return "the transfer ended: " + string(e.completed.Reason)
}

func problemOf(err error) *problem {
	var p *problem
	var fe *files.Error
	var we *wire.Error
	var ee *endedError
	var silent *actors.PodSilentError
	var be *bodyError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &be) && errors.Is(be.err, os.ErrDeadlineExceeded):
		return problemf(http.StatusRequestTimeout, string(files.CodeIncomplete), "%s", be)
	case errors.As(err, &be):
		return problemf(http.StatusBadRequest, string(files.CodeIncomplete), "%s", be)
	case errors.As(err, &fe):
		return problemf(statuses[fe.Code], string(fe.Code), "%s", fe.Message)
	case errors.As(err, &ee):
		status := http.StatusInternalServerError
		switch ee.completed.Reason {
		case wire.ReasonDiskLimit:
			status = http.StatusInsufficientStorage
		case wire.ReasonCanceled:
			status = http.StatusGone
		case wire.ReasonDrain, wire.ReasonRunnerLost, wire.ReasonSessionClosed:
			status = http.StatusServiceUnavailable
		}
		return problemf(status, string(ee.completed.Reason), "%s", ee)
	case errors.Is(err, actors.ErrNoSession):
		return errNoSession()
	case errors.As(err, &silent):
		return problemf(http.StatusServiceUnavailable, "", "%s", silent)
	case errors.As(err, &we):
		return problemOfWire(we)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "the request ended")
	}
	return problemf(http.StatusInternalServerError, "", "%s", err)
}

func errNoSession() *problem {
	return problemf(http.StatusNotFound, "no_session", "no such session, or not one of yours")
}

// problemOfWire is for what the engine refuses.
func problemOfWire(err *wire.Error) *problem {
	switch err.Code {
	case wire.CodeNoSession, wire.CodeSessionLost:
		return errNoSession()
	case wire.CodeStartFailed:
		return problemf(http.StatusNotImplemented, "no_program", "this session cannot transfer files: %s", err.Message)
	}
	p := problemf(wireStatuses[err.Code], "", "%s", err.Message)
	if err.Data != nil {
		p.retryAfter = int(err.Data.RetryAfterSeconds)
	}
	if p.Status == 0 {
		p.Status = http.StatusInternalServerError
		if p.retryAfter > 0 { // the directory of pods does not know the session's yet
			p.Status = http.StatusServiceUnavailable
		}
		p.Title = http.StatusText(p.Status)
	}
	return p
}
