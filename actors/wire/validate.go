package wire

import (
	"encoding/base64"
	"strings"
)

// MaxExecutionID is the maximum length in bytes of an execution_id that a client chooses.
const MaxExecutionID = 128

// maxCwd is the length of the longest path that the kernel takes (PATH_MAX, path_resolution(7)).
const maxCwd = 4095

// executeParams has pointers for the members whose zero value differs from their absence.
type executeParams struct {
	ExecuteParams
	Command     *string   `json:"command"`
	Argv        *[]string `json:"argv"`
	ExecutionID *string   `json:"execution_id"`
	Timeout     *float64  `json:"timeout"`
	MaxDuration *float64  `json:"max_duration"`
	OutputLimit *int64    `json:"output_limit"`
	Scrollback  *int64    `json:"scrollback"`
}

func (p *executeParams) check() (any, *Error) {
	out := p.ExecuteParams
	checks := []func(*ExecuteParams) *Error{
		p.checkCommand, p.checkID, p.checkEnv, p.checkLimits, p.checkChoices, p.checkTerminal, p.checkRetain,
	}
	for _, check := range checks {
		if err := check(&out); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func (p *executeParams) checkCommand(out *ExecuteParams) *Error {
	switch {
	case p.Command != nil && p.Argv != nil:
		return Errorf(CodeInvalidParams, "command and argv exclude each other: give one")
	case p.Command == nil && p.Argv == nil:
		return Errorf(CodeInvalidParams, "command is missing: give command (run by /bin/sh -c) or argv")
	case p.Command != nil:
		if strings.TrimSpace(*p.Command) == "" {
			return Errorf(CodeInvalidParams, "command is blank")
		}
		if hasNUL(*p.Command) {
			return Errorf(CodeInvalidParams, "command contains a NUL byte")
		}
		out.Command = *p.Command
	default:
		if len(*p.Argv) == 0 || (*p.Argv)[0] == "" {
			return Errorf(CodeInvalidParams, "argv[0] is missing: it names the program")
		}
		for i, arg := range *p.Argv {
			if hasNUL(arg) {
				return Errorf(CodeInvalidParams, "argv[%d] contains a NUL byte", i)
			}
		}
		out.Argv = *p.Argv
	}
	if len(out.Cwd) > maxCwd {
		return Errorf(CodeInvalidParams, "cwd may have at most %d bytes", maxCwd)
	}
	if hasNUL(out.Cwd) {
		return Errorf(CodeInvalidParams, "cwd contains a NUL byte")
	}
	return nil
}

func (p *executeParams) checkID(out *ExecuteParams) *Error {
	if p.ExecutionID == nil {
		return nil
	}
	out.ExecutionID = *p.ExecutionID
	return checkExecutionID(*p.ExecutionID)
}

func checkExecutionID(id string) *Error { return checkName("execution_id", id) }

// checkName accepts ids that are safe as a file name, a log field and a URL segment.
func checkName(member, id string) *Error {
	ok := id != "" && len(id) <= MaxExecutionID && id != "." && id != ".."
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	if !ok {
		return Errorf(CodeInvalidParams,
			"%s %s must have 1 to %d characters of A-Z a-z 0-9 . _ - and not be . or ..", member, quote(id), MaxExecutionID)
	}
	return nil
}

func (*executeParams) checkEnv(out *ExecuteParams) *Error {
	for name, value := range out.Env {
		if name == "" || strings.ContainsRune(name, '=') || hasNUL(name) {
			return Errorf(CodeInvalidParams, "env name %s must not be empty and not contain = or a NUL byte", quote(name))
		}
		if hasNUL(value) {
			return Errorf(CodeInvalidParams, "env[%s] contains a NUL byte", quote(name))
		}
	}
	return nil
}

func (p *executeParams) checkLimits(out *ExecuteParams) *Error {
	// These numbers are finite: JSON has no infinities and no NaN, and encoding/json refuses
	// numbers beyond the range of float64.
	var err *Error
	if out.Timeout, err = checkSeconds("timeout", p.Timeout); err != nil {
		return err
	}
	if out.MaxDuration, err = checkSeconds("max_duration", p.MaxDuration); err != nil {
		return err
	}
	if p.OutputLimit != nil {
		if *p.OutputLimit <= 0 {
			return Errorf(CodeInvalidParams,
				"output_limit must be a number of bytes greater than 0; leave it out for the server's")
		}
		out.OutputLimit = *p.OutputLimit
	}
	return nil
}

// minSeconds is what a time.Duration can hold. Less would be 0, which stands for the server's value.
const minSeconds = 1e-9

func checkSeconds(name string, n *float64) (float64, *Error) {
	switch {
	case n == nil:
		return 0, nil
	case *n < minSeconds:
		return 0, Errorf(CodeInvalidParams,
			"%s must be a number of seconds greater than 0; leave it out for the server's", name)
	}
	return *n, nil
}

func (*executeParams) checkChoices(out *ExecuteParams) *Error {
	switch out.OnOutputLimit {
	case "", LimitDrop, LimitCancel:
	default:
		return badChoice("on_output_limit", string(out.OnOutputLimit), string(LimitDrop), string(LimitCancel))
	}
	switch out.OnExit {
	case "", ExitKill, ExitKeep:
	default:
		return badChoice("on_exit", string(out.OnExit), string(ExitKill), string(ExitKeep))
	}
	switch out.Framing {
	case "", FramingLines, FramingRaw:
	default:
		return badChoice("framing", string(out.Framing), string(FramingLines), string(FramingRaw))
	}
	return checkEncoding(out.Encoding)
}

// checkRetain refuses members that have no meaning with the kind of transcript that was asked for.
func (p *executeParams) checkRetain(out *ExecuteParams) *Error {
	switch out.Retain {
	case "", RetainFirst:
	case RetainUnread, RetainLast:
		if p.OutputLimit != nil || out.OnOutputLimit != "" {
			return Errorf(CodeInvalidParams,
				"output_limit and on_output_limit need retain %q: with %q no limit ends or drops output",
				RetainFirst, out.Retain)
		}
	default:
		return badChoice("retain", string(out.Retain), string(RetainFirst), string(RetainUnread), string(RetainLast))
	}
	if p.Scrollback != nil {
		if out.Retain != RetainLast {
			return Errorf(CodeInvalidParams, "scrollback needs retain %q", RetainLast)
		}
		if *p.Scrollback < MinScrollback {
			return Errorf(CodeInvalidParams, "scrollback must be a number of bytes, %d or more", MinScrollback)
		}
		out.Scrollback = *p.Scrollback
	}
	return checkWindow(out.Window)
}

func checkWindow(n int64) *Error {
	if n != 0 && (n < MinWindow || n > MaxWindow) {
		return Errorf(CodeInvalidParams, "window must be a number of bytes, %d to %d; leave it out for none",
			MinWindow, MaxWindow)
	}
	return nil
}

func checkEncoding(e Encoding) *Error {
	switch e {
	case "", EncodingUTF8, EncodingBase64:
		return nil
	}
	return badChoice("encoding", string(e), string(EncodingUTF8), string(EncodingBase64))
}

func badChoice(name, value string, choices ...string) *Error {
	return Errorf(CodeInvalidParams, "unknown %s %s: use %s", name, quote(value), strings.Join(choices, " or "))
}

type controlParams struct{ ControlParams }

func (p *controlParams) check() (any, *Error) {
	switch p.Type {
	case ControlPause, ControlResume, ControlCancel:
	case "":
		return nil, Errorf(CodeInvalidParams, "type is missing: use PAUSE, RESUME or CANCEL")
	default:
		return nil, Errorf(CodeInvalidParams, "unknown control type %s: use PAUSE, RESUME or CANCEL", quote(p.Type))
	}
	if p.ExecutionID != "" {
		if err := checkExecutionID(p.ExecutionID); err != nil {
			return nil, err
		}
	}
	return &p.ControlParams, nil
}

type inputParams struct{ InputParams }

func (p *inputParams) check() (any, *Error) {
	if err := needExecutionID(p.ExecutionID); err != nil {
		return nil, err
	}
	if err := checkEncoding(p.Encoding); err != nil {
		return nil, err
	}
	if p.Offset != nil && *p.Offset < 0 {
		return nil, Errorf(CodeInvalidParams, "offset must be the position in stdin of the first byte of data, 0 or more")
	}
	if p.Writer != "" {
		if err := checkName("writer", p.Writer); err != nil {
			return nil, err
		}
	}
	if p.Data == "" && !p.EOF {
		return nil, Errorf(CodeInvalidParams, "data is missing: give data, or eof to close stdin")
	}
	if p.Encoding == EncodingBase64 {
		decoded, err := base64.StdEncoding.DecodeString(p.Data)
		if err != nil {
			return nil, Errorf(CodeInvalidParams, "data is not base64 (standard alphabet, with padding): %v", err)
		}
		p.decoded = decoded
	}
	return &p.InputParams, nil
}

func needExecutionID(id string) *Error {
	if id == "" {
		return Errorf(CodeInvalidParams, "execution_id is missing")
	}
	return checkExecutionID(id)
}

type resumeParams struct{ ResumeParams }

func (p *resumeParams) check() (any, *Error) {
	if p.ResumeToken == "" {
		return nil, Errorf(CodeInvalidParams, "resume_token is missing: it came with connected")
	}
	for id, offset := range p.Executions {
		if err := checkExecutionID(id); err != nil {
			return nil, err
		}
		if offset < 0 {
			return nil, Errorf(CodeInvalidParams, "executions[%s] must be an offset of 0 or more", quote(id))
		}
	}
	if err := checkWindow(p.Window); err != nil {
		return nil, err
	}
	return &p.ResumeParams, nil
}

// ackParams has a pointer for the member whose zero value differs from its absence.
type ackParams struct {
	AckParams
	Offset *int64 `json:"offset"`
}

func (p *ackParams) check() (any, *Error) {
	if err := needExecutionID(p.ExecutionID); err != nil {
		return nil, err
	}
	if p.Offset == nil || *p.Offset < 0 {
		return nil, Errorf(CodeInvalidParams, "offset must be the position after the output that was processed, 0 or more")
	}
	p.AckParams.Offset = *p.Offset
	return &p.AckParams, nil
}

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }
