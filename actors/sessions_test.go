package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestPodsTellHowManyTheyHaveRefused, and started, in the heartbeats that say how full they are.
func TestPodsTellHowManyTheyHaveRefused(t *testing.T) {
	s := newService(t, 2, func(c *Config) { c.Limits.MaxExecutions = 1 })
	c := connect(s.pods[1].Engine, ConnectRequest{Subject: "alice"})
	if connected, err := c.settled(t); connected == nil {
		t.Fatal(err)
	}
	for i := range 4 {
		c.execute(fmt.Sprint(i), wire.ExecuteParams{Argv: []string{"sleep"}})
		c.answered(t, fmt.Sprint(i))
	}
	for _, h := range s.pods {
		eventually(t, 5*time.Second, "each pod knows of three refusals", func() bool {
			pods := h.Pods().Pods
			return pods[0].Refused == 0 && pods[0].Started == 0 && pods[1].Refused == 3 && pods[1].Started == 1 &&
				pods[1].StartSeconds >= 0
		})
	}
	s.stop(c)
}

// TestSessionsOfAllPodsAreListed: sorted, with what each runs, from any pod, and only the viewer's own unless they
// may see all.
func TestSessionsOfAllPodsAreListed(t *testing.T) {
	s := newService(t, 3, nil)
	var clients []*testClient
	for i, h := range s.pods {
		for _, subject := range []string{"alice", "bob"} {
			c := connect(h.Engine, ConnectRequest{Subject: subject, Options: wire.SessionOptions{
				Name: fmt.Sprint("n", i), Labels: map[string]string{"who": subject},
			}})
			if connected, err := c.settled(t); connected == nil {
				t.Fatal(err)
			}
			c.execute("1", wire.ExecuteParams{ExecutionID: fmt.Sprint(subject, i), Argv: []string{"make", "it so"}})
			c.answered(t, "1")
			clients = append(clients, c)
		}
	}
	for _, h := range s.pods {
		for name, tc := range map[string]struct {
			viewer Viewer
			filter SessionFilter
			want   string
		}{
			"own":                {viewer: Viewer{Subject: "alice"}, want: "pod-0 alice make 'it so'; pod-1 alice make 'it so'; pod-2 alice make 'it so'"},
			"of another":         {viewer: Viewer{Subject: "alice"}, filter: SessionFilter{Subject: "bob"}},
			"all":                {viewer: Viewer{Subject: "carol", All: true}, filter: SessionFilter{Subject: "bob"}, want: "pod-0 bob ; pod-1 bob ; pod-2 bob "},
			"all, with commands": {viewer: Viewer{Subject: "carol", All: true, Commands: true}, filter: SessionFilter{Pod: "pod-1"}, want: "pod-1 alice make 'it so'; pod-1 bob make 'it so'"},
			"by label":           {viewer: Viewer{Subject: "bob", All: true}, filter: SessionFilter{Labels: map[string]string{"who": "alice"}, Name: "n2"}, want: "pod-2 alice "},
			"detached":           {viewer: Viewer{Subject: "bob"}, filter: SessionFilter{State: wire.SessionDetached}},
			"nobody's":           {viewer: Viewer{Subject: "carol"}},
		} {
			list, err := h.ListSessions(t.Context(), tc.viewer, tc.filter)
			if err != nil || len(list.Missing) > 0 || list.Continue != "" {
				t.Fatalf("%s at %s: %+v, %v", name, h.pod, list, err)
			}
			var got []string
			for _, s := range list.Sessions {
				got = append(got, strings.Join([]string{s.Pod, s.Subject, s.Executions[0].Command}, " "))
			}
			if name == "all, with commands" && len(got) == 2 && got[0] > got[1] {
				got[0], got[1] = got[1], got[0] // ids are random
			}
			if g := strings.Join(got, "; "); g != tc.want {
				t.Errorf("%s at %s: %s, want %s", name, h.pod, g, tc.want)
			}
		}
	}
	s.stop(clients...)
}

