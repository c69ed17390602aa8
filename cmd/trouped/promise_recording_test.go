package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-dev/troupe/actors/screen"
	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

// cast reads a recording to its end.
func (s *instance) cast(path, subject string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", "http://"+s.addr()+"/api/v1/sessions/"+path, nil)
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
	if err != nil {
		s.t.Fatalf("after %d bytes: %v", len(b), err)
	}
	return resp.StatusCode, string(b)
}

// shown returns what the events of a recording show, and the time of the first that shows the text.
func shown(t *testing.T, cast, text string) (all string, at float64) {
	t.Helper()
	at = -1
	for line := range strings.Lines(cast) {
		var event [3]any
		if strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		data, _ := event[2].(string)
		if event[1] != "o" {
			data = "<" + data + ">"
		}
		if all += data; at < 0 && strings.Contains(all, text) {
			at, _ = event[0].(float64)
		}
	}
	return all, at
}

// TestTerminalIsRecorded: from any pod, with the sizes and the times of what it showed, and without a password that was
// typed. Its owner gets it, and whoever may read, with an audit line; asciinema plays it.
func TestTerminalIsRecorded(t *testing.T) {
	f := launchFleet(t, "--auth", "token", "--token-file", tokensWithRoles(t, "alice", "bob", "olga operator", "aldo auditor"))
	c := f.pods[0].dialAs("alice", troupe.Options{})
	s := terminal(t, c)
	began := time.Now()
	path := c.ID() + "/executions/shell/recording"
	followed := make(chan string)
	go func() {
		_, cast := f.pods[2].cast(path+"?follow=true", "alice")
		followed <- cast
	}()
	s.types("read -s -p 'pass''word: ' P\r")
	s.shows("password: ")
	s.types("correct horse\r")
	s.shows("ready> ")
	if err := s.e.Resize(t.Context(), 120, 40); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(began.Add(time.Second)))
	typed := time.Since(began)
	s.types("stty size; printf 'h\\303'; sleep 0.1; printf '\\244user\\n'\r")
	s.shows("user\r\nready> ")
	// Its own subject needs no verb, and from any pod it is the same.
	_, own := f.pods[0].cast(path, "alice")
	if _, other := f.pods[1].cast(path, "alice"); other != own {
		t.Errorf("from another pod:\n%s\nwant\n%s", other, own)
	}
	for subject, want := range map[string]int{"bob": 404, "olga": 403, "aldo": 200} {
		if status, _ := f.pods[1].cast(path, subject); status != want {
			t.Errorf("%s: %d, want %d", subject, status, want)
		}
	}
	text, at := shown(t, own, "40 120")
	if !strings.Contains(text, "häuser") || strings.Contains(text, "horse") ||
		!strings.Contains(text, "<120x40>") {
		t.Errorf("the recording shows %q", text)
	}
	if late := at - typed.Seconds(); late < -0.05 || late > 5 {
		t.Errorf("what was shown at %v is at %.3f s", typed, at)
	}
	s.types("exit 3\r")
	if done := s.ends(); done.ExitCode != 3 {
		t.Errorf("%+v", done)
	}
	_ = c.Close() // at once, as troupe shell does
	if text, _ := shown(t, <-followed, ""); !strings.HasSuffix(text, "exit\r\n") {
		t.Errorf("followed to the end, it shows at last %q", text[max(0, len(text)-100):])
	}
	plays(t, own, text)
	f.pods[1].signal(syscall.SIGTERM)
	f.pods[1].exit()
	for _, want := range []string{`"msg":"access"`, `"subject":"aldo","verb":"read","session":"` + c.ID(), `"status":200`} {
		if !strings.Contains(f.pods[1].stderr.String(), want) {
			t.Errorf("who watched whom: the audit log lacks %s", want)
		}
	}
}

// TestRecordingBeginsWithTheScreen of what is not kept any more.
func TestRecordingBeginsWithTheScreen(t *testing.T) {
	s := launch(t)
	c := s.dial()
	e, err := c.Execute(t.Context(), wire.ExecuteParams{
		ExecutionID: "shell", Argv: []string{"sh", "-c", draws}, Scrollback: 64 << 10,
		Terminal: &wire.Terminal{Cols: 120, Rows: 24},
	})
	if err != nil {
		t.Fatal(err)
	}
	(&view{shows: screen.New(80, 24)}).follow(t, e, "the end")
	_, cast := s.cast(c.ID()+"/executions/shell/recording", "")
	shows := screen.New(120, 24)
	for line := range strings.Lines(cast) {
		var event [3]any
		if json.Unmarshal([]byte(line), &event) == nil && event[1] == "o" {
			_, _ = fmt.Fprint(shows, event[2])
		}
	}
	if rows := shows.Text(); rows[0] != "title" || rows[23] != "the end" || !strings.Contains(cast, "bytes are not kept") {
		t.Errorf("the recording shows %q", rows)
	}
}

// plays has asciinema show a recording.
func plays(t *testing.T, cast, want string) {
	t.Helper()
	if _, err := exec.LookPath("asciinema"); err != nil {
		t.Log("asciinema is not installed: it did not show the recording")
		return
	}
	path := filepath.Join(t.TempDir(), "demo.cast")
	if err := os.WriteFile(path, []byte(cast), 0o600); err != nil {
		t.Fatal(err)
	}
	want = strings.NewReplacer("<120x40>", "", "\r", "").Replace(want)
	for _, command := range []string{"asciinema cat ", "asciinema play -s 100 "} {
		cmd := exec.CommandContext(t.Context(), "script", "-qefc", command+path, "/dev/null") // it wants a terminal
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(strings.ReplaceAll(string(out), "\r", ""), want) {
			t.Errorf("%s: %v, %q, want %q", command, err, out, want)
		}
	}
}
