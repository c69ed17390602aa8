package actors

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/transcript"
	"github.com/troupe-dev/troupe/actors/wire"
)

const kilobyte = 1 << 10

// fill has a command write until it waits for its reader, or has written 3 MiB, and returns how much it
// wrote. Its pipe has no buffer.
func fill(tree *fakeTree) (written func() int) {
	n := 0
	go func() {
		line := strings.Repeat("x", kilobyte-1) + "\n"
		for n < 3<<20 {
			if _, err := tree.stdout.Write([]byte(line)); err != nil {
				return
			}
			n += len(line)
		}
	}()
	return func() int {
		synctest.Wait()
		return n
	}
}

// unreadExecution starts a command that writes without end, with a client that acknowledges nothing.
func unreadExecution(t *testing.T, change func(*Config), p wire.ExecuteParams) (*harness, *testClient, func() int) {
	t.Helper()
	h := newHarness(t, newFakeRunner(running), change, nil)
	c := connect(h.Engine, ConnectRequest{})
	c.silent = true
	p.ExecutionID, p.Retain = "x", wire.RetainUnread
	c.execute("1", p)
	synctest.Wait()
	written := fill(h.runner.tree("x"))
	if n := written(); n < transcript.UnreadWindow || n > transcript.UnreadWindow+2*largeBuffer {
		t.Fatalf("the command wrote %d bytes before it waits", n)
	}
	return h, c, written
}

// TestCommandWaitsForItsReader: what the reader acknowledges makes room, and nothing else does.
func TestCommandWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, written := unreadExecution(t, nil, wire.ExecuteParams{})
		before := written()
		o := other(h, c)
		o.ack("x", 512*kilobyte, false)
		if n := written(); n != before {
			t.Errorf("the ack of an observer let the command write %d bytes", n-before)
		}
		c.ack("x", 512*kilobyte, false)
		if n := written() - before; n < 448*kilobyte || n > 576*kilobyte {
			t.Errorf("an ack of 512 KiB let the command write %d bytes", n)
		}
		h.stop(t, c, o)
	})
}

// TestWaitingForTheReaderIsNotSilence: the stream timeout runs from the moment at which the reader has
// made room.
func TestWaitingForTheReaderIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, written := unreadExecution(t, nil, wire.ExecuteParams{})
		time.Sleep(10*h.limits.StreamTimeout + time.Second)
		if tree := h.runner.tree("x"); tree.saw("terminate") {
			t.Fatal("ended while it waited for its reader")
		}
		c.ack("x", int64(written()), false)
		time.Sleep(h.limits.StreamTimeout - 2*time.Second)
		synctest.Wait()
		if h.runner.tree("x").saw("terminate") {
			t.Error("ended although it has written since")
		}
		h.stop(t, c)
	})
}

// TestEveryEndReachesAWaitingCommand: a command that waits for a reader who does not read ends as any
// other, and what is left in its pipe is kept.
func TestEveryEndReachesAWaitingCommand(t *testing.T) {
	for name, tc := range map[string]struct {
		params wire.ExecuteParams
		end    func(*harness, *testClient)
		after  time.Duration
		reason wire.Reason
	}{
		"cancel": {
			end:    func(_ *harness, c *testClient) { c.control("2", "CANCEL", "x") },
			reason: wire.ReasonCanceled,
		},
		"deadline": {params: wire.ExecuteParams{MaxDuration: 60}, after: time.Minute, reason: wire.ReasonDeadline},
		"kill": {
			end:    func(h *harness, _ *testClient) { h.runner.tree("x").die(proc.Dead{}) },
			reason: wire.ReasonSignaled,
		},
		"exit":  {end: func(h *harness, _ *testClient) { h.runner.tree("x").exit(0) }, reason: wire.ReasonExited},
		"drain": {end: func(h *harness, _ *testClient) { go h.Drain(nil) }, after: time.Minute, reason: wire.ReasonDrain},
		"close": {
			end:    func(_ *harness, c *testClient) { c.conn.Request(nil, &wire.CloseParams{}) },
			reason: wire.ReasonSessionClosed,
		},
		"survivors": {
			end:    func(h *harness, _ *testClient) { h.runner.tree("x").emit(proc.Exited{}) },
			reason: wire.ReasonExited,
		},
		"kept":       {params: wire.ExecuteParams{OnExit: wire.ExitKeep}, end: keptThenCanceled, reason: wire.ReasonExited},
		"held pipes": {end: diesWithItsPipesHeld, reason: wire.ReasonSignaled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended []wire.Reason
				h, c, _ := unreadExecution(t, func(cfg *Config) {
					cfg.Limits.DrainTimeout = time.Minute
					cfg.Audit = func(r AuditRecord) { ended = append(ended, r.Completed.Reason) }
				}, tc.params)
				if tc.end != nil {
					tc.end(h, c)
				}
				time.Sleep(tc.after + h.limits.CancelGrace + h.limits.SurvivorGrace + time.Second)
				synctest.Wait()
				if len(ended) != 1 || ended[0] != tc.reason {
					t.Errorf("ended %v, want %s", ended, tc.reason)
				}
				h.stop(t, c)
			})
		})
	}
}

