package actors

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// startTerminal runs a command in a terminal, with a client that acknowledges nothing by itself.
func startTerminal(t *testing.T, window int64) (*harness, *testClient, *fakeTree) {
	t.Helper()
	h := newHarness(t, newFakeRunner(running), nil, nil)
	c := connect(h.Engine, ConnectRequest{})
	c.silent = true
	c.execute("1", wire.ExecuteParams{
		ExecutionID: "x", Terminal: &wire.Terminal{Cols: 80, Rows: 24}, Window: window,
		Stdin: true, Framing: wire.FramingRaw, Retain: wire.RetainLast,
	})
	synctest.Wait()
	return h, c, h.runner.tree("x")
}

// viewer is another client of the session, with a window of its own.
func viewer(h *harness, c *testClient, window int64) *testClient {
	hello := find[wire.Connected](c)
	o := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
	o.silent = true
	o.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken, Window: window})
	synctest.Wait()
	return o
}

// type sends keys, which the command reads.
func (c *testClient) types(tree *fakeTree, p wire.InputParams) *sent {
	p.ExecutionID = "x"
	go func() { _, _ = tree.typed.Read(make([]byte, 64)) }()
	id := "t" + p.Writer + p.Data
	c.conn.Request(wire.ID(id), &p)
	synctest.Wait()
	return c.reply(id)
}

func TestTerminalIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		s := tree.spec
		term := s.Env[len(s.Env)-1]
		if s.Terminal == nil || *s.Terminal != (proc.Size{Cols: 80, Rows: 24}) || term != "TERM=xterm-256color" {
			t.Errorf("%+v", s)
		}
		if m := find[wire.Resized](c); m == nil || m.Cols != 80 || m.Rows != 24 {
			t.Errorf("the first size: %+v", m)
		}
		r := c.types(tree, wire.InputParams{Data: "x", EOF: true})
		if r == nil || r.err == nil || r.err.Code != wire.CodeInvalidParams {
			t.Errorf("eof: %+v", r)
		}
		h.stop(t, c)
	})
}

// TestTerminalIsPacedByItsLeader: the command runs ahead of the acks of whoever typed last, by the
// window of that connection, and of nobody else's.
func TestTerminalIsPacedByItsLeader(t *testing.T) {
	const window = 64 * kilobyte
	near := func(n, want int) bool { return n >= want && n <= want+largeBuffer }
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, window)
		o := viewer(h, c, 2*window)
		written := fill(tree)
		if n := written(); !near(n, window) {
			t.Fatalf("%d bytes ahead of a leader with a window of %d", n, window)
		}
		before := written()
		o.ack("x", window, false)
		if n := written(); n != before {
			t.Errorf("the ack of another let the command write %d bytes", n-before)
		}
		c.ack("x", window, false)
		if n := written() - before; !near(n, window) {
			t.Errorf("the ack of the leader let it write %d bytes", n)
		}
		before = written()
		o.ack("x", 2*window, false)
		o.types(tree, wire.InputParams{Data: "y"})
		if n := written() - before; !near(n, 2*window) {
			t.Errorf("with another leader it wrote %d bytes", n)
		}
		h.stop(t, c, o)
	})
}

// TestTerminalRunsOnWithoutAReader: a leader that is gone, and one without a window, hold nothing up.
func TestTerminalRunsOnWithoutAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 64*kilobyte)
		written := fill(tree)
		if n := written(); n > 512*kilobyte {
			t.Fatalf("%d bytes ahead", n)
		}
		c.hangUp(wire.CauseClientGone)
		if n := written(); n < 3<<20 {
			t.Errorf("%d bytes without a leader", n)
		}
		h.stop(t)
	})
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		if n := fill(tree)(); n < 3<<20 {
			t.Errorf("%d bytes with a leader without a window", n)
		}
		h.stop(t, c)
	})
}

