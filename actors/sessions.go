package actors

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/troupe-dev/troupe/actors/peers"
	"github.com/troupe-dev/troupe/actors/relay"
	"github.com/troupe-dev/troupe/actors/wire"
)

// This file is how the gateway sees the sessions of the whole service.

// Viewer is who asks about sessions, and what they may see.
type Viewer struct {
	Subject  string
	All      bool // the sessions of every subject, and not only their own
	Commands bool // what others run
}

// SessionFilter says which sessions to list. The zero value lists the first DefaultListed of all.
type SessionFilter struct {
	Name    string            `json:"name,omitempty"`
	Subject string            `json:"subject,omitempty"`
	Pod     string            `json:"pod,omitempty"`
	State   wire.SessionState `json:"state,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"` // the session has all of them
	After   string            `json:"after,omitempty"`  // wire.SessionList.Continue of the page before
	Limit   int               `json:"limit,omitempty"`  // 0: DefaultListed; at most MaxListed
}

// Bounds of a page.
const (
	DefaultListed = 100
	MaxListed     = 500
)

func (f *SessionFilter) limit() int {
	if f.Limit <= 0 {
		return DefaultListed
	}
	return min(f.Limit, MaxListed)
}

// covers reports whether a session may match, by what the manager knows of it.
func (f *SessionFilter) covers(r sessionRef) bool {
	return (f.Subject == "" || f.Subject == r.subject) && r.id > f.After
}

func (f *SessionFilter) matches(s *wire.Session) bool {
	for key, value := range f.Labels {
		if got, ok := s.Labels[key]; !ok || got != value {
			return false
		}
	}
	return (f.Name == "" || f.Name == s.Name) && (f.State == "" || f.State == s.State)
}

var (
	// ErrNoSession: there is no such session, or whoever asks may not know of it.
	ErrNoSession = errors.New("no such session")
	// ErrBadContinue: no list has said so.
	ErrBadContinue = errors.New("continue is not what a list has returned")
	// ErrNoPod: the service has no such pod.
	ErrNoPod = errors.New("no such pod")
)

const (
	// maxAsked is how many pods are asked at a time for a list. It bounds what their answers hold.
	maxAsked = 8
	// maxPage ends a page that has so many bytes.
	maxPage = 256 << 10
)

// ListSessions lists sessions of all pods, sorted by pod and id. It takes QueryTimeout at most, and names the pods
// that have not answered.
func (e *Engine) ListSessions(ctx context.Context, v Viewer, f SessionFilter) (*wire.SessionList, error) {
	pods, err := e.podsToList(&f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, QueryTimeout)
	defer cancel()
	list := &wire.SessionList{Sessions: []wire.Session{}}
	answers := e.askForPage(ctx, pods, func(pod string) *sessionQuery {
		q := sessionQuery{Do: queryList, Subject: []byte(v.Subject), All: v.All, Commands: v.Commands, Filter: f}
		if after, _, _ := ownerOf(f.After); after != pod {
			q.Filter.After = ""
		}
		return &q
	})
	for i, a := range answers {
		if a.err != nil {
			list.Missing = append(list.Missing, missing(pods[i], a.err))
		}
		if addToPage(list, a, f.limit(), i < len(pods)-1) {
			break
		}
	}
	return list, nil
}

// podsToList returns the pods that may have sessions for a page, sorted.
func (e *Engine) podsToList(f *SessionFilter) ([]string, error) {
	pods := []string{e.pod}
	if e.cluster != nil {
		pods = append(pods, e.cluster.others()...)
		slices.Sort(pods)
	}
	after, _, ok := ownerOf(f.After)
	if f.After != "" && !ok {
		return nil, ErrBadContinue
	}
	if f.Pod != "" && !slices.Contains(pods, f.Pod) {
		return nil, ErrNoPod
	}
	return slices.DeleteFunc(pods, func(pod string) bool { return pod < after || f.Pod != "" && pod != f.Pod }), nil
}

