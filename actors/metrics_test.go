package actors

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/troupe-dev/troupe/actors/proc"
	"github.com/troupe-dev/troupe/actors/wire"
)

// gather returns counters, gauges and the counts of histograms by name, with the label's value in
// braces.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			if len(m.GetLabel()) > 0 {
				name += "{" + m.GetLabel()[0].GetValue() + "}"
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// expect compares some of the engine's metrics.
func expect(t *testing.T, r *prometheus.Registry, want map[string]float64) {
	t.Helper()
	got := gather(t, r)
	for name, v := range want {
		if have, ok := got["troupe_"+name]; !ok || have != v {
			t.Errorf("%s is %v (there: %v), want %v", name, have, ok, v)
		}
	}
}

// TestRefusedExecutionsAreCountedByReason: a client that is refused sees an error; who
// runs the server sees this.
func TestRefusedExecutionsAreCountedByReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			c.Registerer, c.AllowCommands, c.Limits.MaxExecutions = reg, []string{"/bin/true"}, 1
		}, nil)
		expect(t, reg, map[string]float64{ // there before the first event
			"executions_refused_total{execution_limit}": 0, "executions_refused_total{not_allowed}": 0,
			"executions_refused_total{draining}": 0, "executions_refused_total{session_ending}": 0,
			"executions_started_total": 0, "ready": 1, "draining": 0, "drain_deadline_timestamp_seconds": 0,
		})
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{Argv: []string{"/bin/false"}})
		c.execute("2", wire.ExecuteParams{Argv: []string{"/bin/true"}, ExecutionID: "x"})
		c.execute("3", wire.ExecuteParams{Argv: []string{"/bin/true"}})
		c.execute("4", wire.ExecuteParams{Argv: []string{"/bin/true"}})
		synctest.Wait()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			h.Drain(nil)
		}()
		synctest.Wait()
		c.execute("5", wire.ExecuteParams{Argv: []string{"/bin/true"}})
		synctest.Wait()
		deadline := float64(time.Now().Add(h.limits.DrainTimeout).UnixNano()) / 1e9
		expect(t, reg, map[string]float64{
			"executions_refused_total{execution_limit}": 2, "executions_refused_total{not_allowed}": 1,
			"executions_refused_total{draining}": 1, "executions_refused_total{session_ending}": 0,
			"executions_started_total": 1, "executions": 1, "ready": 0, "draining": 1,
			"drain_deadline_timestamp_seconds": deadline,
		})
		h.runner.tree("x").exit(0)
		<-drained
		expect(t, reg, map[string]float64{
			"executions": 0, "executions_ended_total{exited}": 1,
			"sessions_ended_total{draining}": 1,
		})
		h.stop(t, c)
	})
}

// TestRefusedSessionsAreReported to Config.Refused, by the metric's reasons.
func TestRefusedSessionsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var causes []wire.Cause // written by the manager's goroutine only
		h := newHarness(t, newFakeRunner(running), func(c *Config) {
			c.Limits.MaxSessions = 1
			c.Refused = func(cause wire.Cause) { causes = append(causes, cause) }
		}, nil)
		first := connect(h.Engine, ConnectRequest{})
		first.execute("1", wire.ExecuteParams{ExecutionID: "x"})
		synctest.Wait()
		second := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			h.Drain(nil)
		}()
		synctest.Wait()
		third := connect(h.Engine, ConnectRequest{})
		synctest.Wait()
		h.runner.tree("x").exit(0)
		<-drained
		h.stop(t, first, second, third)
		if got := fmt.Sprint(causes); got != "[session_limit draining]" {
			t.Errorf("the causes are %s", got)
		}
	})
}

// TestDetachedSessionsAreCounted: they hold slots that no client uses.
func TestDetachedSessionsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Registerer = reg }, nil)
		var clients []*testClient
		var hellos []*wire.Connected
		for range 3 {
			c := connect(h.Engine, ConnectRequest{})
			synctest.Wait()
			clients, hellos = append(clients, c), append(hellos, find[wire.Connected](c))
			c.hangUp(wire.CauseClientGone)
		}
		synctest.Wait()
		expect(t, reg, map[string]float64{"sessions": 3, "sessions_detached": 3, "sessions_resumed_total": 0})
		for i := range 2 { // two connections take the same one up again
			c := connect(h.Engine, ConnectRequest{SessionID: hellos[0].SessionID})
			c.conn.Request(wire.ID(fmt.Sprint(i)), &wire.ResumeParams{ResumeToken: hellos[0].ResumeToken})
			clients = append(clients, c)
			synctest.Wait()
			c.conn.Request(wire.ID("again"),
				&wire.ResumeParams{ResumeToken: hellos[0].ResumeToken}) // back to an offset: no new connection
		}
		synctest.Wait()
		expect(t, reg, map[string]float64{"sessions": 3, "sessions_detached": 2, "sessions_resumed_total": 2})
		time.Sleep(h.limits.ResumeWindow + time.Second)
		synctest.Wait()
		expect(t, reg, map[string]float64{"sessions": 1, "sessions_detached": 0, "sessions_ended_total{expired}": 2})
		h.stop(t, clients[3:]...)
	})
}

// TestCancelIsTimedFromTheDecision: to the death of the last process, and for no other end.
func TestCancelIsTimedFromTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		h := newHarness(t, newFakeRunner(running), func(c *Config) { c.Registerer = reg }, nil)
		c := connect(h.Engine, ConnectRequest{})
		c.execute("1", wire.ExecuteParams{ExecutionID: "canceled"})
		c.execute("2", wire.ExecuteParams{ExecutionID: "exits"})
		synctest.Wait()
		h.runner.tree("canceled").print("first")
		h.runner.tree("canceled").print("second")
		c.control("3", wire.ControlCancel, "canceled")
		h.runner.tree("exits").exit(0)
		time.Sleep(4 * time.Second)
		h.runner.tree("canceled").emit(proc.Exited{Signal: 15, NoSurvivors: true})
		h.runner.tree("canceled").die(proc.Dead{SurvivorCount: 3})
		synctest.Wait()
		expect(t, reg, map[string]float64{
			"execution_cancel_seconds": 1, "execution_first_output_seconds": 1, "execution_start_seconds": 2,
			"execution_duration_seconds": 2, "execution_survivors_total": 3,
		})
		h.stop(t, c)
	})
}
