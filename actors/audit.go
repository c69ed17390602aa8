package actors

import (
	"time"

	"github.com/troupe-dev/troupe/gateway/wire"
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
	Started   time.Time
	Completed *wire.Completed
}
