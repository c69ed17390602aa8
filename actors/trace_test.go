package actors

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

const parentSpan = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// recorder gives the engine of a test a tracer and keeps what it records.
type recorder struct{ *tracetest.SpanRecorder }

func newRecorder(c *Config) *recorder {
	r := &recorder{tracetest.NewSpanRecorder()}
	c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r)).Tracer("test")
	return r
}

// span returns the one ended span of that name.
func (r *recorder) span(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	var found []sdktrace.ReadOnlySpan
	for _, s := range r.Ended() {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans are named %s", len(found), name)
	}
	return found[0]
}

func attr(s sdktrace.ReadOnlySpan, key attribute.Key) any {
	for _, kv := range s.Attributes() {
		if kv.Key == key {
			return kv.Value.AsInterface()
		}
	}
	return nil
}

func events(s sdktrace.ReadOnlySpan) []string {
	var names []string
	for _, e := range s.Events() {
		names = append(names, e.Name)
	}
	return names
}

// TestTraceOfACanceledExecution is the life that has most in it.
func TestTraceOfACanceledExecution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *recorder
		h := newHarness(t, newFakeRunner(nil), func(c *Config) { r = newRecorder(c) }, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{
			ExecutionID: "x", Argv: []string{"secret", "argument"}, OutputLimit: 4,
			Traceparent: parentSpan,
		})
		synctest.Wait()
		began := time.Now()
		time.Sleep(3 * time.Millisecond)
		tree := h.runner.tree("x")
		tree.run()
		synctest.Wait()
		tree.print("abc\nsecret output\n")
		synctest.Wait()
		c.control("2", wire.ControlPause, "x")
		synctest.Wait()
		c.control("3", wire.ControlResume, "x")
		synctest.Wait()
		c.control("4", wire.ControlCancel, "x")
		synctest.Wait()
		time.Sleep(2 * time.Second)
		tree.emit(proc.Exited{Signal: 15, NoSurvivors: true})
		tree.die(proc.Dead{SurvivorCount: 2})
		synctest.Wait()
		h.stop(t, c)

		root, start, cancel := r.span(t, "execution"), r.span(t, "start"), r.span(t, "cancel")
		if p := root.Parent(); p.TraceID().String() != parentSpan[3:35] || p.SpanID().String() != parentSpan[36:52] ||
			!p.IsRemote() {
			t.Errorf("parent %v", p)
		}
		for _, s := range []sdktrace.ReadOnlySpan{start, cancel} {
			if s.Parent().SpanID() != root.SpanContext().SpanID() || s.SpanContext().TraceID() != root.SpanContext().TraceID() {
				t.Errorf("%s is not a child of execution", s.Name())
			}
		}
		if !root.StartTime().Equal(began) || !start.StartTime().Equal(began) ||
			start.EndTime().Sub(began) != 3*time.Millisecond {
			t.Errorf("start from %v to %v, asked for at %v", start.StartTime(), start.EndTime(), began)
		}
		if d := cancel.EndTime().Sub(cancel.StartTime()); d != 2*time.Second || root.EndTime().Before(cancel.EndTime()) {
			t.Errorf("cancel took %v, the execution ended %v after it", d, root.EndTime().Sub(cancel.EndTime()))
		}
		if got, want := events(root), []string{
			"first_output", "output_dropped", "paused", "resumed",
			"exited",
		}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		hello := find[wire.Connected](c)
		for key, want := range map[attribute.Key]any{
			attrSession: hello.SessionID, attrExecution: "x", attrSubject: "alice", attrReason: "canceled",
			attrExitCode: int64(-15),
			attrPID:      int64(4242), attrBytes: int64(4), attrDropped: int64(14), attrLines: int64(1), attrTruncated: int64(0),
			attrSurvivors: int64(2),
		} {
			if got := attr(root, key); got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
		if len(root.Attributes()) != 11 {
			t.Errorf("attributes %v", root.Attributes()) // nothing of the client's slips in
		}
		if attr(cancel, attrReason) != "canceled" || root.Status().Code != codes.Unset ||
			cancel.Status().Code != codes.Unset {
			t.Errorf("cancel for %v, status %v and %v", attr(cancel, attrReason), root.Status(), cancel.Status())
		}
	})
}

