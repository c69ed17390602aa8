package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troupe-dev/troupe/actors"
	"github.com/troupe-dev/troupe/actors/wire"
	"github.com/troupe-dev/troupe/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sessions is an engine of two sessions, of alice and of bob. A pod gone does not answer.
type sessions struct {
	isolation string
	fail      error
	ended     []string
	asked     []actors.SessionFilter
	block     chan struct{} // closed: requests go on; nil: they do

	// Of the recording of the execution x.
	shown  [][]actors.RecordingPiece // of each page; an offset is that of a page
	kept   int64                     // pages that are there when it begins
	failAt map[int64]error
	heal   int // at the read of this number the pod answers again; 0: never
}

const (
	alices = "pod-0.00000000000000000000000000000001"
	bobs   = "pod-0.00000000000000000000000000000002"
	silent = "gone.00000000000000000000000000000003"
)

func (e *sessions) find(v actors.Viewer, id string) (*wire.Session, error) {
	owner := map[string]string{alices: "alice", bobs: "bob"}[id]
	switch {
	case e.fail != nil:
		return nil, e.fail
	case id == silent:
		return nil, &actors.PodSilentError{Pod: "gone", Reason: "it did not answer in time"}
	case owner == "" || owner != v.Subject && !v.All:
		return nil, actors.ErrNoSession
	}
	code := 0
	s := &wire.Session{
		ID: id, Name: "nightly", Labels: map[string]string{"k": "v"}, Subject: owner, Pod: "pod-0",
		State: wire.SessionAttached, CreatedAt: "2026-01-02T15:04:05Z", LastActivity: "2026-01-02T15:04:06.5Z", Connections: 1,
		Isolation: wire.IsolationNone, ResumeWindow: 300, ExecutionsOmitted: 1,
		Executions: []wire.SessionExecution{{
			ID: "x", State: wire.StateExited, StartedAt: "2026-01-02T15:04:05Z", Offset: 7, MemoryBytes: 1,
			Reason: wire.ReasonExited, ExitCode: &code,
		}},
	}
	if owner == v.Subject || v.Commands {
		s.Executions[0].Command = "make <all> && echo"
	}
	return s, nil
}

func (e *sessions) ListSessions(_ context.Context, v actors.Viewer, f actors.SessionFilter) (*wire.SessionList, error) {
	if e.block != nil {
		<-e.block
	}
	e.asked = append(e.asked, f)
	if f.Pod == "nowhere" {
		return nil, actors.ErrNoPod
	}
	if f.After == "x" {
		return nil, actors.ErrBadContinue
	}
	list := &wire.SessionList{
		Sessions: []wire.Session{}, Continue: bobs, Missing: []wire.MissingPod{{Pod: "gone", Reason: "it is dead"}},
	}
	for _, id := range []string{alices, bobs} {
		s, err := e.find(v, id)
		if err == nil {
			list.Sessions = append(list.Sessions, *s)
		} else if !errors.Is(err, actors.ErrNoSession) {
			return nil, err
		}
	}
	return list, nil
}

func (e *sessions) GetSession(_ context.Context, v actors.Viewer, id string) (*wire.Session, error) {
	return e.find(v, id)
}

func (e *sessions) EndSession(_ context.Context, v actors.Viewer, id string) (*wire.Session, error) {
	s, err := e.find(v, id)
	if err == nil {
		e.ended = append(e.ended, id)
		s.State = wire.SessionClosing
	}
	return s, err
}

func (e *sessions) AttachSession(_ context.Context, v actors.Viewer, id string) (*wire.Attachment, error) {
	if _, err := e.find(v, id); err != nil {
		return nil, err
	}
	return &wire.Attachment{SessionID: id, ResumeToken: "t"}, nil
}

func (e *sessions) ReadOutput(
	_ context.Context, v actors.Viewer, id string, r actors.OutputRange,
) (*wire.OutputPage, error) {
	s, err := e.find(v, id)
	switch {
	case err != nil:
		return nil, err
	case r.Execution != "x":
		return nil, actors.ErrNoExecution
	case r.Offset > 7:
		return nil, actors.ErrBadOffset
	}
	return &wire.OutputPage{
		SessionID: id, Subject: s.Subject, ExecutionID: "x", NextOffset: 7, End: true,
		Pieces: []wire.OutputPiece{
			{Gap: 3},
			{Stream: "stdout", Data: "made"},
			{Stream: "stderr", Data: "/w==", Encoding: wire.EncodingBase64, Truncated: true},
		},
	}, nil
}

