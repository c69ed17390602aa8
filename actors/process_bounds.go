package actors

import (
	"fmt"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// The bounds of a session, as its clients are told of them.

// nearBound warns the client, with the output of this execution.
func (p *process) nearBound(ev proc.NearBound) {
	if p.reported != nil {
		return // the transcript is sealed, or nearly
	}
	w := &wire.Warning{ExecutionID: p.x.id, Offset: p.x.transcript.End()}
	unit := "bytes of memory"
	w.Code = wire.WarnSessionMemory
	if ev.Bound == proc.BoundProcesses {
		w.Code, unit = wire.WarnSessionProcesses, "processes and threads"
	}
	w.Message = fmt.Sprintf("the session holds %d of at most %d %s: beyond that, executions end", ev.Used, ev.Limit, unit)
	p.x.transcript.Mark(w)
}

func exceededReason(b proc.Bound) wire.Reason {
	switch b {
	case proc.BoundProcesses:
		return wire.ReasonProcessLimit
	case proc.BoundDisk:
		return wire.ReasonDiskLimit
	default:
		return wire.ReasonOutOfMemory
	}
}

// exceededError says which bound of the session the execution ended for.
func (p *process) exceededError(b proc.Bound) *wire.Error {
	l := p.engine.limits
	flag, limit, what := "session-memory", float64(l.SessionMemory), "bytes of memory"
	switch b {
	case proc.BoundProcesses:
		flag, limit, what = "session-processes", float64(l.SessionProcesses), "processes and threads"
	case proc.BoundDisk:
		flag, limit, what = "session-disk", float64(l.SessionDisk), "bytes in its workspace"
	}
	err := wire.Errorf(wire.CodeSessionLimit, "the session held more than %.0f %s (%s)", limit, what, flag)
	err.Data = &wire.ErrorData{Limit: flag, Value: limit}
	return err
}
