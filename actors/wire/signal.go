package wire

import "strings"

// Signals are the Linux signal names that a client may send, with SIG. STOP,
// TSTP, TTIN, TTOU and CONT are left out: they would stop or continue the
// command behind the back of PAUSE and RESUME, which hold the timers.
var signals = map[string]bool{
	"SIGHUP": true, "SIGINT": true, "SIGQUIT": true, "SIGILL": true, "SIGTRAP": true, "SIGABRT": true,
	"SIGBUS": true, "SIGFPE": true, "SIGKILL": true, "SIGUSR1": true, "SIGSEGV": true, "SIGUSR2": true,
	"SIGPIPE": true, "SIGALRM": true, "SIGTERM": true, "SIGSTKFLT": true, "SIGCHLD": true, "SIGURG": true,
	"SIGXCPU": true, "SIGXFSZ": true, "SIGVTALRM": true, "SIGPROF": true, "SIGWINCH": true, "SIGIO": true,
	"SIGPWR": true, "SIGSYS": true,
}

// jobControl are the signals that control takes the place of.
var jobControl = map[string]bool{"SIGSTOP": true, "SIGTSTP": true, "SIGTTIN": true, "SIGTTOU": true, "SIGCONT": true}

type signalParams struct{ SignalParams }

// check also gives the signal its full name, so that what follows compares one spelling.
func (p *signalParams) check() (any, *Error) {
	if err := needExecutionID(p.ExecutionID); err != nil {
		return nil, err
	}
	if p.Signal == "" {
		return nil, Errorf(CodeInvalidParams, `signal is missing: give a name such as "INT"`)
	}
	name := "SIG" + strings.TrimPrefix(p.Signal, "SIG")
	switch {
	case jobControl[name]:
		return nil, Errorf(CodeInvalidParams, "signal %s is refused: use control with PAUSE or RESUME", name)
	case !signals[name]:
		return nil, Errorf(CodeInvalidParams, `unknown signal %s: use a Linux signal name such as "INT" or "SIGINT"`, quote(p.Signal))
	}
	p.Signal = name
	return &p.SignalParams, nil
}