// podAnswer is the answer of one pod.
type podAnswer struct {
	queryResult
	size int // bytes, if it is another pod's
	err  error
}

// askForPage asks the pods in order, some at a time, until the answers fill a page. It returns the answers of those
// that it has asked.
func (e *Engine) askForPage(ctx context.Context, pods []string, query func(pod string) *sessionQuery) []podAnswer {
	var (
		mu          sync.Mutex
		wg          sync.WaitGroup
		found, size int
		slots       = make(chan struct{}, maxAsked)
		answers     = make([]podAnswer, len(pods))
	)
	for i, pod := range pods {
		slots <- struct{}{} // no answer takes longer than ctx
		q := query(pod)
		mu.Lock()
		full := found >= q.Filter.limit() || size >= maxPage
		mu.Unlock()
		if full {
			answers = answers[:i]
			break
		}
		wg.Go(func() {
			a := e.queryPod(ctx, pod, q)
			mu.Lock()
			defer mu.Unlock()
			answers[i] = a
			found, size = found+len(a.Sessions), size+a.size
			<-slots
		})
	}
	wg.Wait()
	return answers
}

// addToPage adds the sessions of one pod, and reports whether the page is full.
func addToPage(list *wire.SessionList, a podAnswer, limit int, morePods bool) (full bool) {
	room := limit - len(list.Sessions)
	cut := len(a.Sessions) > room
	list.Sessions = append(list.Sessions, a.Sessions[:min(room, len(a.Sessions))]...)
	full = a.More || len(list.Sessions) == limit
	if last := len(list.Sessions) - 1; last >= 0 && (cut || a.More || full && morePods) {
		list.Continue = list.Sessions[last].ID
	}
	return full
}

// queryPod asks one pod, which may be this one.
func (e *Engine) queryPod(ctx context.Context, pod string, q *sessionQuery) podAnswer {
	if pod == e.pod {
		result := e.query(ctx, q)
		return podAnswer{queryResult: result, err: queryError(pod, result.Error)}
	}
	params, err := encodeJSON(q)
	if err != nil {
		return podAnswer{err: err}
	}
	data, err := e.cluster.ask(ctx, pod, params)
	if err != nil {
		return podAnswer{err: err}
	}
	a := podAnswer{size: len(data)}
	if err := json.Unmarshal(data, &a.queryResult); err != nil {
		return podAnswer{err: &PodSilentError{pod, "its answer was damaged"}}
	}
	a.err = queryError(pod, a.Error)
	return a
}

func queryError(pod, code string) error {
	switch code {
	case "":
		return nil
	case queryNoSession:
		return ErrNoSession
	case queryNoExecution:
		return ErrNoExecution
	case queryBadOffset:
		return ErrBadOffset
	case queryNoTerminal:
		return ErrNoTerminal
	case queryBusy:
		return &PodSilentError{pod, "it answers too many queries at once: try again"}
	case queryUnknown:
		return &PodSilentError{pod, "its release does not know the query"}
	default:
		return &PodSilentError{pod, "it failed to answer"}
	}
}

func missing(pod string, err error) wire.MissingPod {
	var silent *PodSilentError
	if errors.As(err, &silent) {
		return wire.MissingPod{Pod: pod, Reason: silent.Reason}
	}
	return wire.MissingPod{Pod: pod, Reason: "its answer failed"}
}

// GetSession describes a session. The error is ErrNoSession or a *PodSilentError.
func (e *Engine) GetSession(ctx context.Context, v Viewer, id string) (*wire.Session, error) {
	return e.sessionOf(ctx, queryGet, v, id)
}

// EndSession begins the end of a session, as its client's close does, and describes it. It may be repeated.
func (e *Engine) EndSession(ctx context.Context, v Viewer, id string) (*wire.Session, error) {
	return e.sessionOf(ctx, queryEnd, v, id)
}

