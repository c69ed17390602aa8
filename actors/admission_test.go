package actors

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// many makes clients of several subjects possible.
func many(c *Config) { c.ManySubjects = func() bool { return true } }

// outcome is "" if the client has a session, or the limit for which it was refused and closed.
func (c *testClient) outcome() string {
	if find[wire.Connected](c) != nil {
		return ""
	}
	r := c.reply("null")
	if r == nil || r.err == nil {
		return "no answer"
	}
	if cause, ended := c.hasEnded(); !ended || cause != wire.CauseSessionLimit {
		return fmt.Sprintf("ended %v by %q", ended, cause)
	}
	if r.err.Code != wire.CodeSessionLimit || r.err.Data == nil || r.err.Data.RetryAfterSeconds <= 0 {
		return r.err.Error()
	}
	return fmt.Sprint(r.err.Data.Limit, " ", r.err.Data.Value)
}

// arrive connects n clients of a subject, one after the other, and returns those with a session, and
// how many met which limit.
func arrive(h *harness, subject string, n int) (in []*testClient, refused map[string]int) {
	refused = map[string]int{}
	for range n {
		c := connect(h.Engine, ConnectRequest{Subject: subject})
		synctest.Wait()
		if limit := c.outcome(); limit != "" {
			refused[limit]++
		} else {
			in = append(in, c)
		}
	}
	return in, refused
}

// want checks what arrive returned.
func want(t *testing.T, who string, in []*testClient, refused map[string]int, sessions int, limits map[string]int) {
	t.Helper()
	if len(in) != sessions || fmt.Sprint(refused) != fmt.Sprint(limits) {
		t.Errorf("%s has %d sessions and met %v, want %d and %v", who, len(in), refused, sessions, limits)
	}
}

// TestGreedySubjectLeavesTheLastTenth: one subject gets 90 of 100 slots. Ten others get one each, and
// no second. Then the server is full for all.
func TestGreedySubjectLeavesTheLastTenth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, reported := prometheus.NewRegistry(), 0
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			many(c)
			c.Registerer = reg
			c.Refused = func(wire.Cause) { reported++ } // in the manager's goroutine
		}, nil)
		all, refused := arrive(h, "greedy", 95)
		want(t, "greedy", all, refused, 90, map[string]int{"reserved-sessions 10": 5})
		for i := range 10 {
			name := fmt.Sprint("modest-", i)
			in, refused := arrive(h, name, 1)
			want(t, name, in, refused, 1, nil)
			all = append(all, in...)
			if i < 9 {
				in, refused = arrive(h, name, 1)
				want(t, name, in, refused, 0, map[string]int{"reserved-sessions 10": 1})
			}
		}
		in, refused := arrive(h, "late", 1)
		want(t, "late", in, refused, 0, map[string]int{"max-sessions 100": 1})
		if reported != 1 {
			t.Errorf("%d refusals are reported as the server's, want that of the last client alone", reported)
		}
		expect(t, reg, map[string]float64{
			"sessions": 100, "sessions_max": 100, "sessions_reserved": 10, "subject_sessions_highest": 90,
			"sessions_refused_total{reserved}": 14, "sessions_refused_total{session_limit}": 1,
			"sessions_refused_total{subject_limit}": 0,
		})
		if n := h.Stats().Refused; n != 15 {
			t.Errorf("%d refusals are shown, want 15", n)
		}
		// A slot that comes free is again for one that holds none.
		all[95].conn.Request(wire.ID("9"), &wire.CloseParams{})
		synctest.Wait()
		in, refused = arrive(h, "greedy", 1)
		want(t, "greedy, again", in, refused, 0, map[string]int{"reserved-sessions 10": 1})
		in, refused = arrive(h, "late", 1)
		want(t, "late, again", in, refused, 1, nil)
		h.stop(t, append(all, in...)...)
	})
}

// TestOneSubjectHasNoReserve: where only one subject can come, no slot is kept for others.
func TestOneSubjectHasNoReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		in, refused := arrive(h, "anonymous", 105)
		want(t, "anonymous", in, refused, 100, map[string]int{"max-sessions 100": 5})
		h.stop(t, in...)
	})
}

