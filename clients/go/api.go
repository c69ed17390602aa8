package troupe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// API calls a server's HTTP API, which describes the sessions and pods of the whole service. It is safe for
// concurrent use.
type API struct {
	base url.URL
	opt  Options
}

// NewAPI returns an API of the server whose WebSocket endpoint is at url, as for Dial. Of the options it uses those of
// the token and the connection.
func NewAPI(endpoint string, opt Options) (*API, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	base := *u
	base.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	base.Path, base.RawPath, base.RawQuery, base.Fragment = path.Join(path.Dir(u.Path), "api/v1"), "", "", ""
	return &API{base, opt.withDefaults()}, nil
}

// SessionQuery says which sessions to list. The zero value lists all that the client may see.
type SessionQuery struct {
	Own    bool              // only the client's own
	All    bool              // those of every subject, or an *APIError with status 403
	Labels map[string]string // a session has all of them
	Name   string            // empty: any
	Limit  int               // of the page, at most 500; 0: 100
	After  string            // Continue of the page before
}

// Sessions returns a page of sessions. The pods in its Missing did not answer.
func (a *API) Sessions(ctx context.Context, q SessionQuery) (*wire.SessionList, error) {
	v := url.Values{}
	switch {
	case q.All:
		v.Set("scope", "all")
	case q.Own:
		v.Set("scope", "own")
	}
	for key, value := range q.Labels {
		v.Add("label", key+"="+value)
	}
	if q.Name != "" {
		v.Set("name", q.Name)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.After != "" {
		v.Set("continue", q.After)
	}
	return ask[wire.SessionList](ctx, a, http.MethodGet, v, "sessions")
}

// Session describes a session.
func (a *API) Session(ctx context.Context, id string) (*wire.Session, error) {
	return ask[wire.Session](ctx, a, http.MethodGet, nil, "sessions", id)
}

// EndSession begins the end of a session: what runs in it is cancelled. Session fails with status 404 once it is gone.
func (a *API) EndSession(ctx context.Context, id string) (*wire.Session, error) {
	return ask[wire.Session](ctx, a, http.MethodDelete, nil, "sessions", id)
}

// AttachSession returns a fresh resume token of the client's own session, for the function Attach.
func (a *API) AttachSession(ctx context.Context, id string) (*wire.Attachment, error) {
	return ask[wire.Attachment](ctx, a, http.MethodPost, nil, "sessions", id, "attach")
}

// Pods describes the pods of the service.
func (a *API) Pods(ctx context.Context) (*wire.PodList, error) {
	return ask[wire.PodList](ctx, a, http.MethodGet, nil, "pods")
}

// APIError is an answer of the HTTP API, or of a proxy in front of it, that is no success.
type APIError struct {
	StatusCode int    // HTTP status
	Detail     string // what was wrong; of a proxy, the first 1,024 bytes of what it said
	Pod        string // with 504: the pod that did not answer
	Problem    bool   // the API has answered, and not a proxy or a server that has none
}

func (e *APIError) Error() string {
	if e.Problem {
		return e.Detail
	}
	return strings.TrimSuffix(fmt.Sprintf("the server answered %d %s: %s",
		e.StatusCode, http.StatusText(e.StatusCode), e.Detail), ": ")
}

// maxAnswer bounds an answer of the API in bytes, far above what a server sends.
const maxAnswer = 16 << 20

// RecordingQuery says which part of a recording to get.
type RecordingQuery struct {
	Since  string // the time of an event, as the event has it: leave out what was before; empty: nothing
	Follow bool   // go on until the terminal ends
}

// Recording returns what a terminal has shown as an asciicast of version 2, of the client's own or, with the verb read,
// of another subject. The caller closes it. If reading fails with another error than io.EOF, it is not whole, and
// RecordingQuery.Since continues it.
func (a *API) Recording(ctx context.Context, session, execution string, q RecordingQuery) (io.ReadCloser, error) {
	v := url.Values{}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	ctx, cancel := context.WithCancel(ctx)
	tooLate := time.AfterFunc(a.opt.HandshakeTimeout, cancel)
	resp, err := a.send( //nolint:bodyclose // the caller closes it
		ctx, http.MethodGet, v, "sessions", session, "executions", execution, "recording")
	inTime := tooLate.Stop()
	if err != nil {
		cancel()
		if !inTime {
			err = fmt.Errorf("no answer within %s", a.opt.HandshakeTimeout)
		}
		return nil, err
	}
	return &canceledBody{resp.Body, cancel}, nil // if it was not in time, reading fails
}

// canceledBody is the body of an answer whose request ends with it.
type canceledBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *canceledBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// ask sends a request and decodes its answer.
func ask[T any](ctx context.Context, a *API, method string, query url.Values, segments ...string) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opt.HandshakeTimeout)
	defer cancel()
	resp, err := a.send(ctx, method, query, segments...)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, errors.New("the answer is not that of the API: check the server's URL")
	}
	return v, nil
}

// send sends a request. The error is an *APIError if the answer is no success; otherwise the caller closes its body.
func (a *API) send(ctx context.Context, method string, query url.Values, segments ...string) (*http.Response, error) {
	u := a.base
	u.RawQuery = query.Encode()
	for _, s := range segments {
		u.RawPath += "/" + url.PathEscape(s)
		u.Path += "/" + s
	}
	u.RawPath = a.base.Path + u.RawPath
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if a.opt.Header != nil {
		req.Header = a.opt.Header.Clone()
	}
	token, err := a.opt.TokenFunc()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Close = true // requests are few, and nothing would close the connection later
	resp, err := a.opt.HTTPClient.Do(req)
	if err != nil || resp.StatusCode/100 == 2 {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return nil, apiError(resp, body)
}

func apiError(resp *http.Response, body []byte) *APIError {
	e := &APIError{StatusCode: resp.StatusCode}
	var p struct{ Detail, Pod string }
	if resp.Header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(body, &p) == nil {
		e.Detail, e.Pod, e.Problem = p.Detail, p.Pod, true
		return e
	}
	e.Detail = strings.TrimSpace(string(body[:min(len(body), 1024)]))
	return e
}
