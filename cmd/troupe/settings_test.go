package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	troupe "github.com/troupe-dev/troupe/clients/go"
)

// parse runs the settings through a command that does nothing.
func parse(t *testing.T, args ...string) (*clientSettings, error) {
	t.Helper()
	a := &app{stdout: os.Stdout, stderr: os.Stderr, stdin: strings.NewReader("")}
	root := a.rootCommand(nil)
	root.AddCommand(&cobra.Command{Use: "noop", RunE: func(*cobra.Command, []string) error { return nil }})
	root.SetArgs(append([]string{"noop"}, args...))
	err := root.Execute()
	return &a.settings, err
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("TROUPE_SERVER", "")
	file := filepath.Join(dir, "other.yaml")
	if err := os.WriteFile(file, []byte("server: file:1\nwait: 5s\nquiet: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(want string, args ...string) {
		t.Helper()
		s, err := parse(t, args...)
		if err != nil || s.server != want {
			t.Errorf("%v: server %q, %v; want %q", args, s.server, err, want)
		}
	}
	check(defaultServer)
	check("file:1", "--config", file)
	t.Setenv("TROUPE_SERVER", "env:1")
	check("env:1", "--config", file)
	check("flag:1", "--config", file, "--server", "flag:1")
	if s, err := parse(t, "--config", file); err != nil || s.wait != 5*time.Second || !s.quiet {
		t.Errorf("%+v, %v", s, err)
	}
	t.Setenv("TROUPE_CONFIG", file)
	t.Setenv("TROUPE_SERVER", "")
	check("file:1")
}

func TestConfigurationErrors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"unknown": "sever: x\n", "syntax": "a: [\n", "value": "wait: soon\n", "flag only": "command: rm\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := parse(t, "--config", file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := parse(t, "--config", filepath.Join(dir, "absent")); err == nil {
		t.Error("a file that was asked for may be absent")
	}
}

func TestTokenFileFlagBeatsTheEnvironment(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("fresh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TROUPE_TOKEN", "stale")
	s, err := parse(t, "--token-file", file)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{settings: *s}
	opt, err := a.options(a.configured())
	if err != nil || opt.TokenFunc == nil {
		t.Fatalf("%+v, %v", opt, err)
	}
	if token, err := opt.TokenFunc(); token != "fresh" || err != nil {
		t.Errorf("token %q, %v", token, err)
	}
}

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{
		"ws://h:1/ws": "ws://h:1/ws", "http://h": "ws://h/ws", "https://h/": "wss://h/ws",
		"wss://h/a/ws": "wss://h/a/ws", "127.0.0.1:8003": "ws://127.0.0.1:8003/ws", "[::1]:8003": "ws://[::1]:8003/ws",
	} {
		if got, err := serverURL(in); got != want || err != nil {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{"ftp://h", "http://", "ws://h:port"} {
		if got, err := serverURL(in); err == nil {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestStoreRefusesNamesThatArePaths(t *testing.T) {
	s := &store{dir: filepath.Join(t.TempDir(), "sessions", "--local")}
	for _, id := range []string{"", "../x", "a/b", `a\b`, ".x", "c:d"} {
		if err := s.save(&record{Session: troupe.Session{ID: id, ResumeToken: "t"}}); err == nil {
			t.Errorf("%q was saved", id)
		}
	}
}

func TestStoreFindsByPrefix(t *testing.T) {
	s := &store{dir: filepath.Join(t.TempDir(), "sessions", "--local")}
	for _, id := range []string{"pod-0.aa", "pod-0.ab", "pod-1.a"} {
		if err := s.save(&record{Session: troupe.Session{ID: id, ResumeToken: "t"}}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.find("pod-1", ""); err != nil || r.ID != "pod-1.a" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.find("pod-0", ""); err == nil {
		t.Error("an ambiguous beginning was taken")
	}
}
