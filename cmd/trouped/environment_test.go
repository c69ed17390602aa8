package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommandsGetACleanEnvironment protects the server's secrets.
func TestCommandsGetACleanEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hidden")
	t.Setenv("LANG", "de_DE")
	t.Setenv("SHOWN", "yes")
	c := defaults()
	c.passEnv = []string{"SHOWN", "NOT_SET_ANYWHERE", "HOME"}
	c.env = []string{"SHOWN=no", "EQUALS=a=b", "EMPTY="}
	t.Setenv("HOME", "/home/of/trouped")
	want := "PATH=" + commandPath + ";LANG=C.UTF-8;SHOWN=no;HOME=/home/of/trouped;EQUALS=a=b;EMPTY="
	if got := strings.Join(c.commandEnv(), ";"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c.passEnv, c.env = nil, nil
	if got := strings.Join(c.commandEnv(), ";"); got != "PATH="+commandPath+";LANG=C.UTF-8" {
		t.Errorf("default: got %s", got)
	}
}

func TestFindRunner(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "troupe-runner")
	c := defaults()
	t.Setenv("PATH", dir)
	if _, err := c.findRunner(); err == nil || !strings.Contains(err.Error(), "--runner-binary") ||
		!strings.Contains(err.Error(), "make build") {
		t.Errorf("none anywhere: %v", err)
	}
	if err := os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := c.findRunner(); err != nil || got != binary {
		t.Errorf("in PATH: %s, %v", got, err)
	}
	if err := os.Chmod(binary, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.findRunner(); err == nil {
		t.Errorf("found %s, which cannot be run", got)
	}
	c.runnerBinary = filepath.Join(dir, "missing")
	if _, err := c.findRunner(); err == nil || !strings.HasPrefix(err.Error(), "--runner-binary") {
		t.Errorf("named, but missing: %v", err)
	}
}

func TestWorkdirMustBeADirectory(t *testing.T) {
	c := defaults()
	for _, bad := range []string{"/nonexistent", "/dev/null"} {
		c.workdir = bad
		if _, err := c.commandDir(); err == nil || !strings.Contains(err.Error(), "--workdir") ||
			!strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c.runner = "/run/troupe.sock" // the directory is in the runner's container
	c.workdir = "/nonexistent"
	if got, err := c.commandDir(); err != nil || got != "/nonexistent" {
		t.Errorf("with a runner elsewhere: %s, %v", got, err)
	}
	c.workdir = defaults().workdir // relative to what?
	if got, err := c.commandDir(); got != "" || err != nil {
		t.Errorf("without --workdir, with a runner elsewhere: %s, %v, want the session's home", got, err)
	}
	c.workdir = "sub"
	if got, err := c.commandDir(); err == nil || !strings.Contains(err.Error(), "--workdir must be absolute") {
		t.Errorf("relative, with a runner elsewhere: %s, %v", got, err)
	}
}

// TestMistypedDataDirIsNotCreated protects a disk that was not mounted.
func TestMistypedDataDirIsNotCreated(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", home)
	c := defaults()
	if err := c.prepareDataDir(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, ".local", "state")); err != nil {
		t.Error(err)
	}
	c.dataDir = filepath.Join(home, "not-mounted", "troupe")
	if err := c.prepareDataDir(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, "not-mounted")); err == nil {
		t.Error("the parent of a named directory was created")
	}
}

func TestTryLineWorksAsItStands(t *testing.T) {
	for _, c := range []struct{ auth, addr, want string }{
		{authNone, "127.0.0.1:8003", "troupe exec -- echo hello"},
		{authNone, "[::]:8003", "troupe exec -- echo hello"},
		{authNoneInsecure, "[::]:8003", "troupe exec -- echo hello"},
		{authNone, "127.0.0.1:8004", "troupe --server ws://127.0.0.1:8004/ws exec -- echo hello"},
		{authToken, "192.0.2.1:80", "TROUPE_TOKEN=TOKEN troupe --server ws://192.0.2.1:80/ws exec -- echo hello"},
	} {
		s := &server{c: &config{auth: c.auth}}
		if got := s.tryLine(c.addr); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
