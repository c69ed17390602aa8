package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// escapees is a command whose children leave in every way that they can: by
// setsid, by nohup, by a double fork as daemons do it, with an empty
// environment, deaf to SIGTERM. Each carries the marker in its arguments.
const escapees = `
setsid sh -c 'trap "" TERM HUP; while :; do sleep %[1]s; done' &
nohup sleep %[1]s >/dev/null 2>&1 &
(sleep %[1]s & ) &
env -i setsid sleep %[1]s >/dev/null 2>&1 </dev/null &
python3 - %[1]s <<'PY'
import os, sys, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.chdir('/')
        for fd in range(3): os.close(fd)
        os.execvp('sleep', ['sleep', sys.argv[1]])
    os._exit(0)
PY
trap "" TERM
echo ready
sleep %[1]s
wait
`

// escapeesLeast is how many processes carry the marker once all have left: one
// for each of the six ways, and the shells around some of them.
const escapeesLeast = 6

// TestCancelLeavesNothingOnTheNode: CANCEL is answered, and when the end is
// reported nothing of the command is in any process table of any node.
// Protects from: orphans, which eat a node's pids until nothing starts.
func TestCancelLeavesNothingOnTheNode(t *testing.T) {
	needNodes(t)
	marker := "86400.417"
	c := suite.shared.dial(t)
	e := start(t, c, wire.ExecuteParams{Command: fmt.Sprintf(escapees, marker)})
	eventually(t, 15*time.Second, "all escapees run", func(context.Context) error {
		found, err := marked(marker)
		if err == nil && len(found) < escapeesLeast {
			err = fmt.Errorf("%d run, want at least %d: %v", len(found), escapeesLeast, found)
		}
		return err
	})
	asked := time.Now()
	if err := e.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	answered := time.Since(asked)
	done := completed(t, e, commandBound)
	// No polling here: completed says that the tree is dead.
	if err := noneMarked(marker)(t.Context()); err != nil {
		t.Errorf("after process.completed: %v", err)
	}
	if done.Reason != wire.ReasonCanceled || done.Status != wire.StatusCanceled {
		t.Errorf("the end is %s with status %s, want canceled", done.Reason, done.Status)
	}
	t.Logf("CANCEL answered after %s, tree dead after %s with a grace of %gs", answered.Round(time.Millisecond),
		time.Since(asked).Round(time.Millisecond), c.Limits().CancelGrace)
	if out := shell(t, c, "echo next"); out != "next\n" {
		t.Errorf("the session's next command printed %q", out)
	}
}

// TestClosedSessionLeavesNothingOnTheNode protects from: what a client left
// running, on purpose or not, living on after its session.
func TestClosedSessionLeavesNothingOnTheNode(t *testing.T) {
	needNodes(t)
	marker := "86400.418"
	c := suite.shared.dial(t)
	start(t, c, wire.ExecuteParams{Command: fmt.Sprintf(escapees, marker), OnExit: wire.ExitKeep})
	if found, err := marked(marker); err != nil || len(found) == 0 {
		t.Fatalf("the command does not run: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "nothing of a closed session is left", noneMarked(marker))
}
