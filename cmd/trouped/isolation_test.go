package main

import (
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