// TestTraceOfFailures: an end that no client asked for is an error, and every span ends with its
// execution.
func TestTraceOfFailures(t *testing.T) {
	for reason, fail := range map[wire.Reason]func(h *harness, tree *fakeTree, panics *string, c *testClient){
		wire.ReasonStartFailed: func(_ *harness, tree *fakeTree, _ *string, _ *testClient) {
			tree.emit(proc.StartFailed{Err: proc.ErrNoRunner})
			tree.die(proc.Dead{})
		},
		wire.ReasonRunnerLost: func(_ *harness, tree *fakeTree, _ *string, _ *testClient) {
			tree.run()
			tree.die(proc.Dead{RunnerLost: true})
		},
		wire.ReasonStreamTimeout: func(h *harness, tree *fakeTree, _ *string, _ *testClient) {
			tree.run()
			time.Sleep(h.limits.StreamTimeout + h.limits.CancelGrace + time.Second)
		},
		wire.ReasonInternal: func(_ *harness, _ *fakeTree, panics *string, c *testClient) {
			*panics = "process"
			c.control("2", wire.ControlCancel, "x")
		},
		wire.ReasonDrain: func(h *harness, tree *fakeTree, _ *string, c *testClient) { // the engine is closed over it
			tree.run()
		},
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *recorder
				panics := ""
				h := newHarness(t, newFakeRunner(nil), func(c *Config) { r = newRecorder(c) }, func(kind string, _ any) {
					if kind == panics {
						panics = ""
						panic("injected")
					}
				})
				c := connect(h.Engine, ConnectRequest{})
				c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
				synctest.Wait()
				fail(h, h.runner.tree("x"), &panics, c)
				synctest.Wait()
				h.stop(t, c)
				root := r.span(t, "execution")
				if attr(root, attrReason) != string(reason) || root.Status().Code != codes.Error ||
					root.Status().Description != string(reason) {
					t.Errorf("reason %v, status %v", attr(root, attrReason), root.Status())
				}
				if root.Parent().IsValid() {
					t.Error("it has a parent")
				}
				if started, ended := len(r.Started()), len(r.Ended()); started != ended {
					t.Errorf("%d spans were started, %d ended", started, ended)
				}
			})
		})
	}
}

// TestTraceIsSafeFromTwoActors: a session that fails tells of the end while the process actor still
// works.
func TestTraceIsSafeFromTwoActors(t *testing.T) {
	r := newRecorder(&Config{})
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r))
	e := &Engine{tracer: provider.Tracer("test")}
	defer func() { _ = provider.Shutdown(context.Background()) }()
	for range 100 {
		x := e.traceExecution(&execution{requested: time.Now()}, trace.SpanContext{})
		var both sync.WaitGroup
		both.Go(func() { x.running(1, time.Now()); x.canceling(wire.ReasonCanceled, time.Now()); x.dead(0) })
		both.Go(func() { x.completed(&wire.Completed{}) })
		both.Wait()
	}
	if started, ended := len(r.Started()), len(r.Ended()); started != ended {
		t.Errorf("%d spans were started, %d ended", started, ended)
	}
}

func TestTraceparent(t *testing.T) {
	for text, want := range map[string]bool{
		parentSpan:                       true,
		parentSpan[:53] + "00":           true, // not sampled
		"cc" + parentSpan[2:] + "-later": true,
		parentSpan + "-more":             false,
		"ff" + parentSpan[2:]:            false,
		"":                               false,
		"00":                             false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01": false,
		parentSpan[:54]: false,
	} {
		sc := traceparent(text)
		if sc.IsValid() != want {
			t.Errorf("%q: %v", text, sc.IsValid())
		}
		if want && (sc.TraceID().String() != parentSpan[3:35] || sc.IsSampled() != (text[53:55] == "01") || !sc.IsRemote()) {
			t.Errorf("%q: %+v", text, sc)
		}
	}
}

// TestNoTracerCostsNothing: what every command passes through when traces are off.
func TestNoTracerCostsNothing(t *testing.T) {
	e := &Engine{}
	x := &execution{id: "x", session: "s", subject: "alice"}
	done := &wire.Completed{Reason: wire.ReasonExited, Survivors: &wire.Survivors{}}
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		x.trace = e.traceExecution(x, trace.SpanContext{})
		x.trace.running(1, now)
		x.trace.event("first_output")
		x.trace.dropping("limit")
		x.trace.canceling(wire.ReasonCanceled, now)
		x.trace.dead(1)
		x.trace.completed(done)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
