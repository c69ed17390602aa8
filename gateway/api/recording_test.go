package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors"
)

const recordingPath = Prefix + "sessions/" + alices + "/executions/x/recording"

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func text(at float64, data string) actors.RecordingPiece {
	return actors.RecordingPiece{At: at, Data: []byte(data)}
}

// TestRecordingIsAnAsciicast: its header, the times, sizes, what is not kept; a rune that is torn by two pages, and
// bytes that are none.
func TestRecordingIsAnAsciicast(t *testing.T) {
	f := newFixture(t, nil)
	f.engine.shown = [][]actors.RecordingPiece{
		{{Cols: 80, Rows: 24}, text(0.01, "$ \x1b[1m"), {At: 0.5, Gap: 7}, text(0.5, "<h\xc3")},
		{
			text(2, "\xa4"),
			{At: 2.25, Cols: 100, Rows: 30},
			{At: 2.25, Cols: 100, Rows: 30},
			text(2.25, "\xff\xfe\r\n"), text(3, "\xe6\x9c"),
		},
	}
	f.engine.kept = 2
	resp := f.do("GET", recordingPath, "alice")
	want := `{"version":2,"width":80,"height":24,"timestamp":1700000000,"title":"vim <x>","env":{"TERM":"xterm-256color"}}
[0.010,"o","$ \u001b[1m"]
[0.500,"m","7 bytes are not kept"]
[0.500,"o","<h"]
[2.000,"o","ä"]
[2.250,"r","100x30"]
[2.250,"o","\ufffd\ufffd\r\n"]
[3.000,"o","\ufffd\ufffd"]
`
	if got := bodyOf(t, resp); resp.StatusCode != 200 || resp.Header.Get("Content-Type") != castType || got != want {
		t.Errorf("%d %v\n%s\nwant\n%s", resp.StatusCode, resp.Header, got, want)
	}
	// From the time of an event on: it, and all after it.
	lines := strings.SplitAfter(want, "\n")
	if got := bodyOf(t, f.do("GET", recordingPath+"?since=2.250", "alice")); got != lines[0]+strings.Join(lines[5:], "") {
		t.Errorf("since 2.250:\n%s", got)
	}
	for path, detail := range map[string]string{
		"?since=-1": "since", "?since=NaN": "since", "?follow=maybe": "follow", "?x=1": "x", "?since=1&since=2": "once",
	} {
		resp := f.do("GET", recordingPath+path, "alice")
		if got := bodyOf(t, resp); resp.StatusCode != 400 || !strings.Contains(got, detail) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, got)
		}
	}
	resp = f.do("GET", strings.Replace(recordingPath, "/x/", "/plain/", 1), "alice")
	if got := bodyOf(t, resp); resp.StatusCode != 404 || !strings.Contains(got, "no terminal") {
		t.Errorf("without a terminal: %d %s", resp.StatusCode, got)
	}
}

// TestRecordingOfAFloodEnds: it has what there was when it was asked for, though the terminal shows ever more.
func TestRecordingOfAFloodEnds(t *testing.T) {
	f := newFixture(t, nil)
	for i := range 100 {
		f.engine.shown = append(f.engine.shown, []actors.RecordingPiece{text(float64(i), "y\r\n")})
	}
	f.engine.kept = 3
	if got := bodyOf(t, f.do("GET", recordingPath, "alice")); strings.Count(got, "y") != 3 {
		t.Error(got)
	}
}

// TestFollowedRecordingGoesOnToTheEnd: whatever comes between is in it, the silence of a pod is borne for a
// while, and a session that is gone was the end. While nothing comes, it holds no request of others up.
func TestFollowedRecordingGoesOnToTheEnd(t *testing.T) {
	for name, end := range map[string]error{
		"ends": nil, "is gone": actors.ErrNoSession, "is forgotten": actors.ErrNoExecution,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, nil)
			f.engine.shown = [][]actors.RecordingPiece{{text(0, "a")}, nil, {text(1, "b")}, {text(2, "c")}}
			f.engine.failAt = map[int64]error{2: &actors.PodSilentError{Pod: "p", Reason: "busy"}}
			f.engine.kept = 4
			if end != nil {
				f.engine.failAt[3] = end
			}
			check := func() {
				for range MaxRequests / 2 { // all that she may have
					if !f.handler.permits.TryEnter("alice") {
						t.Error("a recording holds a permit while it waits")
						return
					}
					defer f.handler.permits.Leave("alice")
				}
			}
			time.AfterFunc(50*time.Millisecond, check) // nothing has come
			time.AfterFunc(5*time.Second, check)       // the pod is silent
			f.engine.heal = 16                         // of which 14 are 0.5 s apart
			got := bodyOf(t, f.do("GET", recordingPath+"?follow=true", "alice"))
			want := map[bool]int{true: 4, false: 3}[end == nil]
			if strings.Count(got, "\n") != want || !strings.Contains(got, `[1.000,"o","b"]`) {
				t.Errorf("%s: %s", name, got)
			}
		})
	}
}

