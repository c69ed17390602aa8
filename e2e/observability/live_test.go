package observability

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/e2e/observability/render"
	"github.com/troupe-dev/troupe/gateway/client"
	"github.com/troupe-dev/troupe/gateway/wire"
)

// patience is how long the effect of one step may take to show in Prometheus.
const patience = 40 * time.Second

// scenario is a troupe of three servers on loopback, and the Prometheus that watches it.
type scenario struct {
	t       *testing.T
	a, b, c *server
	api     *apiServer
	prom    *Prometheus
	check   *Checker
	held    []*client.Client // until the end
	began   time.Time
	events  []render.Event // the steps
}

// TestEveryExpressionShowsSomething runs every expression of the dashboard, the alerts and the runbooks against a
// Prometheus that scrapes three servers at work and in trouble.
func TestEveryExpressionShowsSomething(t *testing.T) {
	if _, err := exec.LookPath("prometheus"); err != nil {
		missing(t, "prometheus")
	}
	s := start(t)
	// What cannot be had here.
	for _, e := range []struct{ text, why string }{
		{`container_`, "there is no kubelet; e2e asks for these on a cluster"},
		{`troupe_actor_panics_total.* > 0`, "nothing that a client does makes an actor panic; rules_test.yaml shows that the alert fires"},
	} {
		if n := s.check.Except(regexp.MustCompile(`(?s)` + e.text)); n == 0 {
			t.Errorf("nothing is excepted by %q", e.text)
		}
	}
	stop := s.work()
	s.settle()
	s.began = time.Now()
	for _, step := range []struct {
		name string
		do   func()
		wait string // what has to have shown before the next step; "": nothing in particular
	}{
		{"commands that go wrong", s.commandsGoWrong, "TroupeProcessesEscaped"},
		{"a cancel that takes its time", s.cancelSlowly, "TroupeCancelSlow"},
		{"output without room", s.outputWithoutRoom, "TroupeOutputLost"},
		{"clients that go and come back", s.clientsComeBack, ""},
		{"a log that nobody reads", s.logUnread, "TroupeLogLinesDropped"},
		{"an API server that fails", s.apiServerFails, "TroupeAuthUnavailable"},
		{"a runner that stands still", s.runnerStandsStill, "TroupeStartSlow"},
		{"a runner that ends again and again", s.runnerEnds, "TroupeRunnerDown"},
		{"every session in use", s.everySession, "TroupeSessionsRefused"},
		{"a drain of all", s.drainAll, "TroupeDrainCutsOff"},
		{"a drain of all, still", func() {}, "TroupeNotReady"},
	} {
		began := time.Now()
		s.events = append(s.events, render.Event{At: began, Name: step.name})
		if step.name == "every session in use" {
			stop() // or the last client would wait for a slot for ever
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
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.prom, err = StartPrometheus(ctx, PrometheusConfig{Dir: t.TempDir(), Scrape: scrape(s.a, s.b, s.c), Rules: rules})
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

// settle waits until every server has been scraped twice: an increase before that is none.
func (s *scenario) settle() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		seen, err := s.prom.Query(s.t.Context(), "count_over_time(troupe_build_info[1m]) >= 2")
		if err != nil {
			s.t.Fatal(err)
		}
		if len(seen) == 3 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("only %d servers are scraped", len(seen))
		}
		time.Sleep(200 * time.Millisecond) // between two polls
	}
}

// until asks for everything that is open until the alert has shown. What comes late is found by the rounds of later steps.
func (s *scenario) until(alert string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if err := s.check.Round(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		if alert == "" || !s.check.Waiting(alert) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s did not show within %v", alert, patience)
			return
		}
		time.Sleep(200 * time.Millisecond) // between two polls
	}
}

// work keeps all servers busy with ordinary commands until it is told to stop.
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
					_ = ordinaryWork(ctx, server) // what is refused or lost meanwhile is part of the scenario
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
	c, err := client.Dial(ctx, s.ws, client.Options{Token: s.token})
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
func (s *scenario) run(c *client.Client, p wire.ExecuteParams) *wire.Completed {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	done, err := c.Run(ctx, p, io.Discard, io.Discard)
	if err != nil && wire.CodeOf(err) == 0 {
		s.t.Errorf("%q: %v", p.Command, err)
	}
	return done
}

