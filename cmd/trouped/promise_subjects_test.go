package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// launchFor starts a server with a token for each subject.
func launchFor(t *testing.T, subjects []string, args ...string) *instance {
	t.Helper()
	var tokens strings.Builder
	for _, subject := range subjects {
		fmt.Fprintln(&tokens, subject, tokenOf(subject))
	}
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(tokens.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return launch(t, append([]string{"--auth", "token", "--token-file", file}, args...)...)
}

func tokenOf(subject string) string { return "the-token-of-the-subject-" + subject }

// knockAs is knock by a subject.
func knockAs(t *testing.T, s *instance, subject string) *socket {
	t.Helper()
	return knock(t, s, "/ws", http.Header{"Authorization": {"Bearer " + tokenOf(subject)}})
}

// refusedFor returns the limit for which the server refuses a session, or "" if it opens one.
func refusedFor(t *testing.T, c *socket) string {
	t.Helper()
	if status, _, err := c.hear(); err != nil || status != http.StatusSwitchingProtocols {
		t.Fatalf("the handshake is answered with %d, %v", status, err)
	}
	raw, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.DecodeServerMessage(raw)
	switch {
	case err != nil:
		t.Fatal(err)
	case m.Method == wire.MethodConnected:
		return ""
	case m.Err == nil || m.Err.Code != wire.CodeSessionLimit || m.Err.Data == nil || m.Err.Data.RetryAfterSeconds <= 0:
		t.Fatalf("refused with %s", raw)
	}
	if _, err := c.read(); err == nil || !strings.HasPrefix(err.Error(), "closed with 1013 ") {
		t.Errorf("a refused client is told %v", err)
	}
	return m.Err.Data.Limit
}

// TestPromise18GreedySubjectLeavesTheLastTenth: of 105 connections that one subject opens at once, 90
// get a session. Ten other subjects get one each and run a command in it; then the server is full.
func TestPromise18GreedySubjectLeavesTheLastTenth(t *testing.T) {
	subjects := []string{"greedy", "late"}
	for i := range 10 {
		subjects = append(subjects, fmt.Sprint("modest-", i))
	}
	s := launchFor(t, subjects)
	verdicts := map[string]int{}
	var rushing []*socket
	for range 105 {
		rushing = append(rushing, knockAs(t, s, "greedy"))
	}
	for _, c := range rushing {
		verdicts[refusedFor(t, c)]++
	}
	if verdicts[""] != 90 || verdicts["reserved-sessions"] != 15 {
		t.Fatalf("one subject: %v, want 90 sessions and 15 refusals for the reserve", verdicts)
	}
	for _, subject := range subjects[2:] {
		c := knockAs(t, s, subject)
		if limit := refusedFor(t, c); limit != "" {
			t.Fatalf("%s was refused for %s", subject, limit)
		}
		if r := c.run(wire.ExecuteParams{Command: "echo " + subject}); r.text(wire.Stdout) != subject+"\n" {
			t.Errorf("%s: %q, %+v", subject, r.text(wire.Stdout), r.done)
		}
		if limit := refusedFor(t, knockAs(t, s, "greedy")); limit != "reserved-sessions" && limit != "max-sessions" {
			t.Errorf("beside %s the greedy one is answered %q", subject, limit)
		}
	}
	if limit := refusedFor(t, knockAs(t, s, "late")); limit != "max-sessions" || s.active() != 100 {
		t.Errorf("the server is full with %d sessions, and answers %q", s.active(), limit)
	}
}

// TestPromise18SubjectAtItsLimits is refused, and told which; the other subjects notice nothing.
func TestPromise18SubjectAtItsLimits(t *testing.T) {
	s := launchFor(t, []string{"alice", "bob", "carol"}, "--max-sessions-per-subject", "2",
		"--max-executions-per-subject", "3")
	for _, subject := range []string{"alice", "bob", "carol"} {
		one, two := knockAs(t, s, subject), knockAs(t, s, subject)
		for _, c := range []*socket{one, two} {
			if limit := refusedFor(t, c); limit != "" {
				t.Fatalf("%s was refused for %s", subject, limit)
			}
		}
		if limit := refusedFor(t, knockAs(t, s, subject)); limit != "max-sessions-per-subject" {
			t.Errorf("the third session of %s: %q", subject, limit)
		}
		sleep := wire.ExecuteParams{Argv: []string{"sleep", "1000"}}
		ids := []string{one.start(sleep), one.start(sleep), two.start(sleep)}
		for _, c := range []*socket{one, two} {
			err := c.call(wire.MethodExecute, sleep, nil)
			if err == nil || err.Code != wire.CodeSessionLimit || err.Data.Limit != "max-executions-per-subject" ||
				err.Data.Value != 3 {
				t.Errorf("the fourth execution of %s: %+v", subject, err)
			}
		}
		cancel := wire.ControlParams{Type: wire.ControlCancel, ExecutionID: ids[0]}
		if err := one.call(wire.MethodControl, cancel, nil); err != nil {
			t.Fatal(err)
		}
		one.collectEnd(ids[0])
		two.start(sleep)
	}
	for _, series := range []string{
		`troupe_sessions_refused_total{reason="subject_limit"} 3`, `troupe_sessions_refused_total{reason="session_limit"} 0`,
		`troupe_executions_refused_total{reason="subject_limit"} 6`, "troupe_subject_sessions_highest 2",
		"troupe_sessions_reserved 10",
	} {
		if _, body := s.get(s.admin + "/metrics"); !strings.Contains(body, "\n"+series+"\n") {
			t.Errorf("no %s", series)
		}
	}
	s.signal(syscall.SIGTERM)
	s.await(s.admin+"/readyz", http.StatusServiceUnavailable)
	s.signal(syscall.SIGTERM) // at once: it has begun to drain
	s.exit()
	if n := strings.Count(s.stderr.String(), `"msg":"session refused"`); n != 3 {
		t.Errorf("%d refusals are in the log, 3 happened", n)
	}
}

// TestPromise18ConnectionsOfOneSubject: a subject with as many as one may have is refused at the
// handshake, another is not.
func TestPromise18ConnectionsOfOneSubject(t *testing.T) {
	s := launchFor(t, []string{"alice", "bob", "carol"}, "--max-connections-per-subject", "2")
	for _, subject := range []string{"alice", "bob", "carol"} {
		for i := range 2 {
			if limit := refusedFor(t, knockAs(t, s, subject)); limit != "" {
				t.Fatalf("connection %d of %s was refused for %s", i, subject, limit)
			}
		}
		c := knockAs(t, s, subject)
		resp, err := http.ReadResponse(c.in, c.req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || err != nil ||
			!strings.Contains(string(body), `"code":-32001,"data":{"limit":"max-connections-per-subject","value":2,`) {
			t.Errorf("the third connection of %s: %d %s, %v", subject, resp.StatusCode, body, err)
		}
	}
}

// TestPromise18OutputOfOneSubject: a subject that fills the disk loses its own oldest output, not that
// of another, which is still unread; at its own limit its running commands drop what is beyond, and
// say so.
func TestPromise18OutputOfOneSubject(t *testing.T) {
	s := launchFor(t, []string{"alice", "bob"}, "--max-output", "1MiB", "--transcript-budget", "4MiB",
		"--max-output-per-subject", "2MiB")
	options := troupe.Options{Token: tokenOf("bob")}
	bob, err := troupe.Dial(t.Context(), s.ws, options)
	if err != nil {
		t.Fatal(err)
	}
	var before, after strings.Builder
	if _, err := bob.Run(bounded(t), wire.ExecuteParams{Command: "seq 100000"}, &before, io.Discard); err != nil {
		t.Fatal(err)
	}
	alice := knockAs(t, s, "alice")
	if limit := refusedFor(t, alice); limit != "" {
		t.Fatal(limit)
	}
	const most = "yes x | head -c 1000000"
	for range 8 {
		if r := alice.run(wire.ExecuteParams{Command: most}); r.done.DroppedBytes != 0 {
			t.Errorf("finished output did not give way: %+v", r.done)
		}
	}
	for range 3 {
		alice.start(wire.ExecuteParams{Command: most + "; exec sleep 1000"})
	}
	var warned wire.Warning
	alice.notified(wire.MethodWarning, &warned)
	if warned.Code != wire.WarnTranscriptWrite || !strings.Contains(warned.Message, "max-output-per-subject") {
		t.Errorf("%+v", warned)
	}
	session := bob.Detach()
	again, err := troupe.Attach(t.Context(), s.ws, session.ID, session.ResumeToken, nil, options)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range again.Executions() {
		if _, err := e.Copy(bounded(t), &after, io.Discard); err != nil {
			t.Error(err)
		}
	}
	if after.String() != before.String() || before.Len() == 0 {
		t.Errorf("bob reads %d bytes again, %d were written", after.Len(), before.Len())
	}
	_, body := s.get(s.admin + "/metrics")
	for cause, none := range map[string]bool{"subject_limit": false, "budget": true} {
		if strings.Contains(body, fmt.Sprintf("\ntroupe_output_dropped_bytes_total{cause=%q} 0\n", cause)) != none {
			t.Errorf("the dropped bytes are not put down to the subject's limit: %s", cause)
		}
	}
}
