//go:build linux

package proc

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

// A process of the same user takes the runner's descriptors away and kills the inits. The runner
// takes them back or exits, and commands work again.
func TestLoweredLimitsOfRunnerDoNotStopCommands(t *testing.T) {
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		t.Skip(err)
	}
	for _, limit := range []string{"--nofile=0:0", "--nofile=0:", "--nproc=0:0", "--fsize=0:0"} {
		t.Run(limit, func(t *testing.T) {
			r := open(t)
			run(t, r, "exit 0").waitDead()
			runner := r.Status().PID
			if out, err := exec.Command(prlimit, "--pid", strconv.Itoa(runner), limit).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			r.mu.Lock()
			for _, c := range r.conn.inits {
				unix.Kill(c.pid, unix.SIGKILL)
			}
			r.mu.Unlock()
			began := time.Now()
			for time.Since(began) < 20*time.Second {
				c := run(t, r, "ulimit -n; ulimit -f; exit 3")
				c.waitDead()
				if !slices.ContainsFunc(c.events, func(e Event) bool { x, ok := e.(Exited); return ok && x.Code == 3 }) {
					continue // it was given to an init that had been killed
				}
				if out := c.stdout(); strings.HasPrefix(out, "0\n") || strings.HasSuffix(out, "\n0\n") {
					t.Errorf("the command inherited a lowered limit: %q", out)
				}
				if why := r.Status().CannotStart; why != "" {
					t.Error(why)
				}
				return
			}
			t.Error("no command ran for 20 s")
		})
	}
}

// failInits reports that n inits could not be started.
func (p *peer) failInits(n int, why string) {
	for range n {
		p.send(frame.New(frame.KindInitFailed).Str(why).Done())
	}
}

// A server whose runner starts nothing says so, asks again, and is well again after the first init.
func TestCannotStartIsTold(t *testing.T) {
	r, runner, _, c := fakePool(t)
	rc := r.conn
	rc.in = frame.NewReceiver(rc.conn.recv)
	go func() { _ = r.serveRunner(rc) }()
	r.mu.Lock()
	rc.idle = nil
	r.refill(rc)
	r.mu.Unlock()
	runner.expect(frame.KindWant)
	for i := range failuresInARow {
		if why := r.Status().CannotStart; why != "" {
			t.Fatalf("after %d failures: %s", i, why)
		}
		runner.failInits(1, "socketpair: too many open files")
		runner.expect(frame.KindWant) // after retryStart
	}
	why := r.Status().CannotStart
	if !strings.Contains(why, "last 3 inits: socketpair: too many open files") {
		t.Errorf("not told: %q", why)
	}
	if n := r.Status().StartFailures; n != failuresInARow {
		t.Errorf("%d failures counted", n)
	}
	r.giveBack(c)
	if why := r.Status().CannotStart; why != "" {
		t.Errorf("with an idle init: %s", why)
	}
}

// A runner that does not answer at all is noticed by the clock.
func TestSilentRunnerIsTold(t *testing.T) {
	r, runner, _, _ := fakePool(t)
	r.mu.Lock()
	r.conn.idle = nil
	r.refill(r.conn)
	r.mu.Unlock()
	runner.expect(frame.KindWant)
	if why := r.Status().CannotStart; why != "" {
		t.Fatalf("at once: %s", why)
	}
	r.mu.Lock()
	r.conn.starts.progress = time.Now().Add(-startTimeout - time.Second)
	r.mu.Unlock()
	if why := r.Status().CannotStart; !strings.Contains(why, "has not started an init") {
		t.Errorf("not told: %q", why)
	}
}

// A runner that has failed for long is replaced: at once when nothing runs, later when something does.
func TestRunnerThatStartsNothingIsReplaced(t *testing.T) {
	for name, tc := range map[string]struct {
		since    time.Duration
		busy     bool
		replaced bool
	}{
		"for a moment":         {replaceIdle / 2, false, false},
		"for long":             {replaceIdle * 2, false, true},
		"while something runs": {replaceIdle * 2, true, false},
		"for too long":         {replaceBusy * 2, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, runner, _, _ := fakePool(t)
			rc := r.conn
			if tc.busy {
				tree := r.NewTree("owner", "x")
				defer r.unregister(tree)
			}
			r.mu.Lock()
			rc.idle, rc.pending = nil, 0
			rc.starts = starts{failures: failuresInARow, since: time.Now().Add(-tc.since)}
			r.startFailed(rc, "fork: resource temporarily unavailable")
			r.mu.Unlock()
			if !tc.replaced {
				runner.expect(frame.KindWant) // it is asked again
				return
			}
			if !runner.closed() {
				t.Error("its connection is open, so it does not exit")
			}
			r.wg.Wait()
		})
	}
}