// TestTerminalHasTheSizeOfWhoTypedLast: others say theirs, and get it when they type.
func TestTerminalHasTheSizeOfWhoTypedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		o := viewer(h, c, 0)
		size := func() wire.Terminal {
			c.conn.Request(wire.ID("s"), &wire.StatusParams{})
			synctest.Wait()
			all := c.all()
			for i := len(all) - 1; i >= 0; i-- {
				if s, ok := all[i].result.(*wire.StatusResult); ok {
					return *s.Executions["x"].Terminal
				}
			}
			return wire.Terminal{}
		}
		resize := func(c *testClient, cols int) {
			c.conn.Request(wire.ID("z"), &wire.ResizeParams{ExecutionID: "x", Cols: cols, Rows: 50})
			synctest.Wait()
		}
		resize(c, 100)
		if s := size(); s.Cols != 100 || s.Rows != 50 || s.Term != wire.DefaultTerm {
			t.Errorf("the leader's size: %+v", s)
		}
		resize(o, 200)
		if s := size(); s.Cols != 100 {
			t.Errorf("another has changed the size: %+v", s)
		}
		o.types(tree, wire.InputParams{Data: "y"})
		if s := size(); s.Cols != 200 {
			t.Errorf("another has typed, and the size is %+v", s)
		}
		if n := count[wire.Resized](c); n != 3 {
			t.Errorf("%d sizes in the transcript, want 3", n)
		}
		h.stop(t, c, o)
	})
}

// TestOnlyWhatIsTypedTakesTheLead: what the terminal refuses, or has already, changes nothing.
func TestOnlyWhatIsTypedTakesTheLead(t *testing.T) {
	at := func(n int64) *int64 { return &n }
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		o := viewer(h, c, 0)
		o.conn.Request(wire.ID("z"), &wire.ResizeParams{ExecutionID: "x", Cols: 200, Rows: 50})
		c.types(tree, wire.InputParams{Data: "one", Offset: at(0), Writer: "a"})
		for _, in := range []wire.InputParams{
			{}, {EOF: true}, {Data: "gap", Offset: at(99), Writer: "b"}, {Data: "one", Offset: at(0), Writer: "a"},
		} {
			if o.types(tree, in); count[wire.Resized](c) != 1 {
				t.Fatalf("%+v has taken the lead", in)
			}
		}
		o.types(tree, wire.InputParams{Data: "two", Offset: at(0), Writer: "b"})
		if n := count[wire.Resized](c); n != 2 {
			t.Errorf("%d sizes once another has typed, want 2", n)
		}
		h.stop(t, c, o)
	})
}

// TestTerminalIsLedByItsClientsNextConnection: a client that is back before the end of its old connection
// is known goes on leading, with its size. One that has read less does not: it may never read.
func TestTerminalIsLedByItsClientsNextConnection(t *testing.T) {
	const window = 64 * kilobyte
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, window)
		lazy := viewer(h, c, window)
		written := fill(tree)
		written()
		c.ack("x", window, false)
		hello := find[wire.Connected](c)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		back.silent = true
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{
			ResumeToken: hello.ResumeToken, Window: window, Executions: map[string]int64{"x": window},
		})
		back.conn.Request(wire.ID("z"), &wire.ResizeParams{ExecutionID: "x", Cols: 200, Rows: 50})
		synctest.Wait()
		before := written()
		c.hangUp(wire.CauseClientGone)
		if n := written() - before; n > largeBuffer {
			t.Errorf("the command wrote %d bytes, as if nobody led", n)
		}
		back.ack("x", 2*window, false)
		if n := written() - before; n < window {
			t.Errorf("the ack of the client's next connection let it write %d bytes", n)
		}
		if n := count[wire.Resized](lazy); n != 2 {
			t.Errorf("%d sizes, want the client's second too", n)
		}
		back.hangUp(wire.CauseClientGone)
		if n := written() - before; n < 1<<20 {
			t.Errorf("whoever has read nothing leads: %d bytes", n)
		}
		h.stop(t, lazy)
	})
}

