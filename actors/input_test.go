package actors

import (
	"io"
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