// begin starts a command that goes on.
func (s *scenario) begin(c *client.Client, command string) *client.Execution {
	s.t.Helper()
	e, err := c.Execute(s.t.Context(), wire.ExecuteParams{Command: command})
	if err != nil {
		s.t.Fatalf("%q: %v", command, err)
	}
	e.Discard()
	return e
}

func (s *scenario) commandsGoWrong() {
	c := s.a.dial()
	defer c.Close()
	for _, p := range []wire.ExecuteParams{
		{Command: "head -c 5000 /dev/zero | tr '\\0' x"},       // a line that is too long
		{Command: "yes | head -c 2000000"},                     // more than the output limit
		{Command: "sleep 100 >/dev/null 2>&1 & exit 0"},        // a survivor
		{Command: "sleep 100 & kill -9 $PPID; sleep 100"},      // it kills its init
		{Command: "sleep 100", Timeout: 0.2},                   // silence
		{Command: "while :; do :; done", MaxDuration: 0.2},     // too long
		{Argv: []string{"/nonexistent"}},                       // no such program
		{Command: "kill -9 $$"},                                // it kills itself
		{Command: "yes", OnOutputLimit: wire.LimitCancel},      // more than it may, and that is its end
		{Command: "dd if=/dev/urandom bs=1k count=100 2>&1 #"}, // no text
	} {
		s.run(c, p)
	}
	var all []*client.Execution
	for range c.Limits().MaxExecutions {
		all = append(all, s.begin(c, "sleep 100"))
	}
	if _, err := c.Execute(s.t.Context(), wire.ExecuteParams{Command: "true"}); wire.CodeOf(err) != wire.CodeExecutionLimit {
		s.t.Errorf("one too many: %v", err)
	}
	for _, e := range all {
		_ = e.Cancel(s.t.Context())
	}
	if _, err := c.Control(s.t.Context(), wire.ControlParams{Type: wire.ControlPause, ExecutionID: "nobody"}); wire.CodeOf(err) != wire.CodeNoProcess {
		s.t.Errorf("PAUSE of nothing: %v", err)
	}
	for token, want := range map[string]int{"": 401, "wrong": 401} {
		if got := s.a.knock(http.DefaultClient, token); got != want {
			s.t.Errorf("token %q: status %d", token, got)
		}
	}
}

// cancelSlowly has a runner stand still while an execution should be killed that ignores SIGTERM.
func (s *scenario) cancelSlowly() {
	c := s.b.dial()
	s.held = append(s.held, c)
	e, err := c.Execute(s.t.Context(), wire.ExecuteParams{Command: "trap '' TERM; echo ready; while :; do sleep 1; done"})
	if err != nil {
		s.t.Fatal(err)
	}
	for printed := false; !printed; { // it ignores TERM from then on
		event, err := e.Next(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		_, printed = event.(*client.Output)
	}
	if err := e.Cancel(s.t.Context()); err != nil {
		s.t.Error(err)
	}
	goOn := s.b.freezeRunner()
	time.Sleep(17 * time.Second) // the fault itself: longer than the alert has patience
	goOn()
	if _, err := e.Wait(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}

// outputWithoutRoom evicts what is finished, then drops what is running.
func (s *scenario) outputWithoutRoom() {
	c := s.b.dial()
	s.held = append(s.held, c)
	const most = "yes | head -c 1000000"
	for range 4 {
		s.run(c, wire.ExecuteParams{Command: most})
	}
	// The first of them is gone: who asks for it gets a gap.
	session := c.Session()
	again, err := client.Attach(s.t.Context(), s.b.ws, session.ID, session.ResumeToken, nil, client.Options{Token: s.b.token})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range again.Executions() {
		_, _ = e.Copy(s.t.Context(), io.Discard, io.Discard) // the gaps are what this is for
	}
	again.Detach()
	for range 3 {
		s.begin(c, most+"; sleep 1000")
	}
}

// clientsComeBack detaches, resumes, and stays away.
func (s *scenario) clientsComeBack() {
	c := s.c.dial()
	e := s.begin(c, "while :; do echo tick; sleep 0.1; done")
	session := c.Detach()
	again, err := client.Attach(s.t.Context(), s.c.ws, session.ID, session.ResumeToken, nil, client.Options{Token: s.c.token})
	if err != nil {
		s.t.Fatal(err)
	}
	if again.Executions()[e.ID()] == nil {
		s.t.Error("the execution is not there")
	}
	again.Detach()
}

// logUnread stops the reader of b's log, and gives b something to log.
func (s *scenario) logUnread() {
	s.b.log.Lock()
	defer s.b.log.Unlock()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for range 3000 { // at some 170 bytes: more than the megabyte that waits
				s.b.knock(c, "wrong")
			}
		})
	}
	all.Wait()
}

