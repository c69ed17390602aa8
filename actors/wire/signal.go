package wire

import "strings"

// signals are the Linux signals that a client may send. STOP, TSTP, TTIN, TTOU and CONT are missing
// because they would bypass PAUSE and RESUME, which also stop and start the timers.
var signals = map[string]bool{
	"SIGHUP": true, "SIGINT": true, "SIGQUIT": true, "SIGILL": true, "SIGTRAP": true, "SIGABRT": true,
	"SIGBUS": true, "SIGFPE": true, "SIGKILL": true, "SIGUSR1": true, "SIGSEGV": true, "SIGUSR2": true,
	"SIGPIPE": true, "SIGALRM": true, "SIGTERM": true, "SIGSTKFLT": true, "SIGCHLD": true, "SIGURG": true,
	"SIGXCPU": true, "SIGXFSZ": true, "SIGVTALRM": true, "SIGPROF": true, "SIGWINCH": true, "SIGIO": true,
	"SIGPWR": true, "SIGSYS": true,
}

// jobControl lists the signals that control replaces.
var jobControl = map[string]bool{"SIGSTOP": true, "SIGTSTP": true, "SIGTTIN": true, "SIGTTOU": true, "SIGCONT": true}

type signalParams struct{ SignalParams }

// check also normalizes the name, so that later code compares one spelling.
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
		return nil, Errorf(CodeInvalidParams,
			`unknown signal %s: use a Linux signal name such as "INT" or "SIGINT"`, quote(p.Signal))
	}
	p.Signal = name
	return &p.SignalParams, nil
}
