package actors

import (
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

// TestEndThatDidNotArrive: the socket of a client breaks during a drain, with or without having taken
// the end of the command. The client has not acknowledged it, and comes back for it.
func TestEndThatDidNotArrive(t *testing.T) {
	const window, left = 2 * time.Minute, 5 * time.Minute
	for _, tc := range []struct {
		name string
		gone bool          // the server knows that the socket is gone when the client comes back
		late time.Duration // how long after; zero: it does not come back
		left time.Duration // of the drain: the session does not go on beyond it
	}{
		{"socket gone", true, window - time.Second, left},
		{"socket there", false, window + time.Second, left},
		{"drain about to pass", true, time.Second, 2 * time.Second},
		{"nobody comes back", true, 0, left},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, newFakeRunner(running), func(c *Config) {
					c.Limits.ResumeWindow, c.Limits.DrainTimeout = window, tc.left
				}, nil)
				c := connect(h.Engine, ConnectRequest{})
				c.silent = true
				synctest.Wait()
				hello := find[wire.Connected](c)
				c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
				synctest.Wait()
				began, drained := time.Now(), make(chan struct{})
				go func() {
					h.Drain(nil)
					close(drained)
				}()
				synctest.Wait()
				h.runner.tree("x").exit(0)
				synctest.Wait()
				if count[wire.Completed](c) != 1 {
					t.Fatal("the end was not sent")
				}
				if tc.gone {
					c.hangUp(wire.CauseClientGone)
				}
				if tc.late == 0 {
					<-drained
					if took := time.Since(began); took < window || took > window+time.Second {
						t.Errorf("drained after %v, want the resume window", took)
					}
					h.stop(t)
					return
				}
				time.Sleep(tc.late)
				back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
				back.conn.Request(wire.ID("r"),
					&wire.ResumeParams{ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 0}})
				synctest.Wait()
				if r := back.reply("r"); r == nil || r.err != nil || count[wire.Completed](back) != 1 {
					t.Errorf("resume was answered with %+v", r)
				}
				if !tc.gone {
					c.hangUp(wire.CausePingTimeout)
				}
				now := time.Now()
				<-drained
				if took := time.Since(now); took > time.Second || time.Since(began) > tc.left+time.Second {
					t.Errorf("the drain went on for %v when all was read", took)
				}
				h.stop(t)
			})
		})
	}
}
