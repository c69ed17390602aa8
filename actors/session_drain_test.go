package actors

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestDrainOfADetachedSession: a session without a client ends with the drain's
// beginning when there is nothing to read in it. With an end that no client has read
// it waits for its client, until the resume window or the drain has passed.
func TestDrainOfADetachedSession(t *testing.T) {
	const away = 20 * time.Second // from the client's leaving to the drain
	read := func(c *testClient, tree *fakeTree) {
		tree.exit(0)
		synctest.Wait()
		c.hangUp(wire.CauseClientGone)
	}
	unread := func(c *testClient, tree *fakeTree) {
		c.hangUp(wire.CauseClientGone)
		synctest.Wait()
		tree.exit(0)
	}
	for name, tc := range map[string]struct {
		window time.Duration
		before func(*testClient, *fakeTree) // nil: nothing was run
		during func(t *testing.T, h *harness, session, token string)
		ends   time.Duration // after the drain's beginning
	}{
		"nothing was run":             {window: 10 * time.Minute, ends: 0},
		"read":                        {window: 10 * time.Minute, before: read, ends: 0},
		"unread, window passes first": {window: time.Minute, before: unread, ends: time.Minute - away},
		"unread, drain passes first":  {window: 10 * time.Minute, before: unread, ends: 5 * time.Minute},
		"ends unread in the drain": {
			window: 4 * time.Minute,
			before: func(c *testClient, _ *fakeTree) { c.hangUp(wire.CauseClientGone) },
			during: func(_ *testing.T, h *harness, _, _ string) { h.runner.tree("x").exit(0) },
			ends:   4*time.Minute - away,
		},
		"read in the drain": {
			window: 10 * time.Minute,
			before: unread,
			during: func(t *testing.T, h *harness, session, token string) {
				back := connect(h.Engine, ConnectRequest{SessionID: session})
				back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: token})
				synctest.Wait()
				if count[wire.Completed](back) != 1 {
					t.Error("the client came back and was not told of the end")
				}
			},
			ends: 10 * time.Second, // when it comes back
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(c *Config) {
					c.Limits.ResumeWindow, c.Limits.DrainTimeout = tc.window, 5*time.Minute
				}, nil)
				c := connect(h.Engine, ConnectRequest{})
				synctest.Wait()
				hello := find[wire.Connected](c)
				if tc.before == nil {
					c.hangUp(wire.CauseClientGone)
				} else {
					c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
					synctest.Wait()
					tc.before(c, h.runner.tree("x"))
				}
				time.Sleep(away)
				began := time.Now()
				if tc.during != nil {
					time.AfterFunc(10*time.Second, func() { tc.during(t, h, hello.SessionID, hello.ResumeToken) })
				}
				h.Drain(nil)
				if took := time.Since(began); took < tc.ends || took > tc.ends+time.Second {
					t.Errorf("drained after %s, want %s", took, tc.ends)
				}
				h.stop(t)
			})
		})
	}
}

// TestEndThatDidNotArrive: the socket of a client breaks while a drain ends its session, in
// which nothing runs any more. The client comes back for the end of its command, whatever the
// server knows of the socket by then.
func TestEndThatDidNotArrive(t *testing.T) {
	for _, tc := range []struct {
		name string
		sent bool // the socket took the end, and the network lost it
		gone bool // the server knows that the socket is gone when the client comes back
		late time.Duration
		left time.Duration // of the drain: the session does not go on beyond it
	}{
		{"not sent, socket gone", false, true, time.Second, 5 * time.Minute},
		{"not sent, socket gone, much later", false, true, 10 * returnGrace, 5 * time.Minute},
		{"not sent, socket there", false, false, time.Second, 5 * time.Minute},
		{"sent", true, true, returnGrace / 2, 5 * time.Minute},
		{"sent, drain about to pass", true, true, time.Second, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(c *Config) {
					c.Limits.ResumeWindow, c.Limits.DrainTimeout = 2*time.Minute, tc.left
				}, nil)
				c := connect(h.Engine, ConnectRequest{})
				synctest.Wait()
				hello := find[wire.Connected](c)
				c.mute = !tc.sent
				known := sync.OnceFunc(c.pulls.Done)
				c.pulls.Add(1)
				c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
				synctest.Wait()
				deadline, drained := time.Now().Add(tc.left), make(chan struct{})
				go func() {
					h.Drain(nil)
					close(drained)
				}()
				synctest.Wait()
				h.runner.tree("x").exit(0)
				synctest.Wait()
				if _, ended := c.hasEnded(); !ended || tc.sent != (count[wire.Completed](c) == 1) {
					t.Fatal("the client was not told to go, or the end is not where it should be")
				}
				if tc.gone {
					known()
				}
				time.Sleep(tc.late)
				back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
				back.conn.Request(wire.ID("r"),
					&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 0}})
				synctest.Wait()
				if r := back.reply("r"); r == nil || r.err != nil || count[wire.Completed](back) != 1 {
					t.Errorf("resume was answered with %+v", r)
				}
				known()
				began := time.Now()
				<-drained
				if took := time.Since(began); took > returnGrace || time.Now().After(deadline) {
					t.Errorf("the drain went on for %v when all was read, %v beyond its deadline", took, time.Since(deadline))
				}
				h.stop(t)
			})
		})
	}
}
