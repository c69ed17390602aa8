package main

import (
	"strings"
	"sync"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestGreedySessionEndsAlone: a fork bomb and a hog of memory in one session end, each told why. Nine
// other sessions finish what they run meanwhile.
func TestGreedySessionEndsAlone(t *testing.T) {
	s := launch(t, "--session-memory", "96MiB", "--session-processes", "80", "--cgroup", "off")
	var builds sync.WaitGroup
	for range 9 {
		c := s.dial()
		builds.Go(func() {
			done, err := c.Run(bounded(t), wire.ExecuteParams{
				Command: `for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero | sha256sum & wait; done >/dev/null`,
			}, nil, nil)
			if err != nil || done.Reason != wire.ReasonExited || done.ExitCode != 0 {
				t.Errorf("a build: %+v, %v", done, err)
			}
		})
	}
	greedy := s.dial()
	for _, g := range []struct {
		script string
		reason wire.Reason
		told   string
	}{
		// Self-limiting: 1,024 processes for 20 s at most.
		{"for (1..10) { fork } for (1..200) { select undef,undef,undef,0.1; exit if fork }", wire.ReasonProcessLimit, "session-processes"},
		{"my $x = 'x' x (300 << 20); sleep 20", wire.ReasonOutOfMemory, "session-memory"},
	} {
		done, err := greedy.Run(bounded(t), wire.ExecuteParams{Argv: []string{"perl", "-e", g.script}}, nil, nil)
		if err != nil || done.Reason != g.reason || done.Error == nil || !strings.Contains(done.Error.Message, g.told) {
			t.Errorf("%s: %+v, %v", g.script, done, err)
		}
	}
	builds.Wait()
}
