package mcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// explain returns an error that tells a model what to do. It is read as the result of a tool.
func explain(err error) error {
	var refused *troupe.HandshakeError
	var answer *wire.Error
	switch {
	case err == nil:
		return nil
	case gone(err):
		return errors.New("the session has ended, and its commands with it: call open_session for a new one")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, troupe.ErrUnreachable):
		return errors.New("the server does not answer: commands go on without it. Try again")
	case errors.Is(err, troupe.ErrUnknownOutcome):
		return errors.New("the connection ended before the answer: it may or may not have been done. Look before you try again")
	case errors.As(err, &refused) && refused.StatusCode == http.StatusUnauthorized:
		return errors.New("the server did not accept the token of this MCP server's configuration (401)")
	case errors.As(err, &refused):
		return fmt.Errorf("the server refused the connection (%d): %s", refused.StatusCode, refused.Body)
	case errors.As(err, &answer):
		message := strings.TrimPrefix(answer.Message, "troupe: ")
		switch answer.Code {
		case wire.CodeSessionLimit:
			message += ": close a session, or try again later"
		case wire.CodeExecutionLimit:
			message += ": wait for one of them, or cancel one"
		case wire.CodeDraining:
			message += ": try again"
		}
		return errors.New(message)
	}
	return err
}

// explainExec is explain for an exec that may have started its command.
func explainExec(err error, session, execution string) error {
	if wire.CodeOf(err) == 0 && !gone(err) {
		return fmt.Errorf("%w. The command may have started: repeat exec with session %s and execution_id %s, "+
			"which does not run it twice", explain(err), session, execution)
	}
	return explain(err)
}
