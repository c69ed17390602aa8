package observability

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
	"github.com/troupe-dev/troupe/e2e/observability/render"
)

// stepTimeout bounds how long the effect of one step may take to show in Prometheus.
const stepTimeout = 40 * time.Second

// scenario is some servers on loopback, and the Prometheus that watches them. a, b and c are each
// alone, d and e are peers.
type scenario struct {
	t       *testing.T
	a, b, c *server
	d, e    *server
	api     *apiServer
	prom    *Prometheus
	check   *Checker
	held    []*troupe.Client // until the end
	crowd   []*troupe.Client // of d; the last ones have their sessions on e
	began   time.Time
	events  []render.Event // the steps, as they began
}

// TestEveryExpressionShowsSomething runs every expression of the dashboard, the alerts and the
// runbooks against a Prometheus that scrapes five servers at work and in trouble.
func TestEveryExpressionShowsSomething(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		missing(t, "prometheus")
	}
	s := start(t)
	// These cannot be provoked here.
	for _, e := range []struct{ text, why string }{
		{`container_`, "there is no kubelet; e2e asks for these on a cluster"},
		{
			`troupe_actor_panics_total.* > 0`,
			"nothing that a client does makes an actor panic; rules_test.yaml shows that the alert fires",
		},
	} {
		if n := s.check.Except(regexp.MustCompile(`(?s)` + e.text)); n == 0 {
			t.Errorf("nothing is excepted by %q", e.text)
		}
	}
	stop := s.work()
	s.settle()
	s.began = time.Now()
	for _, step := range s.steps() {
		began := time.Now()
		s.events = append(s.events, render.Event{At: began, Name: step.name})
		if step.name == allSlots {
			stop() // the last client would wait for a slot forever
		}
		step.do()
		s.until(step.wait)
		t.Logf("%5.1f s  %s; %d are open", time.Since(began).Seconds(), step.name, s.check.Open())
	}
	s.render()
	s.end()
	s.until("TroupeDown")
	for _, p := range s.check.Problems() {
		t.Error(p)
	}
	s.rulesAreHealthy()
}

func start(t *testing.T) *scenario {
	t.Helper()
	bin := build(t)
	s := &scenario{t: t, api: newAPIServer(t)}
	s.a = startServer(t, bin, serverConfig{pod: "troupe-a", token: "token-of-troupe-a-0123456789"})
	s.b = startServer(t, bin, serverConfig{pod: "troupe-b", token: "token-of-troupe-b-0123456789"})
	s.c = startServer(t, bin, serverConfig{pod: "troupe-c", token: "token-of-troupe-c-0123456789", cluster: s.api})
	s.startPeers(bin)
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	defer cancel()
	s.prom, err = StartPrometheus(ctx, PrometheusConfig{Dir: t.TempDir(), Scrape: scrape(s.all()...), Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if said := s.prom.Stop(); t.Failed() {
			t.Logf("prometheus said:\n%s", said)
		}
	})
	s.check, err = NewChecker(s.prom, Files{Dashboard: dashboardFile, Rules: rulesFile, Runbooks: runbooks}, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scenario) all() []*server { return []*server{s.a, s.b, s.c, s.d, s.e} }

// settle waits until every server has been scraped twice: Prometheus sees no increase before that.
func (s *scenario) settle() {
	s.t.Helper()
	for deadline := time.Now().Add(stepTimeout); ; {
		seen, err := s.prom.Query(s.t.Context(), "count_over_time(troupe_build_info[1m]) >= 2")
		if err != nil {
			s.t.Fatal(err)
		}
		if len(seen) == len(s.all()) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("only %d servers are scraped", len(seen))
		}
		time.Sleep(200 * time.Millisecond) // between two polls
	}
}

// until asks for everything that is open until the alert has fired. Rounds of later steps find what
// comes late.
func (s *scenario) until(alert string) {
	s.t.Helper()
	for deadline := time.Now().Add(stepTimeout); ; {
		if err := s.check.Round(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		if alert == "" || !s.check.Waiting(alert) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s did not fire within %v", alert, stepTimeout)
			return
		}
		time.Sleep(200 * time.Millisecond) // between two polls
	}
}

// work keeps the servers without peers busy with ordinary commands until stop is called.
func (s *scenario) work() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var all sync.WaitGroup
	for _, server := range []*server{s.a, s.b, s.c} {
		all.Go(func() {
			for pace := time.NewTicker(100 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					pace.Stop()
					return
				case <-pace.C:
					_ = ordinaryWork(ctx, server) // refused and lost commands are part of the scenario
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

func ordinaryWork(ctx context.Context, s *server) error {
	c, err := troupe.Dial(ctx, s.ws, troupe.Options{Token: s.token})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, command := range []string{"echo hello", "seq 1 2000", "exit 3", "sleep 0.05; echo done"} {
		if _, err := c.Run(ctx, wire.ExecuteParams{Command: command}, io.Discard, io.Discard); err != nil {
			return err
		}
	}
	e, err := c.Execute(ctx, wire.ExecuteParams{Command: "sleep 100"})
	if err != nil {
		return err
	}
	if err := e.Cancel(ctx); err != nil {
		return err
	}
	_, err = e.Wait(ctx)
	return err
}

// run runs a command to its end, however it ends.
func (s *scenario) run(c *troupe.Client, p wire.ExecuteParams) *wire.Completed {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), stepTimeout)
	defer cancel()
	done, err := c.Run(ctx, p, io.Discard, io.Discard)
	if err != nil && wire.CodeOf(err) == 0 {
		s.t.Errorf("%q: %v", p.Command, err)
	}
	return done
}

// begin starts a command and leaves it running.
func (s *scenario) begin(c *troupe.Client, command string) *troupe.Execution {
	s.t.Helper()
	e, err := c.Execute(s.t.Context(), wire.ExecuteParams{Command: command})
	if err != nil {
		s.t.Fatalf("%q: %v", command, err)
	}
	e.Discard()
	return e
}

// end closes the sessions, so that the servers have nothing to wait for.
func (s *scenario) end() {
	for _, c := range s.held {
		_ = c.Close()
	}
	for _, server := range s.all() {
		select {
		case err := <-server.ended:
			if err != nil {
				s.t.Errorf("%s: %v", server.pod, err)
			}
		case <-time.After(stepTimeout):
			s.t.Errorf("%s has not ended", server.pod)
		}
	}
}

// rulesAreHealthy asks Prometheus itself, which has evaluated the rules throughout.
func (s *scenario) rulesAreHealthy() {
	s.t.Helper()
	rules, err := s.prom.Rules(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if want := len(readRules(s.t).All()); len(rules) != want {
		s.t.Errorf("%d rules are loaded, want %d", len(rules), want)
	}
	for _, r := range rules {
		if r.Health != "ok" {
			s.t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
}
