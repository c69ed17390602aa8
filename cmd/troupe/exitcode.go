package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/troupe-dev/troupe/actors/wire"
)

// Exit codes of troupe itself. All others are the command's.
const (
	exitIncomplete  = 122 // the command exited with 0, but a part of its output is missing
	exitOutputLimit = 123 // the output limit was reached with --on-output-limit=cancel
	exitTimeout     = 124 // the stream timeout or --max-duration passed, as in timeout(1)
	exitTroupe      = 125 // troupe or the server failed, or the arguments are wrong, as in docker(1)
	exitCannotRun   = 126 // the command cannot be run or is not allowed, as in sh(1)
	exitNotFound    = 127 // there is no such command, as in sh(1)
	exitSignal      = 128 // plus the number of the signal, as in sh(1)
	exitCanceled    = 130 // cancelled, although the command exited with 0
	exitHangup      = 129 // SIGHUP: troupe detached, and the command keeps running
	exitPipe        = 141 // the reader of troupe's output is gone
)

const exitCodeHelp = `Exit codes:
  0-255  the command's own
  128+N  signal N killed the command
  122    the command exited with 0, but a part of its output was dropped or is no
         longer on the server; not where --on-output-limit=drop allows dropping
  123    the output limit was reached and --on-output-limit is cancel
  124    the command was silent for the stream timeout, or ran for --max-duration
  125    troupe or its server failed: not reachable, refused, session lost, wrong
         arguments, output that cannot be written (full disk)
  126    the command cannot be run, or is not allowed
  127    there is no such command
  130    the command was cancelled and exited with 0
  141    the reader of the output is gone (troupe exec … | head)`

// exitError carries an exit code up to main. If err is nil, main prints no message.
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

// verdict turns the error of a run into an exit code and a message of one line, which may be empty.
func verdict(err error) (code int, message string) {
	if err == nil {
		return 0, ""
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code, joinLines(exit.Error())
	}
	if errors.Is(err, errNobodyReads) {
		return exitPipe, ""
	}
	message = joinLines(err.Error())
	var u usage
	if errors.As(err, &u) {
		message += " (see troupe --help)"
	}
	return exitTroupe, message
}

// joinLines makes one line of the lines of errors.Join.
func joinLines(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// refusal returns the error, with its exit code, for an execute that the server refused.
func refusal(params wire.ExecuteParams, err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case wire.CodeNotAllowed:
		return &exitError{exitCannotRun, errors.New(strings.TrimPrefix(refused.Message, "troupe: "))}
	case wire.CodeStartFailed:
		message := strings.TrimPrefix(refused.Message, "troupe: ")
		if n := longestArgument(params); n >= maxArgument {
			message += fmt.Sprintf(" (one argument or variable has %d bytes; Linux takes up to %d)", n, maxArgument-1)
		}
		return &exitError{notStarted(refused), errors.New(message)}
	}
	return err
}

// maxArgument is MAX_ARG_STRLEN of Linux with pages of 4 KiB, which includes the final NUL (execve(2)).
// The server's pages may be larger, so troupe explains the kernel's refusal instead of refusing.
const maxArgument = 32 * 4096

// longestArgument returns the length of the longest string that execve would get.
func longestArgument(p wire.ExecuteParams) int {
	longest := len(p.Command)
	for _, arg := range p.Argv {
		longest = max(longest, len(arg))
	}
	for name, value := range p.Env {
		longest = max(longest, len(name)+len("=")+len(value))
	}
	return longest
}

// notStarted distinguishes a command that does not exist from one that cannot be run.
func notStarted(err *wire.Error) int {
	if err != nil && err.Data != nil && err.Data.ExitCode == exitNotFound {
		return exitNotFound
	}
	return exitCannotRun
}

// outcome returns the exit code of an execution that ended, and a message about it.
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
	case wire.ReasonOutOfMemory, wire.ReasonProcessLimit, wire.ReasonDiskLimit:
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

// own returns the command's exit code as a shell reports it.
func own(done *wire.Completed) int {
	if done.ExitCode < 0 {
		return exitSignal - done.ExitCode
	}
	return done.ExitCode & 0xff
}