func (e *sessions) ReadRecording(
	_ context.Context, v actors.Viewer, id, execution string, offset int64,
) (*actors.RecordingPage, error) {
	s, err := e.find(v, id)
	switch {
	case err != nil:
		return nil, err
	case execution == "plain":
		return nil, actors.ErrNoTerminal
	case execution != "x":
		return nil, actors.ErrNoExecution
	}
	page := &actors.RecordingPage{
		Subject: s.Subject, Started: time.Unix(1700000000, 0), Command: "vim <x>", NextOffset: offset, Offset: e.kept,
		Terminal: &wire.Terminal{Cols: 80, Rows: 24, Term: "xterm-256color"},
	}
	if offset < int64(len(e.shown)) {
		page.Pieces, page.NextOffset = e.shown[offset], offset+1
		err := e.failAt[offset]
		if e.heal--; e.heal == 0 {
			delete(e.failAt, offset)
		}
		return page, err
	}
	page.End = e.kept == int64(len(e.shown))
	return page, nil
}

func (e *sessions) Pods() *wire.PodList {
	return &wire.PodList{Pods: []wire.Pod{
		{Name: "gone", State: wire.PodDead}, {Name: "pod-0", State: wire.PodReady, Sessions: 2, MaxSessions: 100, Self: true},
	}}
}

func (e *sessions) Stats() actors.Stats { return actors.Stats{Isolation: e.isolation} }

// Connect is the gateway's: no test here opens a socket.
func (e *sessions) Connect(actors.ConnectRequest, actors.Sink) gateway.Connection { return nil }

// The tokens of the file, which are their subjects twice.
const tokens = `alice alice-alice-alice
bob bob-bob-bob-bob-bob
vera vera-vera-vera-vera viewer
olga olga-olga-olga-olga operator
aldo aldo-aldo-aldo-aldo auditor,operator
`

var tokenOf = map[string]string{
	"alice": "alice-alice-alice", "bob": "bob-bob-bob-bob-bob", "vera": "vera-vera-vera-vera",
	"olga": "olga-olga-olga-olga", "aldo": "aldo-aldo-aldo-aldo", "mallory": "not-in-the-file-at-all",
}

type fixture struct {
	t        *testing.T
	engine   *sessions
	handler  *Handler
	accesses []Access
}

