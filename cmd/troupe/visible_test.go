//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-dev/troupe/actors/wire"
	troupe "github.com/troupe-dev/troupe/clients/go"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 漢 👩\u200d💻 \\ !": "plain é 漢 👩\u200d💻 \\ !",
		"\x1b[2J\a\x00\x7f":       `\x1b[2J\x07\x00\x7f`,
		"a\r\n\tb":                `a\r\n\tb`,
		"\u009b31m\u0085":         `\u009b31m\u0085`,
		"\x9b31m\xff":             `\x9b31m\xff`,
		"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069": `\u061c\u200e\u200f\u202a\u202b\u202c` +
			`\u202d\u202e\u2066\u2067\u2068\u2069`,
		"\u2028\u2029\ufeff\u00ad\U000e0041": `\u2028\u2029\ufeff\u00ad\U000e0041`,
		"\ufffd":                             `\ufffd`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%+q: %q, want %q", in, got, want)
		}
	}
}

// TestLongErrorsAreShortened: what a server says must not fill the terminal.
func TestLongErrorsAreShortened(t *testing.T) {
	f := start(t, nil)
	f.engine.refuse = wire.Errorf(wire.CodeSessionLimit, "full: %s the end", strings.Repeat("é", 100_000))
	r := f.run("exec", "--", "true")
	if got := r.stderr.String(); r.code != 125 || len(got) > maxNote+100 || strings.Contains(got, `\x`) ||
		!strings.Contains(got, "bytes …é") || !strings.Contains(got, "the end") {
		t.Errorf("code %d, %d bytes: %.100q", r.code, len(got), got)
	}
}

// hostile is text that would clear a terminal, set its title and turn the rest of the line around.
const hostile = "x\x1b[2J\x1b]0;t\a\u009b1m\u202e\x7f\u2066y"

// raw reports whether s has any character of hostile that must be escaped.
func raw(s string) bool { return strings.ContainsAny(s, "\x1b\a\u009b\u202e\x7f\u2066") }

// TestHostileTextIsEscaped: names, commands and error texts must not act on the terminal
// (kubernetes#101695).
func TestHostileTextIsEscaped(t *testing.T) {
	f := start(t, nil)
	if r := f.run("exec", "-d", "--", "hang", "KILL", hostile); r.code != 0 {
		t.Fatal(r.stderr)
	}
	s := &store{dir: filepath.Join(f.state, "sessions", "--local")}
	odd := &record{Session: troupe.Session{ID: "pod.\u202e1", ResumeToken: "t"}}
	if err := s.save(odd); err == nil {
		t.Error("a session with a hostile id was remembered")
	}
	if r := f.run("__complete", "attach", ""); raw(r.stdout.String()) || !strings.Contains(r.stdout.String(), `x\x1b[2J`) {
		t.Errorf("completion: %q", r.stdout)
	}
	r := f.run("sessions", "--local", "-o", "json")
	for line := range strings.Lines(r.stdout.String()) {
		var row seen
		if err := json.Unmarshal([]byte(line), &row); err != nil || !strings.HasSuffix(row.Command, hostile) {
			t.Errorf("JSON: %q, %v", line, err)
		}
	}
	if r := f.run("sessions", "--local"); r.code != 0 || raw(r.stdout.String()) || !strings.Contains(r.stdout.String(), `x\x1b[2J`) ||
		strings.Count(r.stdout.String(), "\n") != 2 {
		t.Errorf("sessions: %d, %q, %q", r.code, r.stdout, r.stderr)
	}

	f.engine.refuse = wire.Errorf(wire.CodeSessionLimit, "full "+hostile)
	for _, args := range [][]string{
		{"exec", "--", "true"},
		{"exec", "--bogus" + hostile, "--", "true"},
		{"exec", "-e", hostile, "--", "true"},
		{"attach", "." + hostile, "--resume-token", "t"},
		{hostile},
		{"exec", "--token-file", hostile, "--", "true"},
		{"exec", "--timeout", hostile, "--", "true"},
	} {
		r := f.run(args...)
		if r.code != 125 || raw(r.stderr.String()) || !strings.Contains(r.stderr.String(), `\x1b`) ||
			strings.Count(r.stderr.String(), "\n") != 1 {
			t.Errorf("%q: %d, %q", args, r.code, r.stderr)
		}
	}
	f.engine.endSession("pod.0")
}

// TestJSONStaysJSON: output in --json is escaped as JSON is, and not a second time.
func TestJSONStaysJSON(t *testing.T) {
	s := launch(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte(hostile), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runTroupe(t, home(t, s.url), "exec", "--json", "--", "cat", text)
	var first struct{ Params wire.Output }
	_, rest, _ := strings.Cut(stdout, "\n") // process.started
	line, _, _ := strings.Cut(rest, "\n")
	if err := json.Unmarshal([]byte(line), &first); code != 0 || err != nil || first.Params.Data != hostile {
		t.Errorf("code %d, %q, %q, %v", code, stdout, stderr, err)
	}
	if code, stdout, _ := runTroupe(t, home(t, s.url), "exec", "--", "cat", text); code != 0 || stdout != hostile {
		t.Errorf("the command's own output: %d, %q", code, stdout)
	}
}
