package k8s

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var pod = Pod{Namespace: "ns", Name: "troupe-0", UID: "3f7a"}

func ok(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, 200, map[string]any{"kind": "Whatever"})
}

func annotate(t testing.TB, a *api, sessions *atomic.Int64) *Annotator {
	t.Helper()
	annotator, err := NewAnnotator(AnnotatorConfig{
		Client: a.client(t), Pod: pod, Sessions: func() int { return int(sessions.Load()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(annotator.Close)
	return annotator
}

// patched returns the number of sessions in a patch, and checks the rest of it.
func patched(t testing.TB, r request) int {
	t.Helper()
	if r.method != "PATCH" || r.path != "/api/v1/namespaces/ns/pods/troupe-0" ||
		r.header.Get("Content-Type") != "application/merge-patch+json" {
		t.Fatalf("%s %s %v", r.method, r.path, r.header)
	}
	var patch struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(r.body, &patch); err != nil {
		t.Fatal(err)
	}
	got := patch.Metadata.Annotations
	n, err := strconv.Atoi(got["troupe.dev/sessions"])
	if err != nil || len(got) != 2 || got["controller.kubernetes.io/pod-deletion-cost"] != got["troupe.dev/sessions"] {
		t.Fatalf("patch %s", r.body)
	}
	return n
}

// TestAnnotationsFollowTheSessions: the first number is written at once, the first change within a
// second, later changes every 10 s with the latest number, and nothing without a change.
func TestAnnotationsFollowTheSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, sessions := &api{answer: ok}, new(atomic.Int64)
		annotate(t, api, sessions)
		synctest.Wait()
		is := func(n int, last int) {
			t.Helper()
			synctest.Wait()
			asked := api.asked("")
			if len(asked) != n || patched(t, asked[n-1]) != last {
				t.Fatalf("%d patches, the last %s; want %d, the last of %d sessions", len(asked), asked[len(asked)-1].body, n, last)
			}
		}
		is(1, 0)
		time.Sleep(pollInterval / 2)
		sessions.Store(3) // soon after the start
		time.Sleep(pollInterval)
		is(2, 3)
		time.Sleep(time.Hour)
		is(2, 3)
		sessions.Store(4)
		time.Sleep(pollInterval)
		is(3, 4)
		for i := range 100 { // 10 s of many changes
			sessions.Store(int64(10 + i))
			time.Sleep(90 * time.Millisecond)
		}
		is(3, 4)
		time.Sleep(pollInterval)
		is(4, 109)
		sessions.Store(5)
		time.Sleep(5 * time.Second)
		sessions.Store(109) // as it was
		time.Sleep(time.Hour)
		is(4, 109)
		sessions.Store(0)
		time.Sleep(pollInterval)
		is(5, 0)
	})
}

// TestRefusedAnnotations: without the permission there is one warning and at most one try per hour.
// Once it is granted, the number is correct again.
func TestRefusedAnnotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, sessions := &api{answer: status(403, "Forbidden", "pods is forbidden")}, new(atomic.Int64)
		annotate(t, api, sessions)
		const hours = 24
		for i := range hours * 60 {
			sessions.Store(int64(i))
			time.Sleep(time.Minute)
			if api.failing(t, opPatch) != 1 || api.failing(t, opEvent) != 0 {
				t.Fatalf("after %d minutes troupe_kubernetes_failing is wrong", i+1)
			}
		}
		if n := len(api.asked("")); n < hours/2 || n > hours {
			t.Errorf("%d tries in %d hours", n, hours)
		}
		if n := api.failures(t, opPatch); n != len(api.asked("")) {
			t.Errorf("%d failures counted of %d", n, len(api.asked("")))
		}
		if api.said("level=WARN") != 1 || api.said("refuses them") != 1 {
			t.Errorf("the log:\n%s", api.logs.String())
		}
		api.become(ok)
		time.Sleep(2 * time.Hour)
		asked := api.asked("")
		if got := patched(t, asked[len(asked)-1]); got != hours*60-1 || api.said("are reported again") != 1 {
			t.Errorf("the last patch says %d; the log:\n%s", got, api.logs.String())
		}
		if api.failing(t, opPatch) != 0 {
			t.Error("patches count as failing after the permission was granted")
		}
		api.become(status(403, "Forbidden", "pods is forbidden"))
		for i := range 100 {
			sessions.Store(int64(i))
			time.Sleep(time.Minute)
		}
		if api.said("level=WARN") != 2 {
			t.Errorf("withdrawn again, the log:\n%s", api.logs.String())
		}
	})
}