func aborted(panicked any) bool {
	err, _ := panicked.(error)
	return errors.Is(err, http.ErrAbortHandler)
}

// TestBrokenRecordingIsNotWhole: a pod that stays silent breaks the connection, so that the client knows.
func TestBrokenRecordingIsNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.engine.shown = [][]actors.RecordingPiece{{text(0, "a")}, nil}
		f.engine.failAt = map[int64]error{1: &actors.PodSilentError{Pod: "p", Reason: "it is dead"}}
		f.engine.kept = 2
		defer func() {
			if !aborted(recover()) {
				t.Error("the answer is whole")
			}
			if n := f.handler.permits.TryEnter("alice"); !n || !f.handler.records.TryEnter("alice") {
				t.Error("a permit is lost")
			}
		}()
		f.do("GET", recordingPath, "alice")
	})
}

// TestRecordingsAreBounded: one subject has half of MaxRecordings at a time.
func TestRecordingsAreBounded(t *testing.T) {
	f := newFixture(t, nil)
	for range MaxRecordings / 2 {
		f.handler.records.TryEnter("alice")
	}
	resp := f.do("GET", recordingPath, "alice")
	if got := bodyOf(t, resp); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || len(f.accesses) > 0 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	f.handler.records.Leave("alice")
	if resp := f.do("GET", recordingPath, "alice"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	f.do("GET", strings.Replace(recordingPath, alices, bobs, 1), "alice").Body.Close()
	if !f.handler.records.TryEnter("alice") || f.handler.records.TryEnter("alice") {
		t.Error("a recording that has ended, or was refused, still counts, or counts less")
	}
}

// FuzzAsciicast: every line is JSON, whatever a terminal shows, in pieces of any length.
func FuzzAsciicast(f *testing.F) {
	f.Add([]byte("häuser \xf0\x9f\x98\x80 \xff\"\\\x00\u2028"), 3)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		c := asciicast{cols: 80, rows: 24}
		for rest := data; len(rest) > 0; {
			n := min(max(size%7, 1), len(rest))
			c.add([]actors.RecordingPiece{{At: float64(len(data) - len(rest)), Data: rest[:n]}}, 0)
			rest = rest[n:]
		}
		c.finish()
		var got strings.Builder
		for line := range strings.Lines(c.out.String()) {
			var event []any
			if err := json.Unmarshal([]byte(line), &event); err != nil || len(event) != 3 {
				t.Fatalf("%q: %v", line, err)
			}
			fmt.Fprint(&got, event[2])
		}
		if want := string([]rune(string(data))); got.String() != want {
			t.Errorf("%q, want %q", got.String(), want)
		}
	})
}

// TestSlowClientLosesARecording: one that does not read holds its permit for pageTimeout at most.
func TestSlowClientLosesARecording(t *testing.T) {
	f := newFixture(t, nil)
	f.engine.shown = [][]actors.RecordingPiece{{text(0, "a")}, {text(0, "b")}}
	f.engine.kept = 2
	w := &stuckWriter{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost"+recordingPath, nil)
	r.Header.Set("Authorization", "Bearer "+tokenOf["alice"])
	defer func() {
		if !aborted(recover()) || w.deadline.IsZero() || time.Until(w.deadline) > pageTimeout {
			t.Errorf("a deadline at %v", w.deadline)
		}
	}()
	f.handler.ServeHTTP(w, r)
}

// stuckWriter fails as a connection at its deadline.
type stuckWriter struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (w *stuckWriter) SetWriteDeadline(t time.Time) error { w.deadline = t; return nil }

func (w *stuckWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("timeout") }
