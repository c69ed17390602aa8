package actors

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// TestPauseBesideTheExitDoesNotFreezeWhatIsKept: a survivor that stands still
// could not be resumed, since what is kept refuses RESUME.
func TestPauseBesideTheExitDoesNotFreezeWhatIsKept(t *testing.T) {
	for _, paused := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), nil, nil)
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x", OnExit: wire.ExitKeep})
			synctest.Wait()
			tree := h.runner.tree("x")
			tree.manual = true
			c.control("2", wire.ControlPause, "x")
			synctest.Wait()
			if paused {
				tree.emit(proc.Paused{})
				synctest.Wait()
			}
			tree.emit(proc.Exited{Signal: 9})
			tree.emit(proc.Paused{})
			synctest.Wait()
			if find[wire.Completed](c) == nil {
				t.Error("not completed")
			}
			if !tree.saw("resume") {
				t.Errorf("survivors stay stopped forever: %v", tree.calls)
			}
			h.stop(t, c)
		})
	}
}

// TestPauseIsAnsweredWhenTheTreeStandsStill: not by the event of an earlier PAUSE
// that was taken back.
func TestPauseIsAnsweredWhenTheTreeStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		tree := h.runner.tree("x")
		tree.manual = true
		c.control("2", wire.ControlPause, "x")
		c.control("3", wire.ControlResume, "x")
		c.control("4", wire.ControlPause, "x")
		synctest.Wait()
		tree.emit(proc.Paused{})
		tree.emit(proc.Resumed{})
		synctest.Wait()
		checkControl(t, c.reply("4"), "none")
		tree.emit(proc.Paused{})
		synctest.Wait()
		checkControl(t, c.reply("4"), "paused")
		h.stop(t, c)
	})
}

// TestBytesReadDuringAPauseHoldTheStreamTimeoutOff: they were written before it.
func TestBytesReadDuringAPauseHoldTheStreamTimeoutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, newFakeRunner(running), nil, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		time.Sleep(299 * time.Second)
		c.control("2", wire.ControlPause, "x")
		synctest.Wait()
		h.runner.tree("x").print("just before\n")
		time.Sleep(1000 * time.Second)
		c.control("3", wire.ControlResume, "x")
		time.Sleep(299 * time.Second)
		synctest.Wait()
		if h.runner.tree("x").saw("terminate") {
			t.Error("ended after 299 s of silence")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !h.runner.tree("x").saw("terminate") {
			t.Error("not ended after 300 s of silence")
		}
		h.stop(t, c)
	})
}

// TestRunnerLostBeforeTheStart: the command is not to blame, as start_failed would say.
func TestRunnerLostBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []wire.Reason
		h := newHarness(t, newFakeRunner(nil), func(c *Config) {
			c.Audit = func(r AuditRecord) { ended = append(ended, r.Completed.Reason) }
		}, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		h.runner.tree("x").emit(proc.StartFailed{Err: proc.ErrLost})
		h.runner.tree("x").die(proc.Dead{Lost: true, RunnerLost: true})
		synctest.Wait()
		if r := c.reply("1"); r == nil || r.err == nil || r.err.Code != wire.CodeInternal {
			t.Errorf("answer %+v", r)
		}
		if len(ended) != 1 || ended[0] != wire.ReasonRunnerLost {
			t.Errorf("reasons %v", ended)
		}
		h.stop(t, c)
	})
}
