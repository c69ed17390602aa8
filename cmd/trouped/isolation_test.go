package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestAutoIsolatesWhereClientsDiffer: with --auth none there is one user, for whom sudo and docker
// must work. Protects from: a laptop without them, and a shared server without walls.
func TestAutoIsolatesWhereClientsDiffer(t *testing.T) {
	for _, tc := range []struct{ level, auth, want string }{
		{isolationAuto, authNone, isolationNone},
		{isolationAuto, authNoneInsecure, isolationNone},
		{isolationAuto, authToken, isolationAuto},
		{isolationAuto, authKubernetes, isolationAuto},
		{isolationSession, authNone, isolationSession},
		{isolationNone, authToken, isolationNone},
	} {
		c := defaults()
		c.isolation.Level, c.auth = tc.level, tc.auth
		if got := c.runnerIsolation().Level; got != tc.want {
			t.Errorf("--isolation %s --auth %s starts the runner with %s, want %s", tc.level, tc.auth, got, tc.want)
		}
	}
}

// TestIsolationOfARunnerElsewhereIsItsOwn protects from: settings of trouped that the runner on a
// socket never gets.
func TestIsolationOfARunnerElsewhereIsItsOwn(t *testing.T) {
	c := defaults()
	c.runner, c.workdir = "/run/troupe/runner.sock", "/workspace"
	c.isolation.Level = isolationSession
	if err := c.validateIsolation(); err != nil {
		t.Errorf("--isolation session, which is what is asked for, is refused: %v", err)
	}
	c.isolation.SharedTmp, c.isolation.Write = true, []string{"/cache"}
	err := c.validateIsolation()
	for _, want := range []string{"--isolation-shared-tmp is for the embedded runner", "--isolation-write is for the embedded runner"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestIsolationIsExported, in the server's metrics and as it was asked for.
func TestIsolationIsExported(t *testing.T) {
	for level, asked := range map[string]string{"none": "0", "auto": "0"} {
		s := launch(t, "--isolation", level)
		_, metrics := s.get(s.admin + "/metrics")
		for _, want := range []string{"\ntroupe_isolation_asked " + asked + "\n", "\ntroupe_isolation_info{abi=\"", `level="none"} 1`} {
			if !strings.Contains(metrics, want) {
				t.Errorf("--isolation %s: %q is not in the metrics", level, want)
			}
		}
	}
}

// TestServerFilesAreNotOpenedToSessions: what a rule opens to every session must not be trouped's own.
func TestServerFilesAreNotOpenedToSessions(t *testing.T) {
	dir := t.TempDir()
	c := defaults()
	c.auth, c.dataDir, c.tokenFile = authToken, filepath.Join(dir, "data"), "/etc/troupe/tokens"
	if got := c.openToSessions(); len(got) != 1 || got["token-file"] != c.tokenFile {
		t.Errorf("a token file in /etc: %v", got)
	}
	c.tokenFile, c.workdir = filepath.Join(dir, "tokens"), dir
	if got := c.openToSessions(); len(got) != 2 {
		t.Errorf("both below --workdir: %v", got)
	}
	c.isolation.Level = isolationSession
	if err := c.validateIsolation(); err == nil || !strings.Contains(err.Error(), "can be read by every session") {
		t.Error(err)
	}
	c.workdir = "."
	if err := c.validateIsolation(); err != nil {
		t.Error(err)
	}
	c.isolation.Level, c.workdir = isolationNone, dir
	if got := c.openToSessions(); got != nil {
		t.Errorf("without isolation: %v", got)
	}
	c.isolation.Workspace = "spaces"
	if err := c.validateIsolation(); err == nil || !strings.Contains(err.Error(), "--workspace must be an absolute path") {
		t.Error(err)
	}
}