// TestPagesOfSessionsAreWholeAndInOrder: however small they are, each session is in one of them.
func TestPagesOfSessionsAreWholeAndInOrder(t *testing.T) {
	s := newService(t, 3, nil)
	var clients []*testClient
	want := map[string]bool{}
	for i := range 10 {
		c := connect(s.pods[i%2].Engine, ConnectRequest{Subject: "alice"}) // pod-2 has none
		connected, err := c.settled(t)
		if connected == nil {
			t.Fatal(err)
		}
		want[connected.SessionID] = true
		clients = append(clients, c)
	}
	for limit := 1; limit <= 11; limit++ {
		seen, last, f := map[string]bool{}, "", SessionFilter{Limit: limit}
		for pages := 1; ; pages++ {
			list, err := s.pods[2].ListSessions(t.Context(), Viewer{Subject: "alice"}, f)
			if err != nil || len(list.Missing) > 0 || len(list.Sessions) > limit || pages > 20 {
				t.Fatalf("page %d of %d: %+v, %v", pages, limit, list, err)
			}
			for _, s := range list.Sessions {
				if s.ID <= last || !want[s.ID] {
					t.Errorf("%s after %s", s.ID, last)
				}
				last, seen[s.ID] = s.ID, true
			}
			if f.After = list.Continue; f.After == "" {
				break
			}
		}
		if len(seen) != len(want) {
			t.Errorf("in pages of %d: %d sessions, want %d", limit, len(seen), len(want))
		}
	}
	for _, f := range []SessionFilter{{After: "x"}, {Pod: "pod-9"}} {
		if _, err := s.pods[0].ListSessions(
			t.Context(),
			Viewer{},
			f,
		); !errors.Is(err, ErrBadContinue) &&
			!errors.Is(err, ErrNoPod) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	s.stop(clients...)
}

// TestSessionIsTakenUpElsewhereWithAFreshToken: on any pod, by its own subject only; tokens do not replace each other.
func TestSessionIsTakenUpElsewhereWithAFreshToken(t *testing.T) {
	s := newService(t, 2, nil)
	first := connect(s.pods[0].Engine, ConnectRequest{Subject: "alice"})
	connected, werr := first.settled(t)
	if connected == nil {
		t.Fatal(werr)
	}
	first.execute("1", wire.ExecuteParams{ExecutionID: "shell"})
	first.answered(t, "1")
	tokens := map[string]bool{connected.ResumeToken: true}
	for i := range 4 {
		a, err := s.pods[i%2].AttachSession(t.Context(), Viewer{Subject: "alice", All: true}, connected.SessionID)
		if err != nil {
			t.Fatal(err)
		}
		tokens[a.ResumeToken] = true
	}
	if len(tokens) != 5 {
		t.Errorf("%d tokens, want 5", len(tokens))
	}
	clients := []*testClient{first}
	for token := range tokens {
		c := connect(s.pods[1].Engine, ConnectRequest{Subject: "alice", SessionID: connected.SessionID})
		c.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: token})
		if r := c.answered(t, "r"); r.err != nil {
			t.Errorf("token %s: %v", token, r.err)
		}
		bob := connect(s.pods[1].Engine, ConnectRequest{Subject: "bob", SessionID: connected.SessionID})
		bob.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: token})
		if r := bob.answered(t, "r"); wire.CodeOf(r.err) != wire.CodeNoSession {
			t.Errorf("bob, with %s: %v", token, r.err)
		}
		clients = append(clients, c, bob)
	}
	for _, h := range s.pods {
		_, err := h.AttachSession(t.Context(), Viewer{Subject: "bob", All: true}, connected.SessionID)
		if !errors.Is(err, ErrNoSession) {
			t.Errorf("bob at %s: %v", h.pod, err)
		}
	}
	s.stop(clients...)
}

// TestSessionIsEndedFromAnyPod: by its subject or by who may see all, and by nobody else.
func TestSessionIsEndedFromAnyPod(t *testing.T) {
	s := newService(t, 2, nil)
	for _, tc := range []struct {
		viewer Viewer
		ok     bool
	}{{Viewer{Subject: "bob"}, false}, {Viewer{Subject: "alice"}, true}, {Viewer{Subject: "bob", All: true}, true}} {
		c := connect(s.pods[0].Engine, ConnectRequest{Subject: "alice"})
		connected, werr := c.settled(t)
		if connected == nil {
			t.Fatal(werr)
		}
		id := connected.SessionID
		got, err := s.pods[1].EndSession(t.Context(), tc.viewer, id)
		if ok := err == nil && got.State == wire.SessionClosing; ok != tc.ok || !ok && !errors.Is(err, ErrNoSession) {
			t.Errorf("%+v: %+v, %v", tc.viewer, got, err)
		}
		if !tc.ok {
			if _, err := s.pods[1].GetSession(t.Context(), tc.viewer, id); !errors.Is(err, ErrNoSession) {
				t.Errorf("%+v may describe it: %v", tc.viewer, err)
			}
			c.hangUp(wire.CauseClientDone)
			continue
		}
		eventually(t, 10*time.Second, "the end", func() bool { _, ended := c.hasEnded(); return ended })
		c.hangUp(wire.CauseSessionEnded)
		eventually(t, 10*time.Second, "the session to be gone", func() bool {
			_, err := s.pods[1].GetSession(t.Context(), Viewer{Subject: "alice"}, id)
			return errors.Is(err, ErrNoSession)
		})
	}
	s.stop()
}

