package actors

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestConnectedSaysWhatSeparatesSessions: a client decides by it what it gives to a session.
func TestConnectedSaysWhatSeparatesSessions(t *testing.T) {
	s := newService(t, 1, nil)
	var clients []*testClient
	for level, want := range map[string]string{
		"": wire.IsolationNone, wire.IsolationNone: wire.IsolationNone, wire.IsolationSession: wire.IsolationSession,
	} {
		s.pods[0].runner.isolation = level
		c := connect(s.pods[0].Engine, ConnectRequest{})
		connected, err := c.settled(t)
		if err != nil {
			t.Fatal(err)
		}
		capable := slices.Contains(connected.Capabilities, wire.CapabilityIsolation)
		if connected.Isolation != want || connected.IsolationABI != 7 || capable != (want == wire.IsolationSession) {
			t.Errorf("with %q: %+v", level, connected)
		}
		clients = append(clients, c)
	}
	s.stop(clients...)
}

// TestAuditSaysWhatSeparatesSessions: what a command could reach depends on it.
func TestAuditSaysWhatSeparatesSessions(t *testing.T) {
	for level, want := range map[string]string{"": wire.IsolationNone, wire.IsolationSession: wire.IsolationSession} {
		synctest.Test(t, func(t *testing.T) {
			records := make(chan AuditRecord, 1)
			runner := newFakeRunner(running)
			runner.isolation = level
			h := newHarness(t, runner, func(c *Config) { c.Audit = func(r AuditRecord) { records <- r } }, nil)
			c := connect(h.Engine, ConnectRequest{})
			c.execute("1", wire.ExecuteParams{ExecutionID: "x", Argv: []string{"prog"}})
			synctest.Wait()
			h.runner.tree("x").exit(0)
			if r := <-records; r.Isolation != want {
				t.Errorf("with %q: %+v", level, r)
			}
			h.stop(t, c)
		})
	}
}

// TestIsolatedSessionIsNotPlaced: a peer may separate sessions less than the pod that promised it.
func TestIsolatedSessionIsNotPlaced(t *testing.T) {
	s := newService(t, 2, func(c *Config) { c.Limits.MaxSessions = 1 })
	full := connect(s.pods[0].Engine, ConnectRequest{})
	full.settled(t)
	c := connect(s.pods[0].Engine, ConnectRequest{Isolated: true})
	if connected, err := c.settled(t); err == nil || err.Code != wire.CodeSessionLimit {
		t.Errorf("it is opened on %+v, refused with %v", connected, err)
	}
	placed := connect(s.pods[0].Engine, ConnectRequest{})
	if connected, _ := placed.settled(t); connected == nil || connected.Pod != s.pods[1].pod {
		t.Errorf("without isolation it is opened on %+v", connected)
	}
	s.stop(full, c, placed)
}
