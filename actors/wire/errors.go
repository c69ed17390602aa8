package wire

import (
	"errors"
	"fmt"
)

// Code is a JSON-RPC error code. The set is closed.
type Code int

const (
	CodeParse            Code = -32700 // the frame is not JSON
	CodeInvalidRequest   Code = -32600 // the JSON is not a request
	CodeMethodNotFound   Code = -32601 // the method is unknown
	CodeInvalidParams    Code = -32602 // the params are wrong; the message says which and what is right
	CodeInternal         Code = -32603 // a defect in troupe, unless Data says when to retry
	CodeSessionLimit     Code = -32001 // a limit of the server or of a subject, which Data names
	CodeNotAllowed       Code = -32002 // the command is not on the allow-list, or env has what clients may not set
	CodeNoProcess        Code = -32003 // no such execution, or it has ended
	CodeStreamTimeout    Code = -32004 // the execution was silent for the stream timeout
	CodeExecutionLimit   Code = -32005 // the session runs as many executions as it may
	CodeNoSession        Code = -32006 // no such session, or the wrong token: one answer for both
	CodeSessionLost      Code = -32007 // the pod that owned the session is gone
	CodeDraining         Code = -32008 // the server is stopping and starts nothing new
	CodeInputUnavailable Code = -32009 // stdin is closed or was not asked for
	CodeStartFailed      Code = -32010 // the command could not be started; exit_code in data is 127 or 126, as a shell's
)

// Error is a JSON-RPC error object. It implements error.
type Error struct {
	Code    Code       `json:"code"`
	Message string     `json:"message"`
	Data    *ErrorData `json:"data,omitempty"`
}

// ErrorData says which limit refused a request, and when to try again.
type ErrorData struct {
	Limit             string  `json:"limit,omitempty"`               // the flag's name, without dashes, or a budget's
	Value             float64 `json:"value,omitempty"`               // its value
	RetryAfterSeconds float64 `json:"retry_after_seconds,omitempty"` // 0: trying again will not help
	ExitCode          int     `json:"exit_code,omitempty"`           // a shell's: 127 not found, 126 not executable
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Code) }

// Errorf makes an Error. People read the message, so it should say what was wrong and what would be
// right.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the Error in err's chain, or 0 if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
