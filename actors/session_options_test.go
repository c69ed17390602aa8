package actors

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestSessionHasTheResumeWindowThatItsClientAskedFor: shorter or longer than the server's, at most the idle timeout.
func TestSessionHasTheResumeWindowThatItsClientAskedFor(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		0:                5 * time.Minute,
		10 * time.Second: 10 * time.Second,
		30 * time.Minute: 30 * time.Minute,
		48 * time.Hour:   time.Hour, // of another pod, whose idle timeout is longer
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, newFakeRunner(running), func(c *Config) {
				c.Limits.ResumeWindow, c.Limits.IdleTimeout, c.Limits.StreamTimeout = 5*time.Minute, time.Hour, 100*time.Hour
			}, nil)
			c := connect(h.Engine, ConnectRequest{Options: wire.SessionOptions{ResumeWindow: asked}})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x"})
			synctest.Wait()
			if got := find[wire.Connected](c).Limits.ResumeWindow; got != want.Seconds() {
				t.Errorf("asked for %v: connected says %v s, want %v", asked, got, want)
			}
			c.hangUp(wire.CauseClientGone)
			time.Sleep(want - time.Second)
			synctest.Wait()
			if n := h.Stats().Executions; n != 1 {
				t.Errorf("asked for %v: the session ended before %v", asked, want)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if !h.runner.tree("x").saw("terminate") {
				t.Errorf("asked for %v: the session lasts longer than %v", asked, want)
			}
			h.runner.tree("x").exit(0)
			h.stop(t, c)
		})
	}
}

// TestSessionOptionsTravelToTheOwner: a session that is placed on another pod has what its client asked for.
func TestSessionOptionsTravelToTheOwner(t *testing.T) {
	s := newService(t, 2, func(c *Config) { c.Limits.MaxSessions = 1 })
	here := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, err := here.settled(t); connected == nil {
		t.Fatal(err)
	}
	want := wire.SessionOptions{
		Name: "nightly", Labels: map[string]string{"team": "build", "run": ""}, ResumeWindow: 77 * time.Second,
	}
	there := connect(s.pods[0].Engine, ConnectRequest{Options: want})
	connected, err := there.settled(t)
	if connected == nil {
		t.Fatal(err)
	}
	got := wire.SessionOptions{
		Name: connected.Name, Labels: connected.Labels,
		ResumeWindow: time.Duration(connected.Limits.ResumeWindow * float64(time.Second)),
	}
	if connected.Pod != s.pods[1].pod || !reflect.DeepEqual(got, want) {
		t.Errorf("on %s: %+v, want %+v", connected.Pod, got, want)
	}
	there.conn.Request(wire.ID("status"), &wire.StatusParams{})
	var status wire.StatusResult
	raw, _ := there.answered(t, "status").result.(json.RawMessage)
	if err := json.Unmarshal(raw, &status); err != nil || status.Name != want.Name ||
		!reflect.DeepEqual(status.Labels, want.Labels) {
		t.Errorf("status: %+v, %v", status, err)
	}
	s.stop(here, there)
}