// TestSmallCeilingsHaveNoReserve: of fewer than ten slots none is kept back.
func TestSmallCeilingsHaveNoReserve(t *testing.T) {
	for slots, reserved := range map[int]int{1: 0, 2: 0, 9: 0, 10: 1, 19: 1, 20: 2, 25: 2} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), func(c *Config) {
				many(c)
				c.Limits.MaxSessions = slots
			}, nil)
			in, _ := arrive(h, "greedy", slots+1)
			others := 0
			for i := range reserved + 1 {
				other, _ := arrive(h, fmt.Sprint("other-", i), 1)
				others += len(other)
				in = append(in, other...)
			}
			if len(in) != slots || others != reserved {
				t.Errorf("of %d slots %d are in use, %d by others, want %d", slots, len(in), others, reserved)
			}
			h.stop(t, in...)
		})
	}
}

// TestSubjectAtItsSessionLimit is refused with the name of that limit; others are not.
func TestSubjectAtItsSessionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			many(c)
			c.Registerer, c.Limits.MaxSessionsPerSubject = reg, 3
		}, nil)
		alice, refused := arrive(h, "alice", 5)
		want(t, "alice", alice, refused, 3, map[string]int{"max-sessions-per-subject 3": 2})
		bob, refused := arrive(h, "bob", 3)
		want(t, "bob", bob, refused, 3, nil)
		expect(t, reg, map[string]float64{
			"sessions_refused_total{subject_limit}": 2, "sessions_refused_total{session_limit}": 0,
			"subject_sessions_highest": 3,
		})
		alice[0].hangUp(wire.CauseClientDone)
		synctest.Wait()
		more, refused := arrive(h, "alice", 2)
		want(t, "alice, with one ended", more, refused, 1, map[string]int{"max-sessions-per-subject 3": 1})
		h.stop(t, append(append(alice[1:], bob...), more...)...)
	})
}

// TestSlotOfAFailedSessionIsItsSubjects: the slot is held until the processes are dead, and counts
// for the subject meanwhile.
func TestSlotOfAFailedSessionIsItsSubjects(t *testing.T) {
	armed := false
	probe := func(kind string, _ any) {
		if kind == "session" && armed {
			armed = false
			panic("injected")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			many(c)
			c.Limits.MaxSessionsPerSubject = 1
		}, probe)
		c := connect(h.Engine, ConnectRequest{Subject: "alice"})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.stubborn, armed = true, true
		c.conn.Request(wire.ID("2"), &wire.StatusParams{})
		synctest.Wait()
		in, refused := arrive(h, "alice", 1)
		want(t, "alice", in, refused, 0, map[string]int{"max-sessions-per-subject 1": 1})
		tree.die(proc.Dead{})
		time.Sleep(moment)
		synctest.Wait()
		in, refused = arrive(h, "alice", 1)
		want(t, "alice, with the processes dead", in, refused, 1, nil)
		h.stop(t, append(in, c)...)
	})
}

// TestEvictionTakesFromWhoHoldsMost: a full server takes a slot for a newcomer from the subject that
// holds most, not from the one whose session has waited longest. No subject takes from one that holds
// no more than itself, and at its own limit it takes only from itself.
func TestEvictionTakesFromWhoHoldsMost(t *testing.T) {
	const slots = 10
	for name, c := range map[string]struct {
		held    []string // one subject for each session; the detached ones are in capitals, oldest first
		limit   int
		subject string
		victim  string // "": refused
	}{
		"a newcomer":                     {[]string{"B", "b", "A", "a", "a", "c", "d", "e", "f", "g"}, 0, "new", "A"},
		"a newcomer, of equals":          {[]string{"B", "b", "A", "a", "c", "d", "e", "f", "g", "h"}, 0, "new", "B"},
		"a newcomer, of single sessions": {[]string{"A", "B", "c", "d", "e", "f", "g", "h", "i", "j"}, 0, "new", "A"},
		"one that holds less":            {[]string{"B", "A", "a", "a", "c", "d", "e", "f", "g", "h"}, 0, "b", "A"},
		"one that holds as much":         {[]string{"A", "B", "c", "d", "e", "f", "g", "h", "i", "j"}, 0, "c", ""},
		"one that holds more":            {[]string{"B", "a", "a", "a", "c", "d", "e", "f", "g", "h"}, 0, "a", ""},
		"one that has its own":           {[]string{"B", "A", "a", "a", "c", "d", "e", "f", "g", "h"}, 0, "a", "A"},
		"one at its limit":               {[]string{"B", "b", "A", "a", "d"}, 2, "a", "A"},
		"one at its limit, without any":  {[]string{"B", "b", "a", "a", "d"}, 2, "a", ""},
		"one at the reserve":             {[]string{"B", "b", "b", "a", "a", "c", "d", "e", "f"}, 0, "a", "B"},
		"nobody gives way":               {[]string{"a", "a", "b", "b", "c", "d", "e", "f", "g", "h"}, 0, "new", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(cfg *Config) {
					many(cfg)
					cfg.Limits.MaxSessions, cfg.Limits.MaxSessionsPerSubject = slots, c.limit
				}, nil)
				var clients []*testClient
				for _, subject := range c.held {
					in, refused := arrive(h, strings.ToLower(subject), 1)
					want(t, subject, in, refused, 1, nil)
					clients = append(clients, in...)
				}
				for i, subject := range c.held {
					if subject != strings.ToLower(subject) {
						clients[i].hangUp(wire.CauseClientGone)
						time.Sleep(time.Second)
					}
				}
				in, refused := arrive(h, c.subject, 1)
				if (c.victim == "") != (len(in) == 0) {
					t.Errorf("%d sessions were opened, refused: %v", len(in), refused)
				}
				victim := ""
				for i, subject := range c.held {
					if subject == strings.ToLower(subject) {
						continue
					}
					hello := find[wire.Connected](clients[i])
					back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID, Subject: strings.ToLower(subject)})
					back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
					synctest.Wait()
					if r := back.reply("r"); r == nil || r.err != nil {
						victim += subject
					}
					in = append(in, back)
				}
				if victim != c.victim {
					t.Errorf("%q gave way, want %q", victim, c.victim)
				}
				h.stop(t, append(clients, in...)...)
			})
		})
	}
}

