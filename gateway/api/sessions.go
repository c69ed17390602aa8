package api

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/gateway"
)

//go:embed openapi.json
var openapi []byte

func document(context.Context, *request) (answer, error) {
	return answer{status: http.StatusOK, body: json.RawMessage(openapi)}, nil
}

// Scopes of a list.
const (
	scopeOwn = "own"
	scopeAll = "all"
)

// sessionPage is a page of a list, and whose sessions are in it.
type sessionPage struct {
	Scope string `json:"scope"` // own or all
	*wire.SessionList
}

func listSessions(ctx context.Context, r *request) (answer, error) {
	filter, scope, err := parseList(r.URL.Query())
	if err != nil {
		return answer{}, &problem{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	viewer := actors.Viewer{Subject: r.subject}
	if scope != scopeOwn {
		if viewer.All, err = r.may(gateway.VerbList); err != nil {
			return answer{}, err
		}
	}
	if scope == scopeAll && !viewer.All {
		return answer{}, &problem{Status: http.StatusForbidden, Detail: fmt.Sprintf(
			"%s may not list the sessions of others: leave out scope=all", r.subject)}
	}
	scope = scopeOwn
	if viewer.All {
		scope = scopeAll
		if viewer.Commands, err = r.may(gateway.VerbRead); err != nil {
			return answer{}, err
		}
	}
	list, err := r.h.cfg.Engine.ListSessions(ctx, viewer, filter)
	if viewer.All {
		r.audit(gateway.VerbList, "", "", viewer, err, http.StatusOK)
	}
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: sessionPage{scope, list}}, nil
}

func getSession(ctx context.Context, r *request) (answer, error) {
	return r.describe(ctx, gateway.VerbGet, http.StatusOK, r.h.cfg.Engine.GetSession)
}

func endSession(ctx context.Context, r *request) (answer, error) {
	return r.describe(ctx, gateway.VerbDelete, http.StatusAccepted, r.h.cfg.Engine.EndSession)
}

// describe does something with a session and answers with its description.
func (r *request) describe(
	ctx context.Context, verb gateway.Verb, status int,
	do func(context.Context, actors.Viewer, string) (*wire.Session, error),
) (answer, error) {
	if err := noQuery(r.URL.Query()); err != nil {
		return answer{}, err
	}
	a := answer{status: status}
	err := r.withSession(verb, status, func(v actors.Viewer) (string, error) {
		s, err := do(ctx, v, r.PathValue("id"))
		if err != nil {
			return "", err
		}
		a.body = s
		return s.Subject, nil
	})
	return a, err
}

// withSession does something with a session: of the client's own first, and then of another subject if the client has
// the verb. do returns whose it is.
func (r *request) withSession(verb gateway.Verb, status int, do func(actors.Viewer) (owner string, err error)) error {
	viewer := actors.Viewer{Subject: r.subject}
	_, err := do(viewer)
	if !errors.Is(err, actors.ErrNoSession) {
		return err
	}
	var mayErr error
	if viewer.All, mayErr = r.may(verb); mayErr != nil {
		return mayErr
	}
	if !viewer.All {
		return err
	}
	if viewer.Commands, mayErr = r.may(gateway.VerbRead); mayErr != nil {
		return mayErr
	}
	owner, err := do(viewer)
	r.audit(verb, r.PathValue("id"), owner, viewer, err, status)
	return err
}

// readOutput reads a page of the output of an execution. It is no reader in the sense of retain: it takes nothing away
// and holds nobody up.
func readOutput(ctx context.Context, r *request) (answer, error) {
	what, err := parseOutput(r.URL.Query())
	if err != nil {
		return answer{}, &problem{Status: http.StatusBadRequest, Detail: err.Error()}
	}
	what.Execution = r.PathValue("execution")
	a := answer{status: http.StatusOK}
	err = r.withSession(gateway.VerbRead, http.StatusOK, func(v actors.Viewer) (string, error) {
		page, err := r.h.cfg.Engine.ReadOutput(ctx, v, r.PathValue("id"), what)
		if err != nil {
			return "", err
		}
		a.body = page
		return page.Subject, nil
	})
	return a, err
}

// parseOutput reads the parameters of a page of output.
func parseOutput(query url.Values) (r actors.OutputRange, err error) {
	for name, values := range query {
		switch n, err := strconv.ParseInt(values[0], 10, 64); {
		case name != "offset" && name != "limit":
			return r, fmt.Errorf("unknown parameter %.40q: use offset and limit", name)
		case len(values) > 1:
			return r, fmt.Errorf("%s may be given once", name)
		case name == "offset" && (err != nil || n < 0):
			return r, fmt.Errorf("offset %.40q: use 0, or next_offset of a page", values[0])
		case name == "limit" && (err != nil || n < 1 || n > actors.MaxOutput):
			return r, fmt.Errorf("limit %.40q: use a number of bytes from 1 to %d", values[0], actors.MaxOutput)
		case name == "offset":
			r.Offset = n
		default:
			r.Limit = int(n)
		}
	}
	return r, nil
}

func attachSession(ctx context.Context, r *request) (answer, error) {
	if err := noQuery(r.URL.Query()); err != nil {
		return answer{}, err
	}
	a, err := r.h.cfg.Engine.AttachSession(ctx, actors.Viewer{Subject: r.subject}, r.PathValue("id"))
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: a}, nil
}

