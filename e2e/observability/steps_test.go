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

// step is one thing that the scenario does to the servers.
type step struct {
	name string // as it stands in docs/dashboard.svg
	do   func()
	wait string // the alert that must have fired before the next step; "": none
}

// allSlots is the step before which the ordinary work must stop.
const allSlots = "all slots taken"

// steps are in an order in which no step hides the effect of another.
func (s *scenario) steps() []step {
	nothing := func() {}
	return []step{
		{"more clients than d has slots", s.sessionsElsewhere, ""},
		{"connections to peers without a certificate", s.strangersKnock, "TroupePeersRefused"},
		{"d cannot reach e", s.closeWay, "TroupePeersUnreachable"},
		// While few commands have run: later, its slow starts are less than a hundredth of all on a slow
		// machine.
		{"runner stopped for 1.5 s", s.runnerStandsStill, "TroupeStartSlow"},
		{"failing commands", s.commandsGoWrong, "TroupeProcessesEscaped"},
		{"a subject with more commands than one may have", s.subjectAtItsLimit, "TroupeSubjectsRefused"},
		{"runner stopped during a cancel", s.cancelSlowly, "TroupeCancelSlow"},
		{"transcript budget spent", s.outputWithoutRoom, "TroupeOutputLost"},
		{"clients detach and resume", s.clientsComeBack, ""},
		{"log not read", s.logUnread, "TroupeLogLinesDropped"},
		{"d still cannot reach e", nothing, "TroupeLinksBreaking"},
		{"d reaches e again", s.openWay, ""},
		{"API server fails", s.apiServerFails, "TroupeAuthUnavailable"},
		{"runner that does not answer", s.runnerHangs, "TroupeRunnerCannotStart"},
		{"runner killed three times", s.runnerEnds, "TroupeRunnerDown"},
		{"certificate about to expire", s.certificateAges, "TroupePeerCertificateExpiring"},
		{allSlots, s.everySession, "TroupeSessionsRefused"},
		{"all servers drain", s.drainAll, "TroupeDrainCutsOff"},
		{"all servers still drain", nothing, "TroupeNotReady"},
	}
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
		{Command: "yes", OnOutputLimit: wire.LimitCancel},      // it is cancelled at the output limit
		{Command: "dd if=/dev/urandom bs=1k count=100 2>&1 #"}, // output that is not text
	} {
		s.run(c, p)
	}
	var all []*troupe.Execution
	for range c.Limits().MaxExecutions {
		all = append(all, s.begin(c, "sleep 100"))
	}
	if _, err := c.Execute(s.t.Context(),
		wire.ExecuteParams{Command: "true"}); wire.CodeOf(err) != wire.CodeExecutionLimit {
		s.t.Errorf("one too many: %v", err)
	}
	for _, e := range all {
		_ = e.Cancel(s.t.Context())
	}
	if _, err := c.Control(s.t.Context(), wire.ControlParams{
		Type:        wire.ControlPause,
		ExecutionID: "unknown",
	}); wire.CodeOf(err) != wire.CodeNoProcess {
		s.t.Errorf("PAUSE of nothing: %v", err)
	}
	for token, want := range map[string]int{"": 401, "wrong": 401} {
		if got := s.a.knock(http.DefaultClient, token); got != want {
			s.t.Errorf("token %q: status %d", token, got)
		}
	}
}

// subjectAtItsLimit starts commands in two sessions of one subject until the next is refused.
func (s *scenario) subjectAtItsLimit() {
	one, two := s.a.dialAs(s.a.second), s.a.dialAs(s.a.second)
	defer one.Close()
	defer two.Close()
	for i := range maxExecutionsPerSubject + 1 {
		c := one
		if i >= one.Limits().MaxExecutions {
			c = two
		}
		_, err := c.Execute(s.t.Context(), wire.ExecuteParams{Command: "sleep 100"})
		refused := wire.CodeOf(err) == wire.CodeSessionLimit
		if refused != (i == maxExecutionsPerSubject) || err != nil && !refused {
			s.t.Errorf("command %d of a subject that may have %d: %v", i, maxExecutionsPerSubject, err)
		}
	}
}

// cancelSlowly stops the runner while it should kill an execution that ignores SIGTERM.
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
	time.Sleep(17 * time.Second) // the fault itself: longer than the threshold of the alert
	goOn()
	if _, err := e.Wait(s.t.Context()); err != nil {
		s.t.Error(err)
	}
}