// TestWaitingNewcomerCounts: a subject that is promised the slot of a session which is being evicted
// holds it. A burst of its clients evicts as many as they are and takes no more than its share.
func TestWaitingNewcomerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			many(c)
			c.Limits.MaxSessions, c.Limits.MaxSessionsPerSubject = 10, 9
		}, nil)
		var clients []*testClient
		for range 9 {
			in, _ := arrive(h, "greedy", 1)
			in[0].hangUp(wire.CauseClientGone)
			clients = append(clients, in...)
		}
		in, _ := arrive(h, "other", 1)
		clients = append(clients, in...)
		var burst []*testClient
		for range 9 { // at once
			burst = append(burst, connect(h.Engine, ConnectRequest{Subject: "new"}))
		}
		synctest.Wait()
		opened, refused := 0, map[string]int{}
		for _, c := range burst {
			if limit := c.outcome(); limit == "" {
				opened++
			} else {
				refused[limit]++
			}
		}
		// After five it holds 5 and greedy 4: it takes from nobody who holds less.
		if opened != 5 || refused["max-sessions 10"] != 4 || h.Stats().Sessions != 10 {
			t.Errorf("%d opened, refused %v, %d sessions", opened, refused, h.Stats().Sessions)
		}
		h.stop(t, append(clients, burst...)...)
	})
}

// TestSubjectAtItsExecutionLimit: executions of all sessions of a subject count, those of other
// subjects do not, and each end, in order or not, makes room for one.
func TestSubjectAtItsExecutionLimit(t *testing.T) {
	armed := false
	probe := func(kind string, _ any) {
		if kind == "session" && armed {
			armed = false
			panic("injected")
		}
	}
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			many(c)
			c.Registerer, c.Limits.MaxExecutionsPerSubject = reg, 3
		}, probe)
		a, b := connect(h.Engine, ConnectRequest{Subject: "alice"}), connect(h.Engine, ConnectRequest{Subject: "alice"})
		other := connect(h.Engine, ConnectRequest{Subject: "bob"})
		try := func(c *testClient, id string) *wire.Error {
			c.execute(id, wire.ExecuteParams{ExecutionID: "x" + id})
			synctest.Wait()
			return c.reply(id).err
		}
		for i, c := range []*testClient{a, a, b, other, other, other} {
			if err := try(c, fmt.Sprint(i)); err != nil {
				t.Errorf("execution %d: %v", i, err)
			}
		}
		full := func(c *testClient, id string) {
			t.Helper()
			err := try(c, id)
			if err == nil || err.Code != wire.CodeSessionLimit || err.Data == nil ||
				err.Data.Limit != "max-executions-per-subject" || err.Data.Value != 3 || err.Data.RetryAfterSeconds <= 0 {
				t.Errorf("beyond the limit: %+v", err)
			}
		}
		full(a, "10")
		full(b, "11")
		full(other, "12")
		expect(t, reg, map[string]float64{"executions": 6, "executions_refused_total{subject_limit}": 3})
		if n := h.Stats().Refused; n != 3 {
			t.Errorf("%d refusals are shown, want 3", n)
		}
		h.runner.tree("x2").exit(0)
		synctest.Wait()
		if err := try(a, "13"); err != nil {
			t.Errorf("after one ended: %v", err)
		}
		full(b, "14")
		armed = true // the session of three executions fails
		a.conn.Request(wire.ID("s"), &wire.StatusParams{})
		synctest.Wait()
		for i := range 3 {
			if err := try(b, fmt.Sprint("2", i)); err != nil {
				t.Errorf("after a session failed: %v", err)
			}
		}
		full(b, "24")
		h.stop(t, a, b, other)
		if n := h.executions.all(); n != 0 || len(h.executions.of) != 0 {
			t.Errorf("%d executions are still counted, %v", n, h.executions.of)
		}
	})
}

