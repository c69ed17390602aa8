package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// tokensWithRoles writes a token file: each line is a subject and, behind a space, its roles.
func tokensWithRoles(t *testing.T, lines ...string) string {
	t.Helper()
	var b strings.Builder
	for _, line := range lines {
		subject, roles, _ := strings.Cut(line, " ")
		fmt.Fprintf(&b, "%s %s %s\n", subject, tokenOf(subject), roles)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// api sends a request to the HTTP API and decodes the answer into v, unless it is nil.
func (s *instance) api(method, path, subject string, v any) int {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr()+"/api/v1/"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+tokenOf(subject))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && v != nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		s.t.Fatalf("%s %s: %s: %v", method, path, b, err)
	}
	return resp.StatusCode
}

func (s *instance) dialAs(subject string, opt troupe.Options) *troupe.Client {
	s.t.Helper()
	opt.Token = tokenOf(subject)
	c, err := troupe.Dial(s.t.Context(), "ws://"+s.addr()+"/ws", opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestAPISessionsOfAllPods: a listing shows who runs what on every pod, from any of them. One that stands still is
// named within 2 s, and once more when it counts as dead; when it goes on, the listing is whole again.
func TestAPISessionsOfAllPods(t *testing.T) {
	f := launchFleet(t, "--auth", "token", "--token-file",
		tokensWithRoles(t, "alice", "bob", "vera viewer", "olga operator", "aldo auditor"))
	for i, s := range f.pods {
		c := s.dialAs([]string{"alice", "bob", "alice"}[i], troupe.Options{Session: wire.SessionOptions{
			Name: "nightly", Labels: map[string]string{"run": fmt.Sprint(i)}, ResumeWindow: 40 * time.Minute,
		}})
		if _, err := c.Execute(t.Context(), wire.ExecuteParams{
			Argv: []string{"sleep", "1000"}, ExecutionID: fmt.Sprint("sleep-", i),
		}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(at int, query, subject string) (rows []string, missing []wire.MissingPod) {
		t.Helper()
		var page wire.SessionList
		began := time.Now()
		if status := f.pods[at].api("GET", "sessions"+query, subject, &page); status != http.StatusOK {
			t.Fatalf("%s: %d", query, status)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the listing took %v", took)
		}
		for _, s := range page.Sessions {
			x := s.Executions[0]
			rows = append(rows, strings.Join([]string{
				s.Pod, s.Subject, s.Name, s.Labels["run"], string(s.State), x.ID, string(x.State), x.Command,
			}, " "))
		}
		return rows, page.Missing
	}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
			t.Errorf("%s:\n%s\nwant\n%s", what, g, w)
		}
	}
	for at := range f.pods {
		rows, missing := list(at, "", "aldo")
		expect(fmt.Sprint("everybody's, with what runs, at pod ", at), rows,
			"pod-0 alice nightly 0 attached sleep-0 running sleep 1000",
			"pod-1 bob nightly 1 attached sleep-1 running sleep 1000",
			"pod-2 alice nightly 2 attached sleep-2 running sleep 1000")
		if len(missing) > 0 {
			t.Errorf("missing: %v", missing)
		}
		rows, _ = list(at, "?label=run=2", "alice")
		expect("own ones", rows, "pod-2 alice nightly 2 attached sleep-2 running sleep 1000")
		rows, _ = list(at, "?subject=bob", "vera")
		expect("a viewer", rows, "pod-1 bob nightly 1 attached sleep-1 running ")
	}

	f.pods[1].signal(syscall.SIGSTOP)
	frozen := time.Now()
	for reason := "it did not answer in time"; ; {
		rows, missing := list(0, "", "aldo")
		expect("without pod-1", rows,
			"pod-0 alice nightly 0 attached sleep-0 running sleep 1000",
			"pod-2 alice nightly 2 attached sleep-2 running sleep 1000")
		if len(missing) != 1 || missing[0].Pod != "pod-1" {
			t.Fatalf("missing: %v", missing)
		}
		if strings.HasPrefix(missing[0].Reason, "it is dead") {
			break
		}
		if missing[0].Reason != reason || time.Since(frozen) > 20*time.Second {
			t.Fatalf("missing: %v after %v", missing, time.Since(frozen))
		}
	}
	f.pods[1].signal(syscall.SIGCONT)
	f.meet()
	if rows, missing := list(0, "", "aldo"); len(rows) != 3 || len(missing) > 0 {
		t.Errorf("later: %v, missing %v", rows, missing)
	}
}

// TestAPISessionMovesToAnotherMachine: its subject attaches through another pod with no more than its token, reads the
// output from the beginning, and goes on.
func TestAPISessionMovesToAnotherMachine(t *testing.T) {
	f := launchFleet(t, "--auth", "token", "--token-file", tokensWithRoles(t, "alice", "aldo auditor,operator,user"))
	first := f.pods[0].dialAs("alice", troupe.Options{})
	shell, err := first.Execute(t.Context(), wire.ExecuteParams{
		Argv: []string{"sh", "-c", "echo here; read x; echo got $x"}, ExecutionID: "shell", Stdin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := shell.ID()
	session := first.ID()
	first.Detach()
	for _, who := range []string{"aldo", "alice"} {
		var a wire.Attachment
		status := f.pods[2].api("POST", "sessions/"+session+"/attach", who, &a)
		if want := map[string]int{"aldo": 404, "alice": 200}[who]; status != want {
			t.Fatalf("%s: %d, want %d", who, status, want)
		}
		if who == "aldo" {
			continue // whoever may see and end all sessions still takes up none
		}
		c, err := troupe.Attach(t.Context(), "ws://"+f.pods[1].addr()+"/ws", session, a.ResumeToken, nil,
			troupe.Options{Token: tokenOf("alice")})
		if err != nil {
			t.Fatal(err)
		}
		e := c.Executions()[id]
		if _, err := e.Input(t.Context(), []byte("it\n")); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		done, err := e.Copy(t.Context(), &out, &out)
		if err != nil || done.ExitCode != 0 || out.String() != "here\ngot it\n" {
			t.Errorf("%q, %+v, %v", out.String(), done, err)
		}
		_ = c.Close()
	}
}

// TestAPIOperatorEndsASession: on another pod, with what runs in it, and the audit log has who did it.
func TestAPIOperatorEndsASession(t *testing.T) {
	f := launchFleet(t, "--auth", "token", "--token-file", tokensWithRoles(t, "alice", "vera viewer", "olga operator"))
	c := f.pods[0].dialAs("alice", troupe.Options{})
	marker := "api-" + strings.ToLower(t.Name())
	execute(t, c, "exec sleep 1000 "+marker)
	id := c.ID()
	c.Detach()
	for who, want := range map[string]int{"vera": 403, "mallory": 401} {
		if status := f.pods[1].api("DELETE", "sessions/"+id, who, nil); status != want {
			t.Errorf("%s: %d, want %d", who, status, want)
		}
	}
	var s wire.Session
	if status := f.pods[1].api("DELETE", "sessions/"+id, "olga", &s); status != http.StatusAccepted ||
		s.State != wire.SessionClosing || s.Executions[0].Command != "" {
		t.Errorf("%d %+v", status, s)
	}
	eventually(t, func() error {
		if status := f.pods[2].api("GET", "sessions/"+id, "olga", nil); status != http.StatusNotFound {
			return fmt.Errorf("%d", status)
		}
		return nil
	})
	gone(t, marker)
	for _, pod := range f.pods {
		pod.signal(syscall.SIGTERM)
		pod.exit()
	}
	log := f.pods[1].stderr.String()
	for _, want := range []string{`"msg":"access"`, `"subject":"olga"`, `"verb":"delete"`, `"session":"` + id, `"owner":"alice"`, `"read":false`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
}

// TestPagesOfAllowedOriginsUseTheDoors: a browser's preflight and the answer behind it, at every door for HTTP.
func TestPagesOfAllowedOriginsUseTheDoors(t *testing.T) {
	s := launch(t, "--allowed-origins", "https://*.example.org")
	for _, path := range []string{
		"/api/v1/sessions", "/api/v1/sessions/troupe.0/files/x", "/api/v1/sessions/troupe.0/uploads/x", "/mcp",
	} {
		for origin, want := range map[string]int{"https://a.example.org": http.StatusNoContent, "https://evil.example": 403} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+s.addr()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", origin)
			r.Header.Set("Access-Control-Request-Method", "PUT")
			for _, step := range []string{"preflight", "request"} {
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				allowed := resp.Header.Get("Access-Control-Allow-Origin")
				if (allowed == origin) != (want == http.StatusNoContent) || step == "preflight" && resp.StatusCode != want {
					t.Errorf("%s of %s from %s: %d, allows %q", step, path, origin, resp.StatusCode, allowed)
				}
				r.Method = http.MethodGet
				r.Header.Del("Access-Control-Request-Method")
			}
		}
	}
}
