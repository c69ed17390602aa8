package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"
)

// The tests in this package are about time and failures: client-go and this package are real, the
// API server is a function. The tests in e2e/k8s show that a real API server behaves as assumed.

// api is an API server in memory, so that it works in virtual time.
type api struct {
	mu       sync.Mutex
	requests []request
	running  int // requests now
	most     int // of running
	answer   http.HandlerFunc
	stream   func(*http.Request) *http.Response // instead of answer, if it returns one
	logs     bytes.Buffer
	registry *prometheus.Registry
}

type request struct {
	at           time.Time
	method, path string
	body         []byte
	header       http.Header
	query        url.Values
}

func (r request) String() string { return fmt.Sprintf("%s %s %s\n", r.method, r.path, r.body) }

// client returns a Client whose requests go to answer, which may block until the request's context
// ends.
func (a *api) client(t testing.TB) *Client {
	t.Helper()
	a.registry = prometheus.NewRegistry()
	c, err := NewClient(ClientConfig{
		Cluster: &Cluster{REST: &rest.Config{Host: "https://api.test", Transport: a}},
		Logger:  slog.New(slog.NewTextHandler(lockedWriter{a}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: NewMetrics(a.registry),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type lockedWriter struct{ *api }

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs.Write(p)
}

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	a.mu.Lock()
	a.requests = append(a.requests, request{time.Now(), r.Method, r.URL.Path, body, r.Header, r.URL.Query()})
	a.running++
	a.most = max(a.most, a.running)
	answer, stream := a.answer, a.stream
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.running--
		a.mu.Unlock()
	}()
	if stream != nil {
		if response := stream(r); response != nil {
			return response, nil
		}
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	answer(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// become changes what the API server does from now on.
func (a *api) become(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// asked returns the requests so far whose path ends with suffix.
func (a *api) asked(suffix string) []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []request
	for _, r := range a.requests {
		if strings.HasSuffix(r.path, suffix) {
			all = append(all, r)
		}
	}
	return all
}

// said counts the log lines with text.
func (a *api) said(text string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Count(a.logs.String(), text)
}

// failures returns the counter of an operation.
func (a *api) failures(t testing.TB, op operation) int {
	t.Helper()
	return a.exported(t, "troupe_kubernetes_failures_total", op)
}

// failing returns the gauge of an operation.
func (a *api) failing(t testing.TB, op operation) int {
	t.Helper()
	return a.exported(t, "troupe_kubernetes_failing", op)
}

// gauge returns a metric without labels.
func (a *api) gauge(t testing.TB, name string) int {
	t.Helper()
	return a.exported(t, name, "")
}

// exported returns a metric, of an operation unless that is empty.
func (a *api) exported(t testing.TB, name string, op operation) int {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (op == "" || labelled(m, string(op))) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue()) // it has one of them
			}
		}
	}
	t.Fatalf("no %s of %q", name, op)
	return 0
}

func labelled(m *dto.Metric, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == "operation" && l.GetValue() == value {
			return true
		}
	}
	return false
}

// writeJSON answers as an API server does.
func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err)
	}
}

// status answers with a failure.
func status(code int, reason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, code, map[string]any{
			"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{},
			"status": "Failure", "code": code, "reason": reason, "message": message,
		})
	}
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// reviewer is an API server that knows tokens "good:NAME" and lets all but "nobody" open sessions.
func reviewer(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/tokenreviews"):
		var review authenticationv1.TokenReview
		decode(r, &review)
		if name, ok := strings.CutPrefix(review.Spec.Token, "good:"); ok {
			review.Status = authenticationv1.TokenReviewStatus{
				Authenticated: true, Audiences: review.Spec.Audiences,
				User: authenticationv1.UserInfo{
					Username: name, UID: "uid-of-" + name, Groups: []string{"team"},
					Extra: map[string]authenticationv1.ExtraValue{"pod": {"a", "b"}},
				},
			}
		} else {
			review.Status.Error = "invalid bearer token"
		}
		writeJSON(w, http.StatusCreated, review)
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews"):
		var review authorizationv1.SubjectAccessReview
		decode(r, &review)
		review.Status.Allowed = review.Spec.User != "nobody"
		writeJSON(w, http.StatusCreated, review)
	default:
		status(http.StatusNotFound, "NotFound", r.URL.Path)(w, r)
	}
}

func decode(r *http.Request, into any) {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		panic(fmt.Sprintf("%s: %v", r.URL.Path, err))
	}
}

func newAuth(t testing.TB, a *api, change func(*AuthConfig)) *Authenticator {
	t.Helper()
	cfg := AuthConfig{Client: a.client(t), Audience: "troupe", Namespace: "ns", Cache: 10 * time.Second}
	if change != nil {
		change(&cfg)
	}
	auth, err := NewAuthenticator(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Close)
	return auth
}

func background() context.Context { return context.Background() }
