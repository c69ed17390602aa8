package actors

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file answers questions about the sessions of this pod, those of other pods too.

// sessionQuery is a question. It travels between pods as JSON, so members are only ever added.
type sessionQuery struct {
	Do       string        `json:"do"`                // one of the constants
	Session  string        `json:"session,omitempty"` // not of queryList
	Subject  []byte        `json:"subject"`           // who asks; bytes, because it need not be UTF-8
	All      bool          `json:"all,omitempty"`     // see Viewer
	Commands bool          `json:"commands,omitempty"`
	Filter   SessionFilter `json:"filter,omitzero"` // of queryList
	Output   OutputRange   `json:"output,omitzero"` // of queryOutput and queryRecord
}

const (
	queryList   = "list"
	queryGet    = "get"
	queryEnd    = "end"
	queryAttach = "attach"
	queryOutput = "output"
	queryRecord = "record"
)

// queryResult is the answer.
type queryResult struct {
	Sessions []wire.Session `json:"sessions,omitempty"`
	More     bool           `json:"more,omitempty"` // there are further sessions behind these
	Token    string         `json:"token,omitempty"`
	Error    string         `json:"error,omitempty"` // one of the constants, or a later release's

	Output     *wire.OutputPage       `json:"output,omitempty"`
	Recording  *RecordingPage         `json:"recording,omitempty"`
	transcript *transcript.Transcript // to read either from: the session has more to do
}

const (
	queryNoSession   = "no_session"
	queryNoExecution = "no_execution"
	queryBadOffset   = "bad_offset"
	queryNoTerminal  = "no_terminal"
	queryBusy        = "busy"
	queryUnknown     = "unknown"
	queryFailed      = "failed"
)

// busyAnswer is the queryResult of a pod that answers too many queries.
var busyAnswer = []byte(`{"error":"` + queryBusy + `"}`)

// sessionTimeout is how long a session may take to describe itself. Its actor never waits for long.
const sessionTimeout = time.Second

// maxListed bounds the sessions that are in the answer of one pod, in bytes of JSON. It leaves room in MaxAnswer for
// one more.
const maxListed = 64 << 10

// answerQuery answers another pod.
func (e *Engine) answerQuery(ctx context.Context, params []byte) []byte {
	var q sessionQuery
	result := queryResult{Error: queryUnknown}
	if json.Unmarshal(params, &q) == nil {
		result = e.query(ctx, &q)
	}
	b, err := encodeJSON(result)
	if err != nil {
		return []byte(`{"error":"` + queryFailed + `"}`)
	}
	return b
}

// query answers for this pod.
func (e *Engine) query(ctx context.Context, q *sessionQuery) queryResult {
	refs, err := e.sessionRefs(ctx, q)
	if err != nil {
		return queryResult{Error: queryFailed}
	}
	switch q.Do {
	case queryList:
		return e.queryList(ctx, q, refs)
	case queryGet, queryEnd, queryAttach, queryOutput, queryRecord:
		result := queryResult{Error: queryNoSession}
		if len(refs) > 0 {
			result = e.askSessions(ctx, q, refs)[0]
		}
		if result.Error == queryNoSession && q.Do == queryRecord {
			result = e.lingeringRecording(q)
		}
		switch t := result.transcript; {
		case t != nil && result.Recording != nil:
			result.Error = result.Recording.read(t, q.Output.Offset)
		case t != nil:
			result.Error = readOutput(t, q.Output, result.Output)
		}
		return result
	default:
		return queryResult{Error: queryUnknown}
	}
}

// sessionRefs returns the sessions that a query is about, as far as the manager knows, sorted.
func (e *Engine) sessionRefs(ctx context.Context, q *sessionQuery) ([]sessionRef, error) {
	answer, err := e.request(ctx, e.manager, listSessions{only: q.Session})
	if err != nil {
		return nil, err
	}
	refs, _ := answer.([]sessionRef)
	refs = slices.DeleteFunc(refs, func(r sessionRef) bool {
		return !q.All && r.subject != string(q.Subject) || q.Do == queryList && !q.Filter.covers(r)
	})
	slices.SortFunc(refs, func(a, b sessionRef) int { return strings.Compare(a.id, b.id) })
	return refs, nil
}

// request asks an actor and waits for its answer.
func (e *Engine) request(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	return e.system.Root.RequestFuture(pid, msg, timeLeft(ctx)).Result()
}

func isTimeout(err error) bool { return errors.Is(err, actor.ErrTimeout) }

func timeLeft(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(min(time.Until(deadline), sessionTimeout), 0)
	}
	return sessionTimeout
}

