package actors

import (
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// AuditRecord tells who ran what and how it ended. It is the only place where a
// command's argv leaves the engine; the receiver decides whether to write it or
// its digest.
type AuditRecord struct {
	Time      time.Time // of the end
	Subject   string
	Session   string
	Execution string
	Argv      []string
	Cwd       string
	Started   time.Time // of the command; zero: it never ran
	Completed *wire.Completed
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
	if e.audit == nil {
		return
	}
	e.audit(AuditRecord{
		Time: time.Now(), Subject: x.subject, Session: x.session, Execution: x.id,
		Argv: x.plan.spec.Argv, Cwd: x.plan.spec.Dir, Started: started, Completed: c,
	})
}