func keptThenCanceled(h *harness, c *testClient) {
	h.runner.tree("x").emit(proc.Exited{})
	synctest.Wait()
	c.control("2", "CANCEL", "x")
}

func diesWithItsPipesHeld(h *harness, _ *testClient) {
	tree := h.runner.tree("x")
	tree.held = true
	tree.die(proc.Dead{})
}

// TestWithoutAReaderTheCommandEnds: once its reader is gone, the command has the resume window to be
// read by another connection, and ends with reader_gone. Nobody who merely observes holds that up.
func TestWithoutAReaderTheCommandEnds(t *testing.T) {
	for name, observed := range map[string]bool{"detached": false, "observed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended []wire.Reason
				h, c, _ := unreadExecution(t, func(cfg *Config) {
					cfg.Audit = func(r AuditRecord) { ended = append(ended, r.Completed.Reason) }
				}, wire.ExecuteParams{})
				clients := []*testClient{c}
				if observed {
					clients = append(clients, other(h, c))
				}
				c.hangUp(wire.CauseClientGone)
				time.Sleep(h.limits.ResumeWindow - time.Second)
				synctest.Wait()
				if h.runner.tree("x").saw("terminate") {
					t.Error("ended within the resume window")
				}
				time.Sleep(time.Second + h.limits.CancelGrace + time.Second)
				synctest.Wait()
				if len(ended) != 1 || ended[0] != wire.ReasonReaderGone {
					t.Errorf("ended %v", ended)
				}
				h.stop(t, clients...)
			})
		})
	}
}

// TestNextFollowerBecomesTheReader: the connection that resumes goes on at its offset, which
// acknowledges what is before it.
func TestNextFollowerBecomesTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, written := unreadExecution(t, nil, wire.ExecuteParams{})
		hello, before := find[wire.Connected](c), written()
		c.hangUp(wire.CauseClientGone)
		time.Sleep(h.limits.ResumeWindow - time.Second)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		back.silent = true
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{
			ResumeToken: hello.ResumeToken, Executions: map[string]int64{"x": 256 * kilobyte},
		})
		if n := written() - before; n < 192*kilobyte || n > 320*kilobyte {
			t.Errorf("to resume at 256 KiB let the command write %d bytes", n)
		}
		if got := back.text("x"); len(got) != written()-256*kilobyte && len(got) < 512*kilobyte {
			t.Errorf("the reader that came back was sent %d bytes", len(got))
		}
		before = written()
		back.ack("x", 512*kilobyte, false)
		if n := written() - before; n < 192*kilobyte {
			t.Errorf("the ack of the new reader let the command write %d bytes", n)
		}
		time.Sleep(2 * h.limits.ResumeWindow)
		synctest.Wait()
		if h.runner.tree("x").saw("terminate") {
			t.Error("ended although it has a reader")
		}
		h.stop(t, back)
	})
}

// TestRetentionIsHeldToTheServersLimits: what execute asks for, and what the transcript gets.
func TestRetentionIsHeldToTheServersLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		for name, tc := range map[string]struct {
			ask        wire.ExecuteParams
			retain     transcript.Retain
			scrollback int64
		}{
			"default":    {wire.ExecuteParams{}, transcript.First, 0},
			"first":      {wire.ExecuteParams{Retain: wire.RetainFirst}, transcript.First, 0},
			"unread":     {wire.ExecuteParams{Retain: wire.RetainUnread}, transcript.Unread, 0},
			"last":       {wire.ExecuteParams{Retain: wire.RetainLast}, transcript.Last, wire.DefaultScrollback},
			"last, less": {wire.ExecuteParams{Retain: wire.RetainLast, Scrollback: 1 << 16}, transcript.Last, 1 << 16},
			"last, more": {
				wire.ExecuteParams{Retain: wire.RetainLast, Scrollback: 1 << 40}, transcript.Last, h.limits.MaxOutput,
			},
		} {
			tc.ask.Argv = []string{"true"}
			got, err := h.plan(&tc.ask)
			if err != nil || got.retain != tc.retain || got.scrollback != tc.scrollback {
				t.Errorf("%s: %s, scrollback %d, %v", name, got.retain, got.scrollback, err)
			}
		}
		h.stop(t)
	})
}