// TestUnknownSessions: what is no id, a session of a pod that is not there, one that never was.
func TestUnknownSessions(t *testing.T) {
	s := newService(t, 2, nil)
	for _, id := range []string{
		"", "x", "pod-9." + strings.Repeat("0", 32), "pod-0." + strings.Repeat("0", 32), "pod-1." + strings.Repeat("0", 32),
	} {
		if _, err := s.pods[0].GetSession(t.Context(), Viewer{All: true}, id); !errors.Is(err, ErrNoSession) {
			t.Errorf("%q: %v", id, err)
		}
	}
	s.stop()
}

// TestStuckSessionIsListedWithoutItsAnswer: and holds nobody up for longer than sessionTimeout.
func TestStuckSessionIsListedWithoutItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHarness(t, newFakeRunner(running), nil, func(kind string, msg any) {
			if _, ok := msg.(askSession); ok {
				<-release
			}
		})
		c := connect(h.Engine, ConnectRequest{Subject: "alice"})
		synctest.Wait()
		began := time.Now()
		list, err := h.ListSessions(t.Context(), Viewer{Subject: "alice"}, SessionFilter{})
		if err != nil || len(list.Sessions) != 1 || list.Sessions[0].State != wire.SessionUnresponsive ||
			list.Sessions[0].Subject != "alice" {
			t.Errorf("%+v, %v", list, err)
		}
		if took := time.Since(began); took > sessionTimeout {
			t.Errorf("it took %v", took)
		}
		if _, err := h.EndSession(t.Context(), Viewer{Subject: "alice"}, list.Sessions[0].ID); err == nil {
			t.Error("a session that does not answer is said to end")
		}
		close(release)
		synctest.Wait()
		h.stop(t, c)
	})
}

func TestShownCommand(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, tc := range []struct {
		params wire.ExecuteParams
		want   string
	}{
		{wire.ExecuteParams{Command: "make && echo ok"}, "make && echo ok"},
		{wire.ExecuteParams{Command: "a\n\tb\x1b[31m\u202e"}, "a  b�[31m�"},
		{wire.ExecuteParams{Argv: []string{"grep", "-r", "a b", "", "it's", "--x=1"}}, `grep -r 'a b' '' 'it'\''s' --x=1`},
		{wire.ExecuteParams{Command: long}, long[:125] + "…"},
		{wire.ExecuteParams{Command: long[:128]}, long[:128]},
		{wire.ExecuteParams{Argv: []string{"echo", long}}, "echo " + long[:120] + "…"},
	} {
		if got := shownCommand(&tc.params); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.params, got, tc.want)
		}
	}
}

// TestListingOfTenPodsNamesTheSilentOne: within 2 s, and with the sessions of the nine others.
func TestListingOfTenPodsNamesTheSilentOne(t *testing.T) {
	s := newService(t, 10, nil)
	var clients []*testClient
	for _, h := range s.pods {
		c := connect(h.Engine, ConnectRequest{Subject: "alice"})
		if connected, err := c.settled(t); connected == nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	stuck := &s.pods[6].cluster.queries.mu // which every answer of the pod takes
	stuck.Lock()
	began := time.Now()
	list, err := s.pods[0].ListSessions(t.Context(), Viewer{Subject: "olga", All: true}, SessionFilter{})
	took := time.Since(began)
	stuck.Unlock()
	if err != nil || len(list.Sessions) != 9 || len(list.Missing) != 1 || list.Missing[0].Pod != "pod-6" ||
		took > 2*time.Second {
		t.Errorf("%d sessions after %v, missing %v, %v", len(list.Sessions), took, list.Missing, err)
	}
	list, err = s.pods[0].ListSessions(t.Context(), Viewer{Subject: "olga", All: true}, SessionFilter{})
	if err != nil || len(list.Sessions) != 10 || len(list.Missing) != 0 {
		t.Errorf("later: %d sessions, missing %v, %v", len(list.Sessions), list.Missing, err)
	}
	s.stop(clients...)
}
