package k8s

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func record(t testing.TB, a *api) *Recorder {
	t.Helper()
	r, err := NewRecorder(RecorderConfig{Client: a.client(t), Pod: pod})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// written returns the Event in a request. Unknown fields are an error.
func written(t testing.TB, r request) corev1.Event {
	t.Helper()
	var e corev1.Event
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%s: %v", r.body, err)
	}
	return e
}

// TestEventTypes: what an operator should look into is a Warning.
func TestEventTypes(t *testing.T) {
	for reason, want := range map[Reason]string{
		SessionLimitReached: corev1.EventTypeWarning, RunnerLost: corev1.EventTypeWarning,
		RunnerConnected: corev1.EventTypeNormal, Draining: corev1.EventTypeNormal, Drained: corev1.EventTypeNormal,
	} {
		if got := reason.kind(); got != want {
			t.Errorf("%s is %s, want %s", reason, got, want)
		}
	}
}

// TestEarliestReasonIsWrittenInTime: of two reasons that repeat, each is written when its own 30 s
// are over.
func TestEarliestReasonIsWrittenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: ok}
		r := record(t, api)
		r.Record(SessionLimitReached, "")
		time.Sleep(20 * time.Second)
		r.Record(RunnerLost, "")
		synctest.Wait()
		r.Record(SessionLimitReached, "")
		r.Record(RunnerLost, "")
		time.Sleep(repeatInterval - 20*time.Second)
		synctest.Wait()
		if n := len(api.asked("")); n != 3 {
			t.Errorf("%d writes after %v, want 3", n, repeatInterval)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(api.asked("")); n != 4 {
			t.Errorf("%d writes after %v, want 4", n, repeatInterval+20*time.Second)
		}
	})
}

// TestEventMatchesTheAPI: an Event has all that kubectl describe shows, and whole seconds.
func TestEventMatchesTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: ok}
		r := record(t, api)
		time.Sleep(1500 * time.Millisecond)
		now := time.Now().Truncate(time.Second)
		r.Record(RunnerLost, "the runner is gone")
		synctest.Wait()
		asked := api.asked("")
		if len(asked) != 1 || asked[0].method != "POST" || asked[0].path != "/api/v1/namespaces/ns/events" {
			t.Fatalf("asked %v", asked)
		}
		e := written(t, asked[0])
		involved := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "ns", Name: "troupe-0", UID: "3f7a"}
		if e.InvolvedObject != involved {
			t.Errorf("on %+v", e.InvolvedObject)
		}
		if e.Namespace != "ns" || !strings.HasPrefix(e.Name, "troupe-0.") || e.Reason != "RunnerLost" ||
			e.Type != corev1.EventTypeWarning || e.Message != "the runner is gone" || e.Count != 1 ||
			e.Source.Component != "trouped" || e.ReportingController != "trouped" {
			t.Errorf("%s", asked[0].body)
		}
		if !e.FirstTimestamp.Time.Equal(now) || !e.LastTimestamp.Time.Equal(now) {
			t.Errorf("times %v, %v, want %v", e.FirstTimestamp, e.LastTimestamp, now)
		}
	})
}

// TestRepetitionsAreCounted on one Event, which is written at most every 30 s. After a pause of ten
// minutes there is a new Event.
func TestRepetitionsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: ok}
		r := record(t, api)
		for range 600 { // ten per second for a minute
			r.Record(SessionLimitReached, "all sessions are in use")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(30 * time.Second)
		asked := api.asked("")
		if len(asked) != 3 { // at 0, 30 and 60 s
			t.Fatalf("%d writes: %v", len(asked), asked)
		}
		first := written(t, asked[0])
		for i, a := range asked {
			e := written(t, a)
			if i > 0 && (a.method != "PATCH" || a.path != "/api/v1/namespaces/ns/events/"+first.Name) {
				t.Errorf("write %d is %s %s", i, a.method, a.path)
			}
			t.Logf("at %v: count %d", a.at.Sub(asked[0].at), e.Count)
		}
		if e := written(t, asked[2]); e.Count != 600 || e.LastTimestamp.Sub(first.FirstTimestamp.Time) != 59*time.Second {
			t.Errorf("at last %s", asked[2].body)
		}
		time.Sleep(seriesGap)
		r.Record(SessionLimitReached, "again")
		synctest.Wait()
		asked = api.asked("")
		if e := written(t, asked[len(asked)-1]); len(asked) != 4 || asked[3].method != "POST" || e.Count != 1 {
			t.Errorf("after a pause %s %s", asked[len(asked)-1].method, asked[len(asked)-1].body)
		}
	})
}

// TestReasonsDoNotWaitForEachOther: they are written at once, in their order.
func TestReasonsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: ok}
		r := record(t, api)
		began := time.Now()
		for _, reason := range []Reason{SessionLimitReached, RunnerLost, RunnerConnected, Draining, Drained} {
			r.Record(reason, "")
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		var got []string
		for _, a := range api.asked("") {
			got = append(got, written(t, a).Reason)
		}
		s := strings.Join(got, " ")
		if s != "SessionLimitReached RunnerLost RunnerConnected Draining Drained" || time.Since(began) > 10*time.Millisecond {
			t.Errorf("%s after %v", s, time.Since(began))
		}
	})
}

