//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
)

// TestSessionsOfTheServer: another machine, which remembers nothing, sees what runs with its token alone, follows it
// to the end, and ends what it does not want.
func TestSessionsOfTheServer(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	const alice, olga = "the-token-of-alice", "the-token-of-olga"
	if err := os.WriteFile(tokens, []byte("alice "+alice+"\nolga "+olga+" operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, "--auth", "token", "--token-file", tokens)
	machine := func(token string) []string {
		return bare("HOME="+t.TempDir(), "PATH="+os.Getenv("PATH"), "TROUPE_SERVER="+s.url, "TROUPE_TOKEN="+token)
	}
	laptop, desktop, operator := machine(alice), machine(alice), machine(olga)
	if code, _, stderr := runTroupe(t, laptop, "exec", "--detach", "--", "sh", "-c",
		"echo from the laptop; sleep 2; echo done"); code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	_, table, _ := runTroupe(t, desktop, "sessions")
	if lines := strings.Split(
		strings.TrimSpace(table),
		"\n",
	); len(lines) != 2 || !strings.HasPrefix(lines[0], "SESSION") ||
		!strings.Contains(lines[1], "detached") || !strings.Contains(lines[1], "running") ||
		!strings.Contains(lines[1], "from the laptop") {
		t.Errorf("sessions:\n%s", table)
	}
	var listed wire.Session
	_, line, _ := runTroupe(t, desktop, "sessions", "-o", "json")
	if err := json.Unmarshal(
		[]byte(line),
		&listed,
	); err != nil || listed.Subject != "alice" ||
		len(listed.Executions) != 1 {
		t.Fatalf("sessions -o json: %s: %v", line, err)
	}
	if _, table, _ := runTroupe(t, operator, "sessions"); table != "" {
		t.Errorf("the operator's own: %s", table)
	}
	if _, table, _ := runTroupe(t, operator, "sessions", "--all"); !strings.Contains(table, "alice") ||
		strings.Contains(table, "laptop") {
		t.Errorf("all, without what runs: %s", table)
	}
	if code, _, stderr := runTroupe(
		t,
		desktop,
		"sessions",
		"--all",
	); code != exitTroupe ||
		!strings.Contains(stderr, "may not list") {
		t.Errorf("all, as a user: %d %s", code, stderr)
	}
	if _, table, _ := runTroupe(t, desktop, "sessions", "-l", "team=build"); table != "" {
		t.Errorf("of a label that it has not: %s", table)
	}

	if code, _, stderr := runTroupe(
		t,
		operator,
		"attach",
		listed.ID,
	); code != exitTroupe ||
		!strings.Contains(stderr, "may not create sessions") {
		t.Errorf("the operator attaches: %d %s", code, stderr)
	}
	code, out, stderr := runTroupe(t, desktop, "attach", listed.ID[:len(listed.ID)-4])
	if code != 0 || out != "from the laptop\ndone\n" {
		t.Errorf("attach: %d, %q, %s", code, out, stderr)
	}

	if code, _, stderr := runTroupe(t, laptop, "exec", "--detach", "--", "sleep", "1000"); code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	_, line, _ = runTroupe(t, operator, "sessions", "--all", "-o", "json")
	if err := json.Unmarshal([]byte(line), &listed); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if code, out, stderr := runTroupe(t, operator, "sessions", "rm", listed.ID, "nothing"); code != exitTroupe ||
		out != listed.ID+" is ending\n" || !strings.Contains(stderr, `none begins with "nothing"`) {
		t.Errorf("rm: %d, %q, %s", code, out, stderr)
	}
	eventually(t, "the end of the session", func() bool {
		_, table, _ := runTroupe(t, operator, "sessions", "--all")
		return table == ""
	})
}

// TestSessionsTable: what is shown of each session, and that what others chose does nothing to a terminal.
func TestSessionsTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(-d).Format(time.RFC3339Nano) }
	sessions := []wire.Session{
		{ID: "pod-0.1", Subject: "alice", State: wire.SessionDetached, CreatedAt: at(26 * time.Hour)},
		{
			ID: "pod-0.2", Name: "nightly", Subject: "b\x1b[2Job", State: wire.SessionAttached, CreatedAt: at(61 * time.Second),
			Isolation: wire.IsolationSession,
			Executions: []wire.SessionExecution{
				{
					ID:          "x",
					State:       wire.StateRunning,
					StartedAt:   at(5 * time.Second),
					Offset:      7,
					MemoryBytes: 3 << 20,
					Command:     "make\x1b[31m",
				},
			}, ExecutionsOmitted: 2,
		},
	}
	var b strings.Builder
	if err := sessionTable(&b, sessions, true, now); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		strings.Fields("SESSION NAME SUBJECT STATE ISOLATION AGE EXECUTION STATE FOR BYTES MEMORY COMMAND"),
		strings.Fields("pod-0.1 - alice detached - 26h00m - - - - -"),
		strings.Fields(`pod-0.2 nightly b\x1b[2Job attached session 1m01s x running 5s 7 3Mi make\x1b[31m`),
		strings.Fields(`pod-0.2 nightly b\x1b[2Job attached session 1m01s and 2 more`),
	}
	for i, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
		if got := strings.Fields(line); fmt.Sprint(got) != fmt.Sprint(want[i]) {
			t.Errorf("%q, want %q", got, want[i])
		}
	}
	b.Reset()
	if err := sessionTable(&b, sessions, false, now); err != nil || strings.Contains(b.String(), "alice") {
		t.Errorf("own ones: %s %v", b.String(), err)
	}
}