func (e *Engine) sessionOf(ctx context.Context, do string, v Viewer, id string) (*wire.Session, error) {
	a := e.queryOwner(ctx, v, &sessionQuery{Do: do, Session: id})
	if a.err == nil && len(a.Sessions) != 1 {
		a.err = ErrNoSession
	}
	if a.err != nil {
		return nil, a.err
	}
	return &a.Sessions[0], nil
}

// AttachSession makes a resume token of the viewer's own session.
func (e *Engine) AttachSession(ctx context.Context, v Viewer, id string) (*wire.Attachment, error) {
	v.All = false
	a := e.queryOwner(ctx, v, &sessionQuery{Do: queryAttach, Session: id})
	if a.err != nil {
		return nil, a.err
	}
	return &wire.Attachment{SessionID: id, ResumeToken: a.Token}, nil
}

// ReadOutput reads a part of the output of an execution. The error is ErrNoSession, ErrNoExecution, ErrBadOffset or a
// *PodSilentError.
func (e *Engine) ReadOutput(ctx context.Context, v Viewer, session string, r OutputRange) (*wire.OutputPage, error) {
	a := e.queryOwner(ctx, v, &sessionQuery{Do: queryOutput, Session: session, Output: r})
	if a.err == nil && a.Output == nil {
		a.err = ErrNoSession
	}
	return a.Output, a.err
}

// ReadRecording reads a part of the recording of a terminal, from an offset of its output on. The error is that of
// ReadOutput, or ErrNoTerminal.
func (e *Engine) ReadRecording(
	ctx context.Context, v Viewer, session, execution string, offset int64,
) (*RecordingPage, error) {
	r := OutputRange{Execution: execution, Offset: offset}
	a := e.queryOwner(ctx, v, &sessionQuery{Do: queryRecord, Session: session, Output: r})
	if a.err == nil && a.Recording == nil {
		a.err = ErrNoSession
	}
	return a.Recording, a.err
}

// queryOwner asks the pod that owns the session of a query, for a viewer.
func (e *Engine) queryOwner(ctx context.Context, v Viewer, q *sessionQuery) podAnswer {
	ctx, cancel := context.WithTimeout(ctx, QueryTimeout)
	defer cancel()
	pod, _, ok := ownerOf(q.Session)
	if !ok || pod != e.pod && (e.cluster == nil || e.cluster.lookup(pod) == peers.Unknown) {
		return podAnswer{err: ErrNoSession}
	}
	q.Subject, q.All, q.Commands = []byte(v.Subject), v.All, v.Commands
	return e.queryPod(ctx, pod, q)
}

// Pods describes the pods of the service.
func (e *Engine) Pods() *wire.PodList {
	s := e.Stats()
	self := wire.Pod{
		Name: e.pod, State: wire.PodReady, Sessions: s.Sessions, MaxSessions: s.MaxSessions, Self: true,
		Refused: s.Refused, Started: s.Started, StartSeconds: s.StartTime.Seconds(),
	}
	if !e.Ready() {
		self.State = wire.PodDraining
	}
	list := &wire.PodList{Pods: []wire.Pod{self}}
	if e.cluster != nil {
		list.Pods = append(list.Pods, e.cluster.pods()...)
	}
	slices.SortFunc(list.Pods, func(a, b wire.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// pods describes the peers.
func (p *cluster) pods() (pods []wire.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.known {
		info := p.table.Peer(name)
		d := wire.Pod{
			Name: name, State: wire.PodUnknown, Sessions: info.Sessions, MaxSessions: info.MaxSessions,
			Refused: info.Refused, Started: info.Started, StartSeconds: info.StartTime.Seconds(),
		}
		switch {
		case info.State == relay.PeerIsDead:
			d.State = wire.PodDead
		case info.State == relay.PeerIsAlive && info.Draining:
			d.State = wire.PodDraining
		case info.State == relay.PeerIsAlive:
			d.State = wire.PodReady
		}
		pods = append(pods, d)
	}
	return pods
}

// encodeJSON encodes v without the escapes for HTML, which would make a command up to six times as long.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
