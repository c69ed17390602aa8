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

// gatedWriter takes what is written at once, and says so when it is let.
type gatedWriter struct {
	io.WriteCloser
	gate <-chan struct{}
}

func (w gatedWriter) Write(b []byte) (int, error) {
	n, err := w.WriteCloser.Write(b)
	<-w.gate
	return n, err
}

// TestInputThatTheCommandReadIsAnsweredSo: a command that prompts reads one line and runs to its
// end. The engine may learn of the exit before it learns of the write.
func TestInputThatTheCommandReadIsAnsweredSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		gate := make(chan struct{})
		h.runner.stdin = func(w io.WriteCloser) io.WriteCloser { return gatedWriter{w, gate} }
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: true})
		synctest.Wait()
		c.conn.Request(wire.ID("2"), &wire.InputParams{ExecutionID: "x", Data: "name\n"})
		c.conn.Request(wire.ID("3"), &wire.InputParams{ExecutionID: "x", Data: "more\n"})
		synctest.Wait()
		tree := h.runner.tree("x")
		line := make([]byte, 16)
		if n, err := tree.typed.Read(line); err != nil || string(line[:n]) != "name\n" {
			t.Fatalf("the command read %q, %v", line[:n], err)
		}
		tree.exit(0)
		synctest.Wait()
		if r := c.reply("3"); r == nil || r.err == nil || r.err.Code != wire.CodeInputUnavailable {
			t.Errorf("input that will not be read: %+v", r)
		}
		if find[wire.Completed](c) != nil {
			t.Error("completed before the input that was read was answered")
		}
		close(gate)
		synctest.Wait()
		if r := c.reply("2"); r == nil || r.err != nil {
			t.Errorf("input that was read: %+v", r)
		}
		if find[wire.Completed](c) == nil {
			t.Error("not completed")
		}
		h.stop(t, c)
	})
}

// TestUnreadInputDoesNotHoldTheEnd: closing the pipe ends a write that the command left.
func TestUnreadInputDoesNotHoldTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: true})
		synctest.Wait()
		c.conn.Request(wire.ID("2"), &wire.InputParams{ExecutionID: "x", Data: "name\n"})
		time.Sleep(time.Minute)
		h.runner.tree("x").emit(proc.Exited{NoSurvivors: true})
		h.runner.tree("x").die(proc.Dead{})
		synctest.Wait()
		if r := c.reply("2"); r == nil || r.err == nil || r.err.Code != wire.CodeInputUnavailable {
			t.Errorf("input that was not read: %+v", r)
		}
		if count[wire.Completed](c) != 1 {
			t.Error("not completed")
		}
		h.stop(t, c)
	})
}

// TestRepeatedInputIsTakenOnce: a client whose connection was lost says where its input belongs. What
// was taken, in the pipe or not, is not taken again, and the answer comes when it is in the pipe.
func TestRepeatedInputIsTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: true})
		synctest.Wait()
		tree, hello := h.runner.tree("x"), find[wire.Connected](c)
		send := func(c *testClient, id, data string, offset int64, eof bool) {
			c.conn.Request(wire.ID(id), &wire.InputParams{ExecutionID: "x", Data: data, Offset: &offset, EOF: eof})
			synctest.Wait()
		}
		send(c, "a", "abc", 0, false)
		send(c, "b", "def", 3, false)
		c.hangUp(wire.CauseClientGone)
		back := connect(h.Engine, ConnectRequest{SessionID: hello.SessionID})
		back.conn.Request(wire.ID("r"), &wire.ResumeParams{ResumeToken: hello.ResumeToken})
		synctest.Wait()
		if got := back.reply("r").result.(*wire.ResumeResult).Executions["x"].InputOffset; got != 6 {
			t.Errorf("%d bytes are taken when the connection was lost, want 6", got)
		}
		send(back, "known", "cdef", 2, false)
		send(back, "gap", "xyz", 9, false)
		send(back, "overlap", "efghi", 4, true)
		send(back, "again", "ghi", 6, true)
		if r := back.reply("gap"); r == nil || r.err == nil || r.err.Code != wire.CodeInvalidParams ||
			!strings.Contains(r.err.Message, "begins at 6") {
			t.Errorf("a gap was answered with %+v", r)
		}
		for _, id := range []string{"known", "overlap", "again"} {
			if r := back.reply(id); r != nil {
				t.Errorf("%s: answered %+v before its bytes are in the pipe", id, r)
			}
		}
		if got, err := io.ReadAll(tree.typed); string(got) != "abcdefghi" || err != nil {
			t.Errorf("the command read %q, %v", got, err)
		}
		synctest.Wait()
		send(back, "late", "hi", 7, true)
		for _, id := range []string{"known", "overlap", "again", "late"} {
			if r := back.reply(id); r == nil || r.err != nil {
				t.Errorf("%s: answered %+v", id, r)
			}
		}
		send(back, "more", "j", 9, false)
		if r := back.reply("more"); r == nil || r.err == nil || r.err.Code != wire.CodeInputUnavailable {
			t.Errorf("input behind the end was answered with %+v", r)
		}
		h.stop(t, back)
	})
}

// TestInputThatWasNotReadIsNotTaken: what a command that closes its stdin has not read does not count.
func TestInputThatWasNotReadIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x", Stdin: true})
		synctest.Wait()
		for _, id := range []string{"a", "b"} {
			c.conn.Request(wire.ID(id), &wire.InputParams{ExecutionID: "x", Data: "0123456789"})
		}
		synctest.Wait()
		typed := h.runner.tree("x").typed
		_, _ = io.ReadFull(typed, make([]byte, 4))
		_ = typed.Close()
		synctest.Wait()
		c.conn.Request(wire.ID("s"), &wire.StatusParams{})
		synctest.Wait()
		if got := c.reply("s").result.(*wire.StatusResult).Executions["x"].InputOffset; got != 4 {
			t.Errorf("%d bytes count as taken, want the 4 that were read", got)
		}
		h.stop(t, c)
	})
}