// apiServerFails: clients with tokens that were not seen before cannot be checked, and the pod cannot report.
func (s *scenario) apiServerFails() {
	s.api.failing.Store(true)
	defer s.api.failing.Store(false)
	for _, token := range []string{"new", "newer", "newest"} {
		if got := s.c.knock(http.DefaultClient, token); got != http.StatusServiceUnavailable {
			s.t.Errorf("status %d", got)
		}
	}
}

// runnerStandsStill while more commands come than there are inits ready: the others wait for it.
func (s *scenario) runnerStandsStill() {
	var all sync.WaitGroup
	clients := []*client.Client{s.a.dial(), s.a.dial(), s.a.dial()}
	if err := s.a.runner.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range clients {
		for range c.Limits().MaxExecutions {
			all.Go(func() {
				_, _ = c.Run(s.t.Context(), wire.ExecuteParams{Command: "sleep 2"}, io.Discard, io.Discard)
			})
		}
	}
	time.Sleep(1500 * time.Millisecond) // the fault itself: starts take as long as this
	if err := s.a.runner.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	all.Wait()
	for _, c := range clients {
		_ = c.Close()
	}
}

// runnerEnds twice, and then stays away until the alert has shown.
func (s *scenario) runnerEnds() {
	c := s.a.dial()
	defer c.Close()
	for range 2 {
		e := s.begin(c, "sleep 1000")
		s.a.killRunner()
		if done, err := e.Wait(s.t.Context()); err != nil || done.Reason != wire.ReasonRunnerLost {
			s.t.Errorf("%+v, %v", done, err)
		}
		s.a.startRunner()
		s.run(c, wire.ExecuteParams{Command: "true"})
	}
	s.until("TroupeRunnerRestarting")
	s.a.killRunner()
	s.until("TroupeRunnerDown")
	s.a.startRunner()
	s.run(c, wire.ExecuteParams{Command: "true"})
}

// everySession takes all slots, and asks for one more.
func (s *scenario) everySession() {
	for _, server := range []*server{s.a, s.b, s.c} {
		held := 0
		for _, c := range s.held {
			if strings.HasPrefix(c.ID(), server.pod+".") {
				held++
			}
		}
		var c *client.Client
		for ; c == nil || held < c.Limits().MaxSessions; held++ {
			c = server.dial() // waits while sessions of earlier steps end
			s.held = append(s.held, c)
		}
		if _, err := client.Dial(s.t.Context(), server.ws, client.Options{Token: server.token}); wire.CodeOf(err) != wire.CodeSessionLimit {
			s.t.Errorf("one too many at %s: %v", server.pod, err)
		}
	}
	s.until("TroupeSessionsNearLimit")
}

// drainAll: each has a command that it waits for.
func (s *scenario) drainAll() {
	for _, server := range []*server{s.a, s.b, s.c} {
		s.begin(s.last(server), "sleep 1000")
		server.drain()
	}
}

// last is the client that opened a session of the server last.
func (s *scenario) last(of *server) *client.Client {
	s.t.Helper()
	for i := len(s.held) - 1; i >= 0; i-- {
		if strings.HasPrefix(s.held[i].ID(), of.pod+".") {
			return s.held[i]
		}
	}
	s.t.Fatalf("nobody holds a session of %s", of.pod)
	return nil
}

// end closes the sessions: the servers have nothing more to wait for.
func (s *scenario) end() {
	for _, c := range s.held {
		_ = c.Close()
	}
	for _, server := range []*server{s.a, s.b, s.c} {
		select {
		case err := <-server.ended:
			if err != nil {
				s.t.Errorf("%s: %v", server.pod, err)
			}
		case <-time.After(patience):
			s.t.Errorf("%s has not ended", server.pod)
		}
	}
}

// rulesAreHealthy asks Prometheus itself, which has evaluated them all the while.
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