// TestFailedPatchIsRepeated even if the number is again what was written last: the API server may
// have applied the patch before its answer was lost, and an alert fires until a patch succeeds.
func TestFailedPatchIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, sessions := &api{answer: ok}, new(atomic.Int64)
		annotate(t, api, sessions)
		synctest.Wait()
		api.become(status(500, "InternalError", "etcd is gone"))
		sessions.Store(1)
		time.Sleep(2 * pollInterval)
		if api.failing(t, opPatch) != 1 {
			t.Error("patches do not count as failing")
		}
		sessions.Store(0)
		api.become(ok)
		time.Sleep(time.Minute)
		asked := api.asked("")
		if got := patched(t, asked[len(asked)-1]); len(asked) != 3 || got != 0 || api.failing(t, opPatch) != 0 {
			t.Errorf("%d patches, the last says %d, failing %d", len(asked), got, api.failing(t, opPatch))
		}
	})
}

// TestOutage: while the API server is down, there is one warning and few requests. Soon after its
// return the number is correct.
func TestOutage(t *testing.T) {
	for name, down := range map[string]http.HandlerFunc{
		"500": status(500, "InternalError", "etcd is gone"),
		"401": status(401, "Unauthorized", "Unauthorized"),
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		},
		"no answer": hang,
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>no healthy upstream", http.StatusBadGateway)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			api, sessions := &api{answer: down}, new(atomic.Int64)
			annotate(t, api, sessions)
			for i := range 3600 {
				sessions.Store(int64(i))
				time.Sleep(time.Second)
			}
			if n := len(api.asked("")); n < 12 || n > 22 { // 2 s, 4 s … 256 s, then each 300 to 450 s
				t.Errorf("%s: %d tries in an hour", name, n)
			}
			if api.said("level=WARN") != 1 || api.failures(t, opPatch) < 12 {
				t.Errorf("%s: %d failures, the log:\n%s", name, api.failures(t, opPatch), api.logs.String())
			}
			api.become(ok)
			time.Sleep(maxDelay*3/2 + time.Second)
			asked := api.asked("")
			if got := patched(t, asked[len(asked)-1]); got != 3599 || api.said("are reported again") != 1 {
				t.Errorf("%s: the last patch says %d; the log:\n%s", name, got, api.logs.String())
			}
		})
	}
}

// TestRetryAfterIsHonored: no request is sent before the time that the API server asks for.
func TestRetryAfterIsHonored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			// As API Priority and Fairness answers.
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		}}
		annotate(t, api, new(atomic.Int64))
		time.Sleep(119 * time.Second)
		if n := len(api.asked("")); n != 1 {
			t.Errorf("%d tries in two minutes", n)
		}
		time.Sleep(62 * time.Second)
		if n := len(api.asked("")); n != 2 {
			t.Errorf("%d tries in three minutes", n)
		}
	})
}

// TestAnnotatorCloses while the API server does not answer.
func TestAnnotatorCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &api{answer: hang}
		a := annotate(t, api, new(atomic.Int64))
		synctest.Wait()
		began := time.Now()
		a.Close()
		a.Close()
		if time.Since(began) > 0 || api.running != 0 {
			t.Errorf("took %v, %d requests are left", time.Since(began), api.running)
		}
		if api.failures(t, opPatch) != 0 || api.said("level=WARN") != 0 {
			t.Errorf("%d failures; the log:\n%s", api.failures(t, opPatch), api.logs.String())
		}
	})
}

func TestAnnotatorConfigIsChecked(t *testing.T) {
	c, sessions := new(api).client(t), func() int { return 0 }
	for _, cfg := range []AnnotatorConfig{
		{Pod: pod, Sessions: sessions},
		{Client: c, Sessions: sessions},
		{Client: c, Sessions: sessions, Pod: Pod{Name: "p"}},
		{Client: c, Pod: pod},
	} {
		if _, err := NewAnnotator(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