// TestExpiredEventIsCreatedAgain: the API server keeps Events for one hour by default.
func TestExpiredEventIsCreatedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "PATCH" {
				status(404, "NotFound", "events not found")(w, r)
				return
			}
			ok(w, r)
		}}
		r := record(t, api)
		for range 3 {
			r.Record(SessionLimitReached, "all sessions are in use")
			time.Sleep(time.Minute)
		}
		asked := api.asked("/events")
		if len(asked) != 3 || written(t, asked[2]).Count != 1 || api.said("level=WARN") != 0 {
			t.Errorf("%d Events; the log:\n%s", len(asked), api.logs.String())
		}
	})
}

// TestRefusedEvents: there is one warning and one try per hour, and a later Event counts all
// occurrences.
func TestRefusedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: status(403, "Forbidden", "events is forbidden")}
		r := record(t, api)
		for range 600 {
			r.Record(SessionLimitReached, "all sessions are in use")
			r.Record(RunnerLost, "the runner is gone")
			time.Sleep(time.Minute)
		}
		if n := len(api.asked("")); n < 6 || n > 11 {
			t.Errorf("%d tries in ten hours", n)
		}
		if api.said("level=WARN") != 1 || api.failures(t, opEvent) != len(api.asked("")) {
			t.Errorf("%d failures; the log:\n%s", api.failures(t, opEvent), api.logs.String())
		}
		before := len(api.asked(""))
		api.become(ok)
		time.Sleep(2 * time.Hour)
		asked := api.asked("")[before:]
		if len(asked) != 2 || written(t, asked[0]).Count != 600 || written(t, asked[1]).Count != 600 {
			t.Errorf("written later: %v", asked)
		}
	})
}

// TestRecordedDuringAFailure: what happens while a write fails is counted and written later, in its
// order. Of one reason the last message stands.
func TestRecordedDuringAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			status(500, "InternalError", "etcd is gone")(w, r)
		}}
		r := record(t, api)
		began := time.Now().Truncate(time.Second)
		r.Record(RunnerLost, "first")
		time.Sleep(time.Second / 2)
		r.Record(RunnerLost, "second")
		for _, reason := range []Reason{Draining, RunnerConnected, Drained} {
			time.Sleep(time.Millisecond)
			r.Record(reason, "")
		}
		r.Record(RunnerLost, "third")
		time.Sleep(time.Second)
		api.become(ok)
		time.Sleep(minDelay * 2)
		asked := api.asked("")
		if len(asked) != 5 {
			t.Fatalf("%d requests: %v", len(asked), asked)
		}
		for i, reason := range []Reason{RunnerLost, Draining, RunnerConnected, Drained} {
			if got := written(t, asked[i+1]).Reason; got != string(reason) {
				t.Errorf("Event %d is %s, want %s", i, got, reason)
			}
		}
		e := written(t, asked[1])
		if e.Count != 3 || e.Message != "third" || !e.FirstTimestamp.Time.Equal(began) {
			t.Errorf("the Event is %s", asked[1].body)
		}
	})
}

// TestRecordDoesNotBlock while the API server does not answer.
func TestRecordDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: hang}
		r := record(t, api)
		began := time.Now()
		for range 100_000 {
			r.Record(SessionLimitReached, "all sessions are in use")
			r.Record(RunnerLost, "the runner is gone")
		}
		if time.Since(began) > 0 {
			t.Errorf("took %v", time.Since(began))
		}
		time.Sleep(time.Hour)
		if n := len(api.asked("")); n > 22 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

// TestCloseWritesTheLastEvents, even those whose 30 s are not over.
func TestCloseWritesTheLastEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: ok}
		r := record(t, api)
		r.Record(SessionLimitReached, "all sessions are in use")
		synctest.Wait()
		r.Record(SessionLimitReached, "all sessions are in use")
		r.Record(Drained, "no session is left")
		began := time.Now()
		r.Close()
		r.Close()
		again, events := api.asked("/events/"+written(t, api.asked("")[0]).Name), api.asked("/events")
		if len(again) != 1 || written(t, again[0]).Count != 2 || len(events) != 2 ||
			written(t, events[1]).Reason != "Drained" {
			t.Errorf("asked %v", api.asked(""))
		}
		if time.Since(began) > 0 {
			t.Errorf("took %v", time.Since(began))
		}
	})
}

// TestCloseIsBounded: an API server that does not answer delays Close by at most 2 s, and not at
// all if an earlier write has failed.
func TestCloseIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		before time.Duration // between the Event and Close
		limit  time.Duration
	}{
		"first try":     {0, flushTimeout},
		"under way":     {time.Second, flushTimeout},
		"known to hang": {callTimeout, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			api := &api{answer: hang}
			r := record(t, api)
			r.Record(Drained, "no session is left")
			time.Sleep(c.before)
			synctest.Wait()
			began := time.Now()
			r.Close()
			if took := time.Since(began); took > c.limit || api.running != 0 {
				t.Errorf("%s: took %v, %d requests are left", name, took, api.running)
			}
		})
	}
}

// TestNilRecorder: outside a cluster, callers need no check.
func TestNilRecorder(t *testing.T) {
	var r *Recorder
	r.Record(Drained, "no session is left")
	r.Close()
	if _, err := NewRecorder(RecorderConfig{Pod: pod}); err == nil {
		t.Error("a Recorder without a Client")
	}
	if _, err := NewRecorder(RecorderConfig{Client: new(api).client(t), Pod: Pod{Namespace: "ns"}}); err == nil {
		t.Error("a Recorder without a pod")
	}
}