func listPods(_ context.Context, r *request) (answer, error) {
	if err := noQuery(r.URL.Query()); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: r.h.cfg.Engine.Pods()}, nil
}

func (r *request) audit(
	verb gateway.Verb, session, owner string, v actors.Viewer, err error, status int,
) {
	if r.h.cfg.Audit == nil {
		return
	}
	if err != nil {
		status = problemOf(err).Status
	}
	r.h.cfg.Audit(Access{
		Subject:   r.subject,
		Verb:      verb,
		Session:   session,
		Execution: r.PathValue("execution"),
		Owner:     owner,
		Read:      v.Commands,
		Remote:    r.RemoteAddr,
		Status:    status,
	})
}

// noQuery refuses parameters, which no request but a list has.
func noQuery(query url.Values) error {
	for name := range query {
		return &problem{
			Status: http.StatusBadRequest,
			Detail: fmt.Sprintf("unknown parameter %.40q: there is none here", name),
		}
	}
	return nil
}

// listParameters are those of a list.
var listParameters = []string{"continue", "label", "limit", "name", "pod", "scope", "state", "subject"}

// parseList reads the parameters of a list.
func parseList(query url.Values) (f actors.SessionFilter, scope string, err error) {
	for name, values := range query {
		if !slices.Contains(listParameters, name) {
			return f, "", fmt.Errorf("unknown parameter %.40q: use %s", name, strings.Join(listParameters, ", "))
		}
		if len(values) > 1 && name != "label" {
			return f, "", fmt.Errorf("%s may be given once", name)
		}
		if values[0] == "" {
			return f, "", fmt.Errorf("%s is empty: leave it out", name)
		}
	}
	scope = query.Get("scope")
	if scope != "" && scope != scopeOwn && scope != scopeAll {
		return f, "", fmt.Errorf("unknown scope %.40q: use own or all, or leave it out for all that you may see", scope)
	}
	f = actors.SessionFilter{
		Name: query.Get("name"), Subject: query.Get("subject"), Pod: query.Get("pod"), After: query.Get("continue"),
		State: wire.SessionState(query.Get("state")),
	}
	if f.State != "" && !slices.Contains(wire.SessionStates(), f.State) {
		return f, "", fmt.Errorf("unknown state %.40q: use attached, detached, closing or unresponsive", string(f.State))
	}
	if limit := query.Get("limit"); limit != "" {
		if f.Limit, err = strconv.Atoi(limit); err != nil || f.Limit < 1 || f.Limit > actors.MaxListed {
			return f, "", fmt.Errorf("limit %.40q: use a number from 1 to %d", limit, actors.MaxListed)
		}
	}
	f.Labels, err = parseLabels(query["label"])
	return f, scope, err
}

func parseLabels(list []string) (map[string]string, error) {
	if len(list) > wire.MaxLabels {
		return nil, fmt.Errorf("%d labels: a session has at most %d", len(list), wire.MaxLabels)
	}
	labels := make(map[string]string, len(list))
	for _, label := range list {
		key, value, ok := strings.Cut(label, "=")
		if !ok {
			return nil, fmt.Errorf("label %.80q: write key=value", label)
		}
		if err := wire.CheckLabel(key, value); err != nil {
			return nil, err
		}
		if _, twice := labels[key]; twice {
			return nil, fmt.Errorf("label %s is given twice, and a session has it once", key)
		}
		labels[key] = value
	}
	return labels, nil
}