// outputWithoutRoom makes the server evict finished transcripts, then drop output of running
// commands.
func (s *scenario) outputWithoutRoom() {
	c := s.b.dial()
	s.held = append(s.held, c)
	const most = "yes | head -c 1000000"
	for range 4 {
		s.run(c, wire.ExecuteParams{Command: most})
	}
	// The first of them is evicted: a client that asks for it gets a gap.
	session := c.Session()
	again, err := troupe.Attach(s.t.Context(), s.b.ws, session.ID, session.ResumeToken, nil,
		troupe.Options{Token: s.b.token})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range again.Executions() {
		_, _ = e.Copy(s.t.Context(), io.Discard, io.Discard) // for the gaps
	}
	again.Detach()
	for range 3 {
		s.begin(c, most+"; sleep 1000")
	}
}

// clientsComeBack detaches, resumes, and detaches for good.
func (s *scenario) clientsComeBack() {
	c := s.c.dial()
	e := s.begin(c, "while :; do echo tick; sleep 0.1; done")
	session := c.Detach()
	again, err := troupe.Attach(s.t.Context(), s.c.ws, session.ID, session.ResumeToken, nil,
		troupe.Options{Token: s.c.token})
	if err != nil {
		s.t.Fatal(err)
	}
	if again.Executions()[e.ID()] == nil {
		s.t.Error("the execution is not there")
	}
	again.Detach()
}

// logUnread stops reading b's log and makes b log more than it buffers.
func (s *scenario) logUnread() {
	s.b.log.Lock()
	defer s.b.log.Unlock()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			// A session, or its refusal, has some 500 bytes of log: together more than the buffer of 256 KiB.
			for range 500 {
				if c, err := troupe.Dial(s.t.Context(), s.b.ws, troupe.Options{Token: s.b.token}); err == nil {
					_ = c.Close()
				}
			}
		})
	}
	all.Wait()
}

// apiServerFails: new tokens cannot be checked, and the pod cannot report.
func (s *scenario) apiServerFails() {
	defer s.api.fail()()
	for _, token := range []string{"new", "newer", "newest"} {
		if got := s.c.knock(http.DefaultClient, token); got != http.StatusServiceUnavailable {
			s.t.Errorf("status %d", got)
		}
	}
	s.until("TroupePeersNotFollowed")
}

// runnerStandsStill stops the runner while more commands come than inits are ready; the others wait
// for it.
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

// runnerHangs stops the runner until the alert has fired, while commands hold every init that it has
// made.
func (s *scenario) runnerHangs() {
	var all sync.WaitGroup
	clients := []*troupe.Client{s.a.dial(), s.a.dial(), s.a.dial()}
	if err := s.a.runner.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range clients {
		for range c.Limits().MaxExecutions {
			all.Go(func() {
				_, _ = c.Run(s.t.Context(), wire.ExecuteParams{Command: "sleep 1000"}, io.Discard, io.Discard)
			})
		}
	}
	s.until("TroupeRunnerCannotStart")
	if err := s.a.runner.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range clients {
		_ = c.Close()
	}
	all.Wait()
}

// runnerEnds kills the runner twice, and a third time without a new one until the alert has fired.
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

// everySession takes all slots and asks for one more.
func (s *scenario) everySession() {
	for _, server := range s.all() {
		s.fill(server)
	}
	for _, server := range s.all() {
		if _, err := troupe.Dial(s.t.Context(), server.ws,
			troupe.Options{Token: server.token}); wire.CodeOf(err) != wire.CodeSessionLimit {
			s.t.Errorf("one too many at %s: %v", server.pod, err)
		}
	}
	s.until("TroupeSessionsNearLimit")
}

// fill takes all slots of a server. It waits while sessions of earlier steps end.
func (s *scenario) fill(server *server) {
	s.t.Helper()
	held := 0
	for _, c := range s.held {
		if strings.HasPrefix(c.ID(), server.pod+".") {
			held++
		}
	}
	for deadline := time.Now().Add(stepTimeout); held < maxSessions; {
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

// drainAll drains every server while it has a command to wait for.
func (s *scenario) drainAll() {
	for _, server := range s.all() {
		s.begin(s.last(server), "sleep 1000")
		server.drain()
	}
}

// last returns the client that opened a session of the server last.
func (s *scenario) last(of *server) *troupe.Client {
	s.t.Helper()
	for i := len(s.held) - 1; i >= 0; i-- {
		if strings.HasPrefix(s.held[i].ID(), of.pod+".") {
			return s.held[i]
		}
	}
	s.t.Fatalf("no client holds a session of %s", of.pod)
	return nil
}