// TestWritersOfATerminalAreCountedApart: each may repeat what was not answered, whatever others type.
func TestWritersOfATerminalAreCountedApart(t *testing.T) {
	at := func(n int64) *int64 { return &n }
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		for _, in := range []struct {
			writer, data string
			offset       int64
			read         string // "": nothing is new
		}{
			{"a", "one", 0, "one"}, {"b", "two", 0, "two"}, {"a", "one", 0, ""}, {"a", "onemore", 0, "more"}, {"b", "wo3", 1, "3"},
		} {
			got := make(chan string, 1)
			go func() {
				b := make([]byte, 64)
				_ = tree.typed.SetReadDeadline(time.Now().Add(time.Second))
				n, _ := tree.typed.Read(b)
				got <- string(b[:n])
			}()
			c.conn.Request(wire.ID("w"), &wire.InputParams{
				ExecutionID: "x", Data: in.data, Offset: at(in.offset), Writer: in.writer,
			})
			if read := <-got; read != in.read {
				t.Errorf("%+v: the command read %q", in, read)
			}
		}
		r := c.types(tree, wire.InputParams{Data: "gap", Offset: at(9), Writer: "c"})
		if r == nil || r.err == nil || !strings.Contains(r.err.Message, "begins at 0") {
			t.Errorf("a gap: %+v", r)
		}
		h.stop(t, c)
	})
}

// TestTypedBytesThatNobodyReadDoNotCount: a client that repeats them is not told that they have arrived.
func TestTypedBytesThatNobodyReadDoNotCount(t *testing.T) {
	start := int64(0)
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		in := wire.InputParams{ExecutionID: "x", Data: "0123456789", Offset: &start, Writer: "a"}
		c.conn.Request(wire.ID("first"), &in)
		synctest.Wait()
		_, _ = io.ReadFull(tree.typed, make([]byte, 4))
		_ = tree.typed.Close()
		synctest.Wait()
		c.conn.Request(wire.ID("again"), &in)
		synctest.Wait()
		for _, id := range []string{"first", "again"} {
			if r := c.reply(id); r == nil || r.err == nil || r.err.Code != wire.CodeInputUnavailable {
				t.Errorf("%s: %+v", id, r)
			}
		}
		h.stop(t, c)
	})
}

// TestTerminalRemembersSoManyWriters bounds what a client can make the server hold.
func TestTerminalRemembersSoManyWriters(t *testing.T) {
	in := new(input)
	for i := range 3 * maxWriters {
		in.note(strings.Repeat("w", i+1), 1)
		in.note("constant", 1)
	}
	if len(in.typed) != maxWriters || len(in.writers) != maxWriters || in.typed["constant"] != 3*maxWriters {
		t.Errorf("%d writers, %d of them counted, %v", len(in.writers), len(in.typed), in.typed["constant"])
	}
}

// TestForgottenTerminalEnds: silence is normal, but not when nobody types for the idle timeout.
func TestForgottenTerminalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, c, tree := startTerminal(t, 0)
		idle := h.limits.IdleTimeout
		time.Sleep(idle - time.Minute)
		c.types(tree, wire.InputParams{Data: "y"})
		time.Sleep(idle - time.Minute)
		synctest.Wait()
		if tree.saw("terminate") {
			t.Fatal("it has ended although somebody typed")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !tree.saw("terminate") {
			t.Error("it goes on")
		}
		h.stop(t, c)
	})
}

// TestResizeNeedsATerminal and says so.
func TestResizeNeedsATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		c.conn.Request(wire.ID("2"), &wire.ResizeParams{ExecutionID: "x", Cols: 80, Rows: 24})
		synctest.Wait()
		if r := c.reply("2"); r == nil || r.err == nil || r.err.Code != wire.CodeInvalidParams {
			t.Errorf("%+v", r)
		}
		h.stop(t, c)
	})
}
