package actors

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// MaxAuditArgv is how many bytes of arguments an execution keeps for its AuditRecord.
// Those of a command may have megabytes, for as long as it runs.
const MaxAuditArgv = 16 << 10

// AuditRecord tells who ran what and how it ended. It is the only place where a
// command's argv leaves the engine.
type AuditRecord struct {
	Time       time.Time // of the end
	Subject    string
	Session    string
	Execution  string
	Argv       []string // nil without Config.AuditArgv, and if it has more than MaxAuditArgv
	ArgvSHA256 string   // see ArgvDigest
	Cwd        string
	Isolation  string    // what separated its session from others: wire.IsolationNone or IsolationSession
	Started    time.Time // of the command; zero: it never ran
	Completed  *wire.Completed
}

// recordEnd records an execution's end in the metrics, the log and the audit log.
// The first call counts: when an actor fails, both the process and its session
// may come to tell of one end.
func (e *Engine) recordEnd(x *execution, started time.Time, c *wire.Completed) {
	if x.endRecorded.Swap(true) {
		return
	}
	x.trace.completed(c)
	e.metrics.executions.WithLabelValues(string(c.Reason)).Inc()
	e.metrics.duration.Observe(c.ExecutionTime)
	e.log.Debug("execution completed", "session", x.session, "execution", x.id, "subject", x.subject,
		"reason", string(c.Reason), "exit_code", c.ExitCode, "seconds", c.ExecutionTime)
	argv, sum, dir := x.plan.auditArgv, x.plan.argvSHA256, x.plan.dir
	x.plan.auditArgv, x.plan.argvSHA256, x.plan.dir = nil, "", "" // the session keeps x for much longer
	if e.audit == nil {
		return
	}
	e.audit(AuditRecord{
		Time: time.Now(), Subject: x.subject, Session: x.session, Execution: x.id,
		Argv: argv, ArgvSHA256: sum, Cwd: dir, Isolation: e.isolation(), Started: started, Completed: c,
	})
}

// isolation says what separates sessions, see wire.Connected.
func (e *Engine) isolation() string {
	if level, _ := e.runner.Isolation(); level == wire.IsolationSession {
		return level
	}
	return wire.IsolationNone
}

// ArgvDigest returns the SHA-256 of the arguments, each followed by a zero byte, as
// `printf '%s\0' ARGS… | sha256sum` prints it.
func ArgvDigest(argv []string) string {
	h := sha256.New()
	for _, arg := range argv {
		_, _ = io.WriteString(h, arg) // a hash does not fail
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// auditedArgv returns what is kept of argv for the audit record.
func (e *Engine) auditedArgv(argv []string) []string {
	size := 0
	for _, arg := range argv {
		size += len(arg) + 16 // a string's header
	}
	if !e.auditArgv || size > MaxAuditArgv {
		return nil
	}
	return argv
}
