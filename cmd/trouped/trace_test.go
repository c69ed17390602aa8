package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// otlpReceiver is a collector: OTLP over HTTP, in protobuf.
type otlpReceiver struct {
	url string

	mu      sync.Mutex
	spans   []*otlp.Span
	from    []*common.KeyValue // the resource, of the last request
	headers http.Header
	raw     bytes.Buffer
	errs    []error
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	t.Helper()
	r := &otlpReceiver{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", r.receive)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

func (r *otlpReceiver) receive(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	var msg collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &msg)
	}
	if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" {
		r.errs = append(r.errs, fmt.Errorf("content type %s: %w", req.Header.Get("Content-Type"), err))
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	r.headers = req.Header
	r.raw.Write(body)
	for _, rs := range msg.GetResourceSpans() {
		r.from = rs.GetResource().GetAttributes()
		for _, ss := range rs.GetScopeSpans() {
			r.spans = append(r.spans, ss.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// of returns the spans whose attribute troupe.execution is id, and their children, by name.
func (r *otlpReceiver) of(t *testing.T, id string) map[string]*otlp.Span {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) > 0 {
		t.Fatal(r.errs)
	}
	found := map[string]*otlp.Span{}
	for _, s := range r.spans {
		if value(s.GetAttributes(), "troupe.execution") == id {
			found[s.GetName()] = s
		}
	}
	if root := found["execution"]; root != nil {
		for _, s := range r.spans {
			if bytes.Equal(s.GetParentSpanId(), root.GetSpanId()) {
				found[s.GetName()] = s
			}
		}
	}
	return found
}

// value renders an attribute.
func value(attrs []*common.KeyValue, key string) string {
	for _, kv := range attrs {
		if kv.GetKey() == key {
			if s, ok := kv.GetValue().GetValue().(*common.AnyValue_StringValue); ok {
				return s.StringValue
			}
			return fmt.Sprint(kv.GetValue().GetIntValue())
		}
	}
	return ""
}

const traceOfClient, spanOfClient = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

// TestTracesReachACollector: the spans of an execution, below the client's, with
// nothing in them of what was run.
func TestTracesReachACollector(t *testing.T) {
	r := newOTLPReceiver(t)
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_HEADERS=x-tenant=blue", "OTEL_RESOURCE_ATTRIBUTES=team=sre")
	}, "--trace-endpoint", r.url, "--pod", "troupe-0", "--namespace", "tools")
	c := s.dial()
	if _, err := c.Run(t.Context(), wire.ExecuteParams{
		ExecutionID: "ok", Command: "echo secret-output; exit 3", Env: map[string]string{"K": "secret-env"},
		Traceparent: "00-" + traceOfClient + "-" + spanOfClient + "-01",
	}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	e, err := c.Execute(t.Context(), wire.ExecuteParams{ExecutionID: "canceled", Argv: []string{"/bin/sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	completed(t, e)
	session := c.ID()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 { // the spans are flushed on the way out
		t.Errorf("exit status %d", code)
	}

	ok, canceled := r.of(t, "ok"), r.of(t, "canceled")
	if len(ok) != 2 || len(canceled) != 3 || canceled["cancel"] == nil || ok["start"] == nil {
		t.Fatalf("spans %v and %v", ok, canceled)
	}
	root := ok["execution"]
	if hex.EncodeToString(root.GetTraceId()) != traceOfClient ||
		hex.EncodeToString(root.GetParentSpanId()) != spanOfClient {
		t.Errorf("not below the client's span: %v", root)
	}
	for key, want := range map[string]string{
		"troupe.session": session, "troupe.subject": "anonymous", "troupe.reason": "exited", "process.exit.code": "3",
		"troupe.output.bytes": "14",
	} {
		if got := value(root.GetAttributes(), key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	var events []string
	for _, e := range root.GetEvents() {
		events = append(events, e.GetName())
	}
	slices.Sort(events) // a command this short may have exited before its pipe was read
	if !slices.Equal(events, []string{"exited", "first_output"}) {
		t.Errorf("events %v", events)
	}
	if p := canceled["execution"].GetParentSpanId(); len(p) != 0 {
		t.Errorf("an execution without a client's span has the parent %x", p)
	}
	if got := value(canceled["cancel"].GetAttributes(), "troupe.reason"); got != "canceled" {
		t.Errorf("cancel for %q", got)
	}
	for key, want := range map[string]string{
		"service.name": "troupe", "service.instance.id": "troupe-0",
		"k8s.namespace.name": "tools", "k8s.pod.name": "troupe-0", "team": "sre",
	} {
		if got := value(r.from, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if r.headers.Get("X-Tenant") != "blue" {
		t.Error("OTEL_EXPORTER_OTLP_HEADERS was not honoured")
	}
	for _, secret := range []string{"secret", "sleep", "1000", "echo"} {
		if bytes.Contains(r.raw.Bytes(), []byte(secret)) {
			t.Errorf("%q left the server in a trace", secret)
		}
	}
}

// TestTraceSample: a share of what has no trace yet; a client that traces has decided.
func TestTraceSample(t *testing.T) {
	r := newOTLPReceiver(t)
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0")
	}, "--trace-endpoint", r.url+"/v1/traces")
	for i, parent := range []string{
		"", "00-" + traceOfClient + "-" + spanOfClient + "-01",
		"00-" + traceOfClient + "-" + spanOfClient + "-00",
	} {
		c, err := troupe.Dial(t.Context(), s.ws, troupe.Options{Header: http.Header{"Traceparent": {parent}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(t.Context(), wire.ExecuteParams{ExecutionID: fmt.Sprint(i), Command: "true"}, io.Discard,
			io.Discard); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	s.signal(syscall.SIGTERM)
	s.exit()
	for id, want := range map[string]int{"0": 0, "1": 2, "2": 0} {
		if got := r.of(t, id); len(got) != want {
			t.Errorf("execution %s has %d spans, want %d", id, len(got), want)
		}
	}
}

// TestCollectorThatDoesNotAnswer costs commands nothing and the end of the server
// three seconds; the log says it once.
func TestCollectorThatDoesNotAnswer(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections, but nothing reads them
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	s := launchWith(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_TIMEOUT=50", "OTEL_BSP_EXPORT_TIMEOUT=100",
			"OTEL_BSP_SCHEDULE_DELAY=20", "OTEL_BSP_MAX_QUEUE_SIZE=4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4")
	}, "--trace-endpoint", "http://"+deaf.Addr().String())
	c := s.dial()
	failed := func() bool {
		_, metrics := s.get(s.admin + "/metrics")
		for line := range strings.Lines(metrics) {
			if n, ok := strings.CutPrefix(line, "troupe_trace_spans_failed_total "); ok {
				return len(strings.TrimSpace(n)) > 1 // ten or more: several batches
			}
		}
		return false
	}
	runs := 0
	for deadline := time.Now().Add(20 * time.Second); !failed(); runs++ {
		if time.Now().After(deadline) {
			t.Fatal("no spans were counted as lost")
		}
		done, err := c.Run(t.Context(), wire.ExecuteParams{Command: "true"}, io.Discard, io.Discard)
		if err != nil || done.ExitCode != 0 {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	_, metrics := s.get(s.admin + "/metrics")
	for _, line := range []string{
		"troupe_trace_spans_exported_total 0",
		fmt.Sprintf("troupe_trace_spans_ended_total %d", 2*runs),
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if n := strings.Count(s.stderr.String(), "cannot export traces"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	s.leftNothing()
}

func TestTracesURL(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://c:4318":            "http://c:4318/v1/traces",
		"https://c/":               "https://c/v1/traces",
		"http://c:4318/otlp/spans": "http://c:4318/otlp/spans",
	} {
		if got := tracesURL(endpoint); got != want {
			t.Errorf("%s: %s, want %s", endpoint, got, want)
		}
	}
}
