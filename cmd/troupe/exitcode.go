package main

import (
	"errors"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Exit codes of troupe's own. All others are the command's.
const (
	exitOutputLimit = 123 // --on-output-limit=cancel and the limit was reached
	exitTimeout     = 124 // the stream timeout or --max-duration passed, as timeout(1)
	exitTroupe      = 125 // troupe or the server failed, or the arguments are wrong, as docker(1)
	exitCannotRun   = 126 // the command cannot be run or is not allowed, as sh(1)
	exitNotFound    = 127 // there is no such command, as sh(1)
	exitSignal      = 128 // + number of the signal, as sh(1)
	exitCanceled    = 130 // cancelled, and the command still exited with 0
	exitHangup      = 129 // SIGHUP: troupe left, the command runs on
	exitPipe        = 141 // nobody reads troupe's output any more
)

const exitCodeHelp = `Exit codes:
  0-255  the command's own
  128+N  signal N killed the command
  123    the output limit was reached and --on-output-limit is cancel
  124    the command was silent for the stream timeout, or ran for --max-duration
  125    troupe or its server failed: not reachable, refused, session lost, wrong arguments
  126    the command cannot be run, or is not allowed
  127    there is no such command
  130    the command was cancelled and exited with 0`

// exitError carries an exit code up to main. A nil err is said by the code alone.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage marks errors of the command line and the configuration.
type usage struct{ error }

func usageError(err error) error { return usage{err} }

func (u usage) Unwrap() error { return u.error }

// verdict turns the error of a run into an exit code and one line, perhaps empty.
func verdict(err error) (code int, message string) {
	if err == nil {
		return 0, ""
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code, exit.Error()
	}
	message = strings.ReplaceAll(err.Error(), "\n", "; ")
	var u usage
	if errors.As(err, &u) {
		message += " (see troupe --help)"
	}
	return exitTroupe, message
}

// refusal is the exit code for an execute that the server refused.
func refusal(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case wire.CodeNotAllowed:
		return &exitError{exitCannotRun, errors.New(strings.TrimPrefix(refused.Message, "troupe: "))}
	case wire.CodeStartFailed:
		return &exitError{notStarted(refused), errors.New(strings.TrimPrefix(refused.Message, "troupe: "))}
	}
	return err
}

// notStarted tells a command that is not there from one that cannot be run.
func notStarted(err *wire.Error) int {
	if err != nil && err.Data != nil && err.Data.ExitCode == exitNotFound {
		return exitNotFound
	}
	return exitCannotRun
}

// outcome is the exit code of an execution that ended, and what to say about it.
func outcome(done *wire.Completed) (code int, message string) {
	detail := string(done.Reason)
	if done.Error != nil {
		detail += ": " + done.Error.Message
	}
	switch done.Reason {
	case wire.ReasonExited:
		return done.ExitCode & 0xff, ""
	case wire.ReasonSignaled:
		return own(done), ""
	case wire.ReasonCanceled:
		if code := own(done); code != 0 {
			return code, ""
		}
		return exitCanceled, ""
	case wire.ReasonStreamTimeout, wire.ReasonDeadline:
		return exitTimeout, detail
	case wire.ReasonOutputLimit:
		return exitOutputLimit, detail
	case wire.ReasonOutOfMemory:
		if code := own(done); code != 0 {
			return code, detail
		}
		return exitTroupe, detail
	case wire.ReasonStartFailed:
		return notStarted(done.Error), detail
	default:
		return exitTroupe, detail
	}
}

// own is the command's exit code as a shell shows it.
func own(done *wire.Completed) int {
	if done.ExitCode < 0 {
		return exitSignal - done.ExitCode
	}
	return done.ExitCode & 0xff
}