func newFixture(t *testing.T, auth gateway.Authenticator) *fixture {
	t.Helper()
	f := &fixture{t: t, engine: &sessions{isolation: wire.IsolationNone}}
	if auth == nil {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(tokens), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if auth, err = gateway.NewTokenFile(path, nil); err != nil {
			t.Fatal(err)
		}
	}
	g, err := gateway.New(gateway.Config{Engine: f.engine, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	f.handler, err = New(Config{
		Engine: f.engine, Gateway: g, Audit: func(a Access) { f.accesses = append(f.accesses, a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// do sends a request to localhost. header is name, value, name, value...
func (f *fixture) do(method, path, subject string, header ...string) *http.Response {
	f.t.Helper()
	r := httptest.NewRequestWithContext(f.t.Context(), method, "http://localhost"+path, nil)
	if subject != "" {
		r.Header.Set("Authorization", "Bearer "+tokenOf[subject])
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return f.send(r)
}

func (f *fixture) send(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w.Result()
}

func decode[T any](t *testing.T, resp *http.Response) (v T) {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// TestWhoSeesAndEndsWhat: each role, with the session of another; and what of it is an audit line.
func TestWhoSeesAndEndsWhat(t *testing.T) {
	const (
		list, get, end, attach = "GET /sessions", "GET /sessions/", "DELETE /sessions/", "POST /sessions/+/attach"
		output                 = "GET /sessions/+/executions/x/output"
		watch                  = "GET /sessions/+/executions/x/recording?follow=true"
	)
	for _, tc := range []struct {
		who, what, id string
		status        int
		command       bool   // they see what runs
		audit         string // verb and owner
	}{
		{"alice", get, alices, 200, true, ""},
		{"alice", end, alices, 202, true, ""},
		{"alice", attach, alices, 200, false, ""},
		{"alice", output, alices, 200, false, ""},
		{"alice", output, bobs, 404, false, ""},
		{"vera", output, bobs, 403, false, ""},
		{"olga", output, bobs, 403, false, ""},
		{"aldo", output, bobs, 200, false, "read bob 200"},
		{"aldo", output, "pod-0.x", 404, false, "read  404"},
		{"mallory", output, bobs, 401, false, ""},
		{"alice", watch, alices, 200, false, ""},
		{"alice", watch, bobs, 404, false, ""},
		{"vera", watch, bobs, 403, false, ""},
		{"olga", watch, bobs, 403, false, ""},
		{"aldo", watch, bobs, 200, false, "read bob 200"},
		{"aldo", watch, "pod-0.x", 404, false, "read  404"},
		{"mallory", watch, bobs, 401, false, ""},
		{"alice", get, bobs, 404, false, ""},
		{"alice", end, bobs, 404, false, ""},
		{"alice", attach, bobs, 404, false, ""},
		{"vera", get, bobs, 200, false, "get bob 200"},
		{"vera", end, bobs, 403, false, ""},
		{"vera", attach, bobs, 403, false, ""},
		{"olga", get, bobs, 200, false, "get bob 200"},
		{"olga", end, bobs, 202, false, "delete bob 202"},
		{"olga", attach, bobs, 403, false, ""},
		{"olga", get, "pod-0.x", 404, false, "get  404"},
		{"aldo", get, bobs, 200, true, "get bob 200"},
		{"aldo", end, bobs, 202, true, "delete bob 202"},
		{"aldo", attach, bobs, 403, false, ""},
		{"mallory", get, bobs, 401, false, ""},
		{"", list, "", 401, false, ""},
		{"alice", list, "", 200, true, ""},
		{"alice", list + "?scope=all", "", 403, false, ""},
		{"vera", list, "", 200, false, "list  200"},
		{"vera", list + "?scope=own", "", 200, false, ""},
		{"aldo", list + "?scope=all", "", 200, true, "list  200"},
	} {
		f := newFixture(t, nil)
		method, path, _ := strings.Cut(tc.what, " ")
		if strings.Contains(path, "+") {
			path = strings.Replace(path, "+", tc.id, 1)
		} else {
			path += tc.id
		}
		resp := f.do(method, "/api/v1"+path, tc.who)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		shown := strings.Contains(string(b), `"made"`) != (tc.what == output && tc.status == 200)
		if resp.StatusCode != tc.status || strings.Contains(string(b), "make <all>") != tc.command || shown {
			t.Errorf("%s: %s%s: %d %s", tc.who, tc.what, tc.id, resp.StatusCode, b)
		}
		got := ""
		for _, a := range f.accesses {
			got += strings.TrimSpace(string(a.Verb) + " " + a.Owner + " " + http.StatusText(a.Status))
			if a.Subject != tc.who || a.Remote == "" || (a.Session == "") != (a.Verb == "list") ||
				(a.Execution == "x") != (a.Verb == "read") {
				t.Errorf("%+v", a)
			}
		}
		want := tc.audit
		for code, text := range map[string]string{"200": "OK", "202": "Accepted", "404": "Not Found"} {
			want = strings.ReplaceAll(want, code, text)
		}
		if got != strings.TrimSpace(want) {
			t.Errorf("%s: %s%s: audit %q, want %q", tc.who, tc.what, tc.id, got, want)
		}
		if wantEnded := tc.status == 202; (len(f.engine.ended) > 0) != wantEnded {
			t.Errorf("%s: %s%s: ended %v", tc.who, tc.what, tc.id, f.engine.ended)
		}
	}
}

// TestListSaysWhoseSessionsItHas, and which pods are missing.
func TestListSaysWhoseSessionsItHas(t *testing.T) {
	f := newFixture(t, nil)
	for who, want := range map[string]struct {
		scope string
		n     int
	}{"alice": {"own", 1}, "olga": {"all", 2}} {
		page := decode[struct {
			Scope string
			wire.SessionList
		}](t, f.do("GET", "/api/v1/sessions?limit=7&label=k=v&label=a=&name=n&state=detached&continue=c", who))
		if page.Scope != want.scope || len(page.Sessions) != want.n || page.Continue != bobs || len(page.Missing) != 1 {
			t.Errorf("%s: %+v", who, page)
		}
		got := f.engine.asked[len(f.engine.asked)-1]
		if got.Limit != 7 || got.Labels["k"] != "v" || len(got.Labels) != 2 || got.Name != "n" ||
			got.State != wire.SessionDetached || got.After != "c" {
			t.Errorf("%+v", got)
		}
	}
}

// TestPagesOfOtherOriginsGetNothing: by Origin; and without authentication also by the name of the host, because a
// page whose name resolves to this server sends no Origin with a GET.
func TestPagesOfOtherOriginsGetNothing(t *testing.T) {
	f, open := newFixture(t, nil), newFixture(t, gateway.NoAuth{})
	for _, tc := range []struct {
		f            *fixture
		host, origin string
		status       int
	}{
		{f, "troupe.example", "", 200},
		{f, "troupe.example", "https://troupe.example", 200},
		{f, "troupe.example", "https://evil.example", 403},
		{open, "localhost:8080", "", 200},
		{open, "127.0.0.1:8080", "http://127.0.0.1:8080", 200},
		{open, "[::1]:8080", "", 200},
		{open, "evil.example:8080", "", 403},
		{open, "evil.example:8080", "http://evil.example:8080", 403},
		{open, "localhost:8080", "http://evil.example", 403},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "http://"+tc.host+"/api/v1/sessions", nil)
		r.Header.Set("Authorization", "Bearer "+tokenOf["alice"])
		if tc.origin != "" {
			r.Header.Set("Origin", tc.origin)
		}
		resp := tc.f.send(r)
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status || tc.status == 403 && strings.Contains(string(b), "pod-0") ||
			resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("host %s, origin %q: %d %s", tc.host, tc.origin, resp.StatusCode, b)
		}
	}
}

// TestOpenServerKeepsSeparatedSessionsApart: without authentication all are one subject, so that a command in one
// session could take over another that the kernel keeps from it.
func TestOpenServerKeepsSeparatedSessionsApart(t *testing.T) {
	for isolation, refused := range map[string]bool{wire.IsolationSession: true, wire.IsolationNone: false} {
		f := newFixture(t, gateway.NoAuth{})
		f.engine.isolation = isolation
		for what, status := range map[string]int{
			"GET sessions": 200, "GET sessions/pod-0.x": 404, "DELETE sessions/pod-0.x": 404, "POST sessions/pod-0.x/attach": 404,
			"GET pods": 200,
		} {
			method, path, _ := strings.Cut(what, " ")
			if refused {
				status = 403
			}
			resp := f.do(method, Prefix+path, "")
			resp.Body.Close()
			if resp.StatusCode != status {
				t.Errorf("isolation %s: %s: %d, want %d", isolation, what, resp.StatusCode, status)
			}
		}
	}
}

func TestETags(t *testing.T) {
	f := newFixture(t, nil)
	const path = "/api/v1/sessions/" + alices
	first := f.do("GET", path, "alice")
	first.Body.Close()
	tag := first.Header.Get("ETag")
	for match, status := range map[string]int{
		tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, "*": 304, `"x"`: 200, "": 200, strings.Trim(tag, `"`): 200,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp := f.do(method, path, "alice", "If-None-Match", match)
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != status || resp.Header.Get("ETag") != tag || (len(b) > 0) != (status == 200 && method == "GET") {
				t.Errorf("%s, If-None-Match %s: %d, %s, %q", method, match, resp.StatusCode, resp.Header.Get("ETag"), b)
			}
		}
	}
	other := f.do("GET", "/api/v1/sessions/"+bobs, "olga", "If-None-Match", tag)
	other.Body.Close()
	if other.StatusCode != 200 {
		t.Errorf("another session has the same tag: %d", other.StatusCode)
	}
}

// TestRequestsTakeTurns: one subject does not keep the others out, and who waits too long is told so.
func TestRequestsTakeTurns(t *testing.T) {
	f := newFixture(t, nil)
	f.engine.block = make(chan struct{})
	done := make(chan int)
	ask := func(subject string) {
		resp := f.do("GET", "/api/v1/sessions", subject)
		resp.Body.Close()
		done <- resp.StatusCode
	}
	for range MaxRequests/2 + 1 {
		go ask("alice")
	}
	began := time.Now()
	if status := <-done; status != http.StatusTooManyRequests || time.Since(began) < requestWait {
		t.Errorf("%d after %v", status, time.Since(began))
	}
	resp := f.do("GET", "/api/v1/pods", "bob")
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("another subject: %d", resp.StatusCode)
	}
	f.engine.block <- struct{}{}
	if status := <-done; status != 200 {
		t.Errorf("%d", status)
	}
	for range MaxRequests/2 - 1 {
		f.engine.block <- struct{}{}
		<-done
	}
}

// unread is the answer to a client that does not read.
type unread struct {
	*httptest.ResponseRecorder
	begun, ended chan struct{}
}

func (u unread) Write(p []byte) (int, error) {
	u.begun <- struct{}{}
	<-u.ended
	return len(p), nil
}

// TestAnAnswerCountsUntilItIsWritten: clients that do not read hold no more pages than MaxRequests.
func TestAnAnswerCountsUntilItIsWritten(t *testing.T) {
	f := newFixture(t, nil)
	begun, ended := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	for range MaxRequests / 2 {
		r := httptest.NewRequest(http.MethodGet, "http://localhost"+Prefix+"sessions", nil)
		r.Header.Set("Authorization", "Bearer "+tokenOf["alice"])
		all.Go(func() { f.handler.ServeHTTP(unread{httptest.NewRecorder(), begun, ended}, r) })
		<-begun
	}
	resp := f.do(http.MethodGet, Prefix+"sessions", "alice")
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%d", resp.StatusCode)
	}
	close(ended)
	all.Wait()
}

// brokenAuth cannot tell who a client is.
type brokenAuth struct{}

func (brokenAuth) Authenticate(context.Context, string) (string, error) {
	return "", errors.New("the backend is down, at 10.0.0.1")
}

func mustGateway(t *testing.T, e *sessions, auth gateway.Authenticator) *gateway.Gateway {
	t.Helper()
	g, err := gateway.New(gateway.Config{Engine: e, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestMethodsAndPaths: what is not there says what is.
func TestMethodsAndPaths(t *testing.T) {
	f := newFixture(t, nil)
	for _, tc := range []struct {
		method, path, allow string
		status              int
	}{
		{"POST", "/api/v1/sessions", "GET, HEAD", 405},
		{"PUT", "/api/v1/sessions/x", "DELETE, GET, HEAD", 405},
		{"GET", "/api/v1/sessions/x/attach", "POST", 405},
		{"OPTIONS", "/api/v1/pods", "GET, HEAD", 405},
		{"GET", "/api/v1/", "", 404},
		{"GET", "/api/v2/sessions", "", 404},
		{"GET", "/api/v1/sessions/x/y", "", 404},
		{"GET", "/api/v1/sessions/" + alices + "/executions/y/output", "", 404},
		{"DELETE", "/api/v1/sessions/x/executions/y/output", "GET, HEAD", 405},
	} {
		resp := f.do(tc.method, tc.path, "alice")
		p := decode[problem](t, resp)
		if resp.StatusCode != tc.status || resp.Header.Get("Allow") != tc.allow || p.Status != tc.status || p.Title == "" ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d, Allow %q, %+v", tc.method, tc.path, resp.StatusCode, resp.Header.Get("Allow"), p)
		}
	}
}

// TestBadParameters: each is named, with what would be right.
func TestBadParameters(t *testing.T) {
	f := newFixture(t, nil)
	for query, want := range map[string]string{
		"scope=every": "own or all", "limit=0": "from 1 to 500", "limit=501": "from 1 to 500", "limit=many": "from 1 to 500",
		"state=gone": "attached, detached", "label=x": "key=value", "label=a=b&label=a=c": "given twice", "label=a%20=b": "label key",
		"limit=1&limit=2": "given once", "name=": "name is empty", "Scope=all": "unknown parameter",
	} {
		p := decode[problem](t, f.do("GET", "/api/v1/sessions?"+query, "alice"))
		if p.Status != 400 || !strings.Contains(p.Detail, want) {
			t.Errorf("%s: %+v, want %s", query, p, want)
		}
	}
	for query, want := range map[string]string{
		"offset=-1": "next_offset of a page", "offset=x": "next_offset of a page", "limit=0": "from 1 to 65536",
		"limit=65537": "from 1 to 65536", "limit=1&limit=2": "given once", "tail=1": "use offset and limit",
		"offset=8": "past the end",
	} {
		p := decode[problem](t, f.do("GET", "/api/v1/sessions/"+alices+"/executions/x/output?"+query, "alice"))
		if p.Status != 400 || !strings.Contains(p.Detail, want) {
			t.Errorf("%s: %+v, want %s", query, p, want)
		}
	}
	f.handler.cfg.Gateway = mustGateway(t, f.engine, brokenAuth{})
	if p := decode[problem](t, f.do("GET", "/api/v1/pods", "alice")); p.Status != 503 || strings.Contains(p.Detail, "10.0.0.1") {
		t.Errorf("%+v", p)
	}
}
