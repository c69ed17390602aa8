//go:build linux

package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/troupe-dev/troupe/actors/proc/frame"
)

func TestOOMKills(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                                  3, // v1
		"low 0\nhigh 0\nmax 4\noom 5\noom_kill 12\noom_group_kill 1\nsock_throttled 0\n": 12,
		"oom_kill 7":                        7,
		"oom_kill_disable 0\nunder_oom 0\n": 0, // before Linux 4.13
		"":                                  0,
	} {
		if got := oomKills([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// The runner reads the counter about once a second.
func TestOOMKillsAreReportedInTime(t *testing.T) {
	ours, theirs, err := frame.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	defer unix.Close(theirs)
	file := filepath.Join(t.TempDir(), "memory.events")
	os.WriteFile(file, []byte("oom_kill 4\n"), 0o644)
	s := &supervisor{sock: theirs, oom: &oomCounter{file}}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { s.reportOOMKills(2, stop); close(done) }()
	defer func() { close(stop); <-done }()
	began := time.Now()
	k, body, err := frame.NewReceiver(frame.RecvBlocking(ours)).Next()
	d := frame.NewDecoder(body)
	if n := d.Uint(); err != nil || k != frame.KindOOMKills || n != 4 {
		t.Errorf("%v %v %v", k, n, err)
	}
	if took := time.Since(began); took < oomPollInterval {
		t.Errorf("reported after %v: a command that died of it may not have been reported yet", took)
	}
}