// TestSubjectAtItsLimitIsPlacedElsewhere: the limits are those of each pod, as the ceiling is. A pod
// that refuses a subject opens its session on another.
func TestSubjectAtItsLimitIsPlacedElsewhere(t *testing.T) {
	s := newService(t, 2, func(c *Config) {
		many(c)
		c.Limits.MaxSessions, c.Limits.MaxSessionsPerSubject = 10, 2
	})
	var clients []*testClient
	opened := map[string]int{}
	for i := range 5 {
		c := connect(s.pods[0].Engine, ConnectRequest{Subject: "alice"})
		connected, refused := c.settled(t)
		switch {
		case connected != nil:
			opened[connected.Pod]++
		case i < 4 || refused.Data == nil || refused.Data.Limit != "max-sessions-per-subject":
			t.Errorf("session %d was refused: %v", i, refused)
		}
		clients = append(clients, c)
	}
	if opened["pod-0"] != 2 || opened["pod-1"] != 2 {
		t.Errorf("sessions by pod: %v", opened)
	}
	n := metricValue(t, s.pods[0].metrics.refused.WithLabelValues(refusedSubject))
	if m := metricValue(t, s.pods[1].metrics.refused.WithLabelValues(refusedSubject)); n != 1 || m != 0 {
		t.Errorf("refusals counted: %v on the pod that the client reached, %v on the other", n, m)
	}
	s.stop(clients...)
}

// TestEndMakesRoomBeforeItIsTold: a client that reads process.completed in one session starts the next
// command in another, though the first session has not handled the end yet.
func TestEndMakesRoomBeforeItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		atEnd := newGate("session", is[executionCompleted])
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.MaxExecutionsPerSubject = 1 }, atEnd.probe)
		one, two := connect(h.Engine, ConnectRequest{}), connect(h.Engine, ConnectRequest{})
		one.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		atEnd.arm()
		h.runner.tree("x").exit(0)
		synctest.Wait()
		if find[wire.Completed](one) == nil {
			t.Fatal("the client does not know of the end")
		}
		two.execute("2", wire.ExecuteParams{ExecutionID: "y"})
		synctest.Wait()
		if r := two.reply("2"); r == nil || r.err != nil {
			t.Errorf("the next command: %+v", r)
		}
		close(atEnd.open)
		synctest.Wait()
		h.stop(t, one, two)
		if n := h.executions.all(); n != 0 {
			t.Errorf("%d executions are still counted", n)
		}
	})
}

// TestHoldingsKeepTheMost: the gauge of the subject that has most follows every change.
// Protects from: a number that only ever grows, and a map that grows with each subject that comes.
func TestHoldingsKeepTheMost(t *testing.T) {
	h := holdings{of: map[string]int{}, with: map[int]int{}}
	held := map[string]int{}
	random := rand.New(rand.NewPCG(1, 2))
	for step := range 2000 {
		subject := strconv.Itoa(random.IntN(5))
		n := 1
		if held[subject] > 0 && random.IntN(2) == 0 || step > 1000 && held[subject] > 0 {
			n = -1
		}
		held[subject] += n
		h.add(subject, n)
		most := 0
		for s, has := range held {
			most = max(most, has)
			if h.of[s] != has {
				t.Fatalf("step %d: %s has %d, counted %d", step, s, has, h.of[s])
			}
		}
		if h.most != most {
			t.Fatalf("step %d: the most is %d, counted %d", step, most, h.most)
		}
	}
	for s, has := range held {
		for range has {
			h.add(s, -1)
		}
	}
	if len(h.of) > 0 || h.most != 0 || len(h.with) > 1 {
		t.Errorf("left: %+v", h)
	}
}
