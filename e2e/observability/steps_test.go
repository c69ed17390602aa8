package observability

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// The steps of the scenario: what is done to the servers.

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
	var all []*troupe.Execution
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
		_, printed = event.(*troupe.Output)
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
	again, err := troupe.Attach(s.t.Context(), s.b.ws, session.ID, session.ResumeToken, nil, troupe.Options{Token: s.b.token})
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
	again, err := troupe.Attach(s.t.Context(), s.c.ws, session.ID, session.ResumeToken, nil, troupe.Options{Token: s.c.token})
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
	defer s.api.fail()()
	for _, token := range []string{"new", "newer", "newest"} {
		if got := s.c.knock(http.DefaultClient, token); got != http.StatusServiceUnavailable {
			s.t.Errorf("status %d", got)
		}
	}
	s.until("TroupePeersNotFollowed")
}

// runnerStandsStill while more commands come than there are inits ready: the others wait for it.
func (s *scenario) runnerStandsStill() {
	var all sync.WaitGroup
	clients := []*troupe.Client{s.a.dial(), s.a.dial(), s.a.dial()}
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
	for _, server := range s.all() {
		s.fill(server)
	}
	for _, server := range s.all() {
		if _, err := troupe.Dial(s.t.Context(), server.ws, troupe.Options{Token: server.token}); wire.CodeOf(err) != wire.CodeSessionLimit {
			s.t.Errorf("one too many at %s: %v", server.pod, err)
		}
	}
	s.until("TroupeSessionsNearLimit")
}

// fill takes what a server has of slots. It waits while sessions of earlier steps end.
func (s *scenario) fill(server *server) {
	s.t.Helper()
	held := 0
	for _, c := range s.held {
		if strings.HasPrefix(c.ID(), server.pod+".") {
			held++
		}
	}
	for deadline := time.Now().Add(patience); held < maxSessions; {
		c := server.dial()
		if strings.HasPrefix(c.ID(), server.pod+".") {
			s.held = append(s.held, c)
			held++
			continue
		}
		if err := c.Close(); err != nil { // it was placed on a peer
			s.t.Error(err)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s has no slot free", server.pod)
		}
	}
}

// drainAll: each has a command that it waits for.
func (s *scenario) drainAll() {
	for _, server := range s.all() {
		s.begin(s.last(server), "sleep 1000")
		server.drain()
	}
}

// last is the client that opened a session of the server last.
func (s *scenario) last(of *server) *troupe.Client {
	s.t.Helper()
	for i := len(s.held) - 1; i >= 0; i-- {
		if strings.HasPrefix(s.held[i].ID(), of.pod+".") {
			return s.held[i]
		}
	}
	s.t.Fatalf("nobody holds a session of %s", of.pod)
	return nil
}