// queryList lists as many sessions as the filter and the size of an answer allow.
func (e *Engine) queryList(ctx context.Context, q *sessionQuery, refs []sessionRef) (out queryResult) {
	size, limit := 0, q.Filter.limit()
	for len(refs) > 0 {
		asked := refs[:min(limit, len(refs))]
		refs = refs[len(asked):]
		for i, r := range e.askSessions(ctx, q, asked) {
			if r.Error != "" || !q.Filter.matches(&r.Sessions[0]) {
				continue
			}
			b, err := encodeJSON(&r.Sessions[0])
			if err != nil {
				return queryResult{Error: queryFailed}
			}
			size += len(b)
			out.Sessions = append(out.Sessions, r.Sessions[0])
			if size > maxListed || len(out.Sessions) == limit {
				out.More = len(refs) > 0 || i < len(asked)-1
				return out
			}
		}
	}
	return out
}

// askSessions asks each session. One that does not answer is described by what its ref says.
func (e *Engine) askSessions(ctx context.Context, q *sessionQuery, refs []sessionRef) []queryResult {
	timeout := timeLeft(ctx)
	futures := make([]*actor.Future, len(refs))
	for i, r := range refs {
		futures[i] = e.system.Root.RequestFuture(r.pid, askSession{query: q}, timeout)
	}
	out := make([]queryResult, len(refs))
	for i, f := range futures {
		answer, err := f.Result()
		result, ok := answer.(queryResult)
		switch {
		case ok:
			out[i] = result
		case err == nil, !isTimeout(err): // it stopped before it could answer
			out[i] = queryResult{Error: queryNoSession}
		case q.Do == queryList || q.Do == queryGet:
			out[i] = queryResult{Sessions: []wire.Session{{
				ID: refs[i].id, Subject: refs[i].subject, Pod: e.pod, State: wire.SessionUnresponsive,
				Executions: []wire.SessionExecution{},
			}}}
		default:
			out[i] = queryResult{Error: queryFailed}
		}
	}
	return out
}

// asked answers a query about this session.
func (s *session) asked(ctx actor.Context, q *sessionQuery) {
	own := s.subject == string(q.Subject)
	switch {
	case !own && !q.All, s.phase == stopped:
		ctx.Respond(queryResult{Error: queryNoSession})
		return
	case q.Do == queryEnd:
		s.cancel(ctx, eventClientDone, wire.ReasonSessionClosed, causeDeleted)
	case q.Do == queryAttach && (!own || s.ephemeral || sessionTable[eventAttach][s.phase] != serving):
		ctx.Respond(queryResult{Error: queryNoSession})
		return
	case q.Do == queryAttach:
		ctx.Respond(queryResult{Token: s.issueToken()})
		return
	case q.Do == queryOutput:
		ctx.Respond(s.outputOf(q.Output.Execution))
		return
	case q.Do == queryRecord:
		ctx.Respond(s.recordingOf(q))
		return
	}
	ctx.Respond(queryResult{Sessions: []wire.Session{s.describe(q.Do == queryList, own || q.Commands)}})
}

// describe describes the session; in a listing with less of its executions.
func (s *session) describe(listing, commands bool) wire.Session {
	d := wire.Session{
		ID: s.id, Name: s.options.Name, Labels: s.options.Labels, Subject: s.subject, Pod: s.engine.pod,
		State: s.state(), CreatedAt: timestamp(s.created), LastActivity: timestamp(s.lastActivity),
		Connections: len(s.conns), Isolation: s.engine.isolation(), ResumeWindow: s.options.ResumeWindow.Seconds(),
	}
	most := wire.DescribedExecutions
	shown := make([]*execution, 0, len(s.executions))
	for _, x := range s.executions {
		if !listing || !x.dead {
			shown = append(shown, x)
		}
	}
	if listing {
		most = wire.ListedExecutions
	}
	slices.SortFunc(shown, func(a, b *execution) int {
		return cmp.Or(a.requested.Compare(b.requested), strings.Compare(a.id, b.id))
	})
	if n := len(shown) - most; n > 0 {
		d.ExecutionsOmitted, shown = n, shown[n:] // the newest matter most
	}
	d.Executions = make([]wire.SessionExecution, len(shown))
	for i, x := range shown {
		d.Executions[i] = x.describe(commands)
	}
	return d
}

func (s *session) state() wire.SessionState {
	switch {
	case s.phase != serving:
		return wire.SessionClosing
	case len(s.conns) > 0:
		return wire.SessionAttached
	default:
		return wire.SessionDetached
	}
}

func (x *execution) describe(command bool) wire.SessionExecution {
	d := wire.SessionExecution{
		ID: x.id, State: x.state, StartedAt: timestamp(x.requested), Offset: x.transcript.End(),
		Terminal: x.plan.terminal != nil,
	}
	if command {
		d.Command = x.plan.shown
	}
	if !x.dead {
		d.MemoryBytes = x.tree.Memory()
	}
	if x.completed != nil {
		d.Reason, d.ExitCode = x.completed.Reason, &x.completed.ExitCode
	}
	return d
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
