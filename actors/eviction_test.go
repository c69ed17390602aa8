package actors

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestEvictionOrder: the session that has been without a client for longest is evicted first, one
// for each client that waits, whatever the order in which they were opened.
func TestEvictionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Limits.MaxSessions = 3 }, nil)
		var clients []*testClient
		for range 3 {
			clients = append(clients, connect(h.Engine, ConnectRequest{}))
		}
		synctest.Wait()
		resume := func(of *testClient) *testClient {
			hello := find[wire.Connected](of)
			back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
			back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
			synctest.Wait()
			return back
		}
		order := []int{1, 2, 0}
		for _, i := range order {
			clients[i].hangUp(wire.CauseClientGone)
			time.Sleep(time.Second)
		}
		var late []*testClient
		for _, i := range order[:2] {
			c := connect(h.Engine, ConnectRequest{})
			synctest.Wait()
			if find[wire.Connected](c) == nil {
				t.Fatal("no session gave way")
			}
			late = append(late, c)
			if r := resume(clients[i]).reply("r"); r == nil || r.err == nil || r.err.Code != wire.CodeNoSession {
				t.Errorf("session %d, whose turn it was, is still there: %+v", i, r)
			}
		}
		back := resume(clients[order[2]])
		if r := back.reply("r"); r == nil || r.err != nil {
			t.Errorf("the last session gave way too early: %+v", r)
		}
		// It has a client again, as all have now.
		refused := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		if cause, ended := refused.hasEnded(); !ended || cause != wire.CauseSessionLimit || h.Stats().Sessions != 3 {
			t.Errorf("a client beyond the limit: ended %v by %s, %d sessions", ended, cause, h.Stats().Sessions)
		}
		h.stop(t, append(late, back)...)
	})
}

// TestResumeNeedsTokenAndSubject: neither the token of another session nor the right token of
// another subject will do.
func TestResumeNeedsTokenAndSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		mine, other := connect(h.Engine, ConnectRequest{}), connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		hello, others := find[wire.Connected](mine), find[wire.Connected](other)
		for name, c := range map[string]struct {
			subject, token string
			granted        bool
		}{
			"token and subject":          {"alice", hello.ResumeToken, true},
			"another session's token":    {"alice", others.ResumeToken, false},
			"the beginning of the token": {"alice", hello.ResumeToken[:len(hello.ResumeToken)-1], false},
			"the session's id":           {"alice", hello.SessionID, false},
			"another subject":            {"bob", hello.ResumeToken, false},
			"the subject in capitals":    {"ALICE", hello.ResumeToken, false},
		} {
			back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID, Subject: c.subject})
			back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: c.token})
			synctest.Wait()
			if r := back.reply("r"); r == nil || (r.err == nil) != c.granted || !c.granted && r.err.Code != wire.CodeNoSession {
				t.Errorf("%s: %+v", name, r)
			}
			if c.granted {
				back.hangUp(wire.CauseClientGone)
			}
		}
		h.stop(t, mine, other)
	})
}
